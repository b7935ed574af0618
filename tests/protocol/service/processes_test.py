"""Several server processes at one port: one model, one set of limits, and they come back."""

import contextlib
import os
import pathlib
import signal
import socket

import numpy as np
import pytest

from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import processes, server
from safenet_jax.protocol.service.policy import Policy
from safenet_jax.transport import tls
from safenet_jax.transport.frames import ProtocolError
from tests.support import models, servers


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  return tls.insecure_test_certificate(tmp_path_factory.mktemp('tls'), ['127.0.0.1'])


@pytest.fixture(scope='module')
def model():
  return models.calibrated()


def serve(model, files, policy=None, **options):
  return processes.ServerProcesses(
    model, files=files, count=2, options=server.ServerOptions(**options), policy=policy
  )


@pytest.fixture(scope='module')
def running(model, files):
  with serve(model, files, sessions=3, address_sessions=3, place_seconds=30) as found:
    yield found


def connect(running, files, **options):
  context = tls.client_context(files.certificate)
  return clients.Client(*running.address, context=context, timeout=30, **options)


def images(model, count):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, *model.public.input_shape), dtype=np.uint8)


def sockets(process):
  """The inodes of a process's open sockets."""
  found = set()
  for name in os.listdir(f'/proc/{process}/fd'):
    with contextlib.suppress(OSError):  # closed in the meantime
      found.add(os.readlink(f'/proc/{process}/fd/{name}'))
  return found


def reached(running, client):
  """Which of the processes a client is connected to."""
  port = client._channel._stream._sock.getsockname()[1]
  for line in pathlib.Path('/proc/net/tcp').read_text().splitlines()[1:]:
    _, local, remote, *_ = fields = line.split()
    ports = [int(address.split(':')[1], 16) for address in (local, remote)]
    if ports == [running.address[1], port]:
      inode = f'socket:[{fields[9]}]'
  (process,) = (each for each in running.processes if inode in sockets(each))
  return process


def reach(running, files, process, **options):
  """A client of that process."""
  while True:  # the system chooses by the client's port
    client = connect(running, files, **options)
    if reached(running, client) == process:
      return client
    client.close()


def test_each_process_serves_the_model_as_its_own(running, files, model):
  found = set()
  for process in running.processes:
    with reach(running, files, process) as client:
      found.add(client.description.model_id)
      logits = client.infer(images(model, 1))
      assert np.abs(logits - model.logits(images(model, 1))).max() < 0.05
  assert len(found) == 2


def test_limits_are_for_all_processes_together(running, files):
  """Three sessions is the most, and a fourth gets the place of the one that is idle longest."""
  first, second = running.processes
  held = [reach(running, files, process) for process in (first, second, first)]
  for client in held:
    client.prepare(1)
  held.append(reach(running, files, second))
  with pytest.raises(ProtocolError, match='its place was needed|closed the connection'):
    held[0].prepare(1)
  for client in held[1:]:
    client.prepare(1)
    client.close()


def test_predictions_are_counted_over_processes(model, files):
  with serve(model, files, policy=Policy(predictions_per_day=3)) as running:
    first, second = running.processes
    for process in (first, second, second):
      with reach(running, files, process) as client:
        client.infer(images(model, 1))
    for process in (first, second):
      with pytest.raises(ProtocolError, match='3 predictions today and 1 more, 3 a day'):
        reach(running, files, process).infer(images(model, 1))


def test_preparations_are_those_of_the_process_that_made_them(
  running, files, model, tmp_path, caplog
):
  first, second = running.processes
  with reach(running, files, first, directory=tmp_path) as client:
    client.prepare(2)
  # What another process may have stays in the directory.
  with reach(running, files, second, directory=tmp_path) as client:
    assert client.prepared == 0
    assert 'count=2 reason="another process of the server may have them' in caplog.text
  with reach(running, files, first, directory=tmp_path) as client:
    assert client.prepared == 2
    client.infer(images(model, 2))


def test_a_pool_finds_the_process_of_its_client(running, files, model):
  for process in running.processes:
    with reach(running, files, process, keep_prepared=2) as client:
      servers.until(lambda client=client: client.prepared == 2)
      client.infer(images(model, 2))


def test_a_killed_process_is_replaced_and_the_other_serves_on(model, files):
  with serve(model, files, sessions=2, address_sessions=2) as running:
    process, other = running.processes
    survivor, victim = reach(running, files, process), reach(running, files, other)
    os.kill(other, signal.SIGKILL)
    with pytest.raises(ProtocolError):
      victim.infer(images(model, 1))
    with survivor:
      assert survivor.infer(images(model, 1)).shape == (1, 3)
    servers.until(lambda: other not in running.processes)
    # The place that the killed process held is free again.
    with connect(running, files), connect(running, files):
      pass
    with reach(running, files, running.processes[1]) as client:
      assert client.infer(images(model, 1)).shape == (1, 3)
    assert running.close(60.0)  # nothing was cut off


def test_a_port_where_somebody_listens_is_refused(running, model, files):
  with pytest.raises(OSError, match='in use'):
    processes.ServerProcesses(model, *running.address, files=files, count=1)
  with socket.create_server(('127.0.0.1', 0)) as taken, pytest.raises(OSError, match='in use'):
    processes.ServerProcesses(model, *taken.getsockname(), files=files, count=1)


def test_what_cannot_be_served_is_refused_before_a_process_starts(model, files):
  with pytest.raises(ValueError, match='0 processes, want 1 or more'):
    processes.ServerProcesses(model, files=files, count=0)
  with pytest.raises(ValueError, match="mode 'no', want one of"):
    serve(model, files, mode='no')

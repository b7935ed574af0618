"""Each party in a process of its own, over TLS on the loopback."""

from collections.abc import Callable, Iterator
import contextlib
import multiprocessing
import os
import signal

import pytest

from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import tls
from safenet_jax.transport.frames import ProtocolError
from tests.support import journals, mortals

_SECONDS = 300.0


@contextlib.contextmanager
def started() -> Iterator[Callable]:
  """A function of a target and its arguments that starts a process; all end with the block.

  It gives the process and a pipe, whose other end is the target's first argument.
  """
  spawn, running = multiprocessing.get_context('spawn'), []

  def start(target, *args, **options):
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=target, args=(theirs, *args), kwargs=options, daemon=True)
    process.start()
    theirs.close()
    running.append((process, ours))
    return process, ours

  try:
    yield start
  finally:
    for _, pipe in running:
      pipe.close()
    for process, _ in running:
      process.join(10)
      if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()


@contextlib.contextmanager
def serving(model, directory, **options) -> Iterator[tuple]:
  """The address of a server's process, and the files of its certificate."""
  files = tls.insecure_test_certificate(directory)
  with started() as start:
    _, pipe = start(serve, model, files, **options)
    yield pipe.recv(), files


def serve(pipe, model, files, *, mode='delphi', journal=None, place=None) -> None:
  """A server, until the other end of the pipe is closed; sends its address.

  Args:
    pipe: to the test.
    model, files, mode: of the server.
    journal: file of a `Journal` that watches it.
    place: (operation, tag) of the message before which it is killed.
  """
  with _watched('server', journal, place):
    context = tls.server_context(*files)
    options = servers.ServerOptions(mode=mode, timeout=_SECONDS)
    with servers.Server(model, context=context, options=options) as server:
      pipe.send(server.address)
      with contextlib.suppress(EOFError):
        pipe.recv()


def infer(
  pipe, address, authority, images, *, directory=None, stock=0, journal=None, place=None
) -> None:
  """A client that infers, with `stock` preparations when it begins.

  Sends how many of them were there from its last life, and logits; or the error that it
  ends with.
  """
  with _watched('client', journal, place):
    context = tls.client_context(authority)
    try:
      with clients.Client(
        *address, context=context, directory=directory, timeout=_SECONDS
      ) as client:
        left = client.prepared
        client.prepare(max(0, stock - left))
        pipe.send((left, client.infer(images)))
    except ProtocolError as error:
      pipe.send(error)


@contextlib.contextmanager
def _watched(party, journal, place) -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    if journal:
      journals.Journal(journal).watch(patch)
    with mortals.dying(mortals.sigkill(party, place)):
      yield

"""A client and a server as users have them: over TLS, prepared or not, several at once."""

from concurrent import futures
import gc
import signal
import time

import numpy as np
import pytest
import threadpoolctl

from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.protocol.delphi.material import ServerMaterial
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import (
  commands,
  description,
  handshake,
  preparation_files,
  sessions,
)
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import tls
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.ledger import Ledger
from tests.support import models
from tests.support import servers as small_servers


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  return tls.insecure_test_certificate(tmp_path_factory.mktemp('tls'), ['127.0.0.1'])


@pytest.fixture(scope='module')
def model():
  return models.calibrated()


@pytest.fixture(scope='module')
def server(files, model):
  with serve(model, files) as running:
    yield running


def serve(model, files, **options):
  chosen = servers.ServerOptions(**options)
  return servers.Server(model, context=tls.server_context(*files), options=chosen)


def connect(server, files, **options):
  return clients.Client(*server.address, context=tls.client_context(files.certificate), **options)


def images(model, count, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, *model.public.input_shape), dtype=np.uint8)


def close(model, images, logits):
  """Activations are rounded at random, to 2^-7; the logits follow."""
  expected = model.logits(images)
  return np.abs(logits - expected).max() < 0.05 < np.ptp(expected)


def test_predictions_are_those_of_the_model(server, files, model):
  batch = images(model, 3)
  with connect(server, files) as client:
    client.prepare(2)
    assert client.prepared == server.prepared == 2
    assert close(model, batch, client.infer(batch))  # the third is prepared on the way
    assert client.prepared == server.prepared == 0
    record = client.ledger.record()
  assert set(record['phases']) >= {'handshake', 'setup', 'offline', 'online'}


def test_products_take_one_thread_while_a_server_is_open(files, model):
  def threads():
    found = threadpoolctl.threadpool_info()
    return {library['num_threads'] for library in found if library['user_api'] == 'blas'}

  with threadpoolctl.threadpool_limits(2, user_api='blas'):
    before = threads()
    with serve(model, files):
      assert threads() == {1}
    assert threads() == before == {2}


def test_gazelle_is_served_as_delphi_is(files, model):
  batch = images(model, 2)
  with (
    serve(model, files, mode='gazelle') as baseline,
    connect(baseline, files) as first,
  ):
    first.prepare(1)
    assert close(model, batch, first.infer(batch))
    # Prepared in one connection, used in another one of the same client.
    with connect(baseline, files, keep_prepared=1) as pooled:
      until(lambda: pooled.prepared == 1)
      assert close(model, batch[:1], pooled.infer(batch[:1]))
      assert 'offline' not in pooled.ledger.record()['phases']
    with pytest.raises(ValueError, match='mode gazelle, want none: its preparations stay'):
      connect(baseline, files, directory='somewhere')
  with pytest.raises(ValueError, match="mode 'other', want one of ot, delphi, gazelle"):
    servers.Server(model, context=None, options=servers.ServerOptions(mode='other'))


def test_clients_at_once_get_their_own_predictions(server, files, model):
  def predict(seed):
    batch = images(model, 2, seed)
    with connect(server, files) as client:
      return close(model, batch, client.infer(batch))

  with futures.ThreadPoolExecutor(4) as pool:
    assert all(pool.map(predict, range(4)))


def test_preparations_in_a_directory_survive_their_client(server, files, model, tmp_path):
  batch = images(model, 2)
  with connect(server, files, directory=tmp_path) as client:
    client.prepare(2)
  with connect(server, files, directory=tmp_path) as client:
    assert client.prepared == 2
    before = client.ledger.record()['phases']
    assert close(model, batch, client.infer(batch))
    assert 'offline' not in client.ledger.record()['phases'] and 'offline' not in before
  assert [path.suffix for path in tmp_path.iterdir()] == ['.token']


def test_a_preparation_serves_once(server, files, model):
  with connect(server, files) as client:
    client.prepare(1)
    (material,) = client._store.take(1)
    client._store.put(material)
    client.infer(images(model, 1))
    commands.send(client._channel, commands.Command(commands.INFER, 1, [material.identifier]))
    with pytest.raises(ProtocolError, match='refused: no preparation [0-9a-f]{32}: it was used'):
      client._channel.receive('anything')
  with connect(server, files) as client:
    assert client.infer(images(model, 1)).shape == (1, 3)


def test_a_directory_gives_nothing_out_twice(server, files, model, tmp_path, monkeypatch):
  with connect(server, files, directory=tmp_path) as client:
    client.prepare(1)

    def crash(files, name):
      raise KeyboardInterrupt

    monkeypatch.setattr(preparation_files.PreparationFiles, 'load', crash)
    with pytest.raises(KeyboardInterrupt):
      client.infer(images(model, 1))
  monkeypatch.undo()
  assert sorted(path.suffix for path in tmp_path.iterdir()) == ['.token', '.used']
  with connect(server, files, directory=tmp_path) as client:
    assert client.prepared == 0
  assert [path.suffix for path in tmp_path.iterdir()] == ['.token']


def test_preparations_with_another_model_are_not_used(files, model, tmp_path):
  for _ in range(2):
    # Each server draws an id of its own, whatever it serves.
    with (
      serve(model, files) as other,
      connect(other, files, directory=tmp_path) as client,
    ):
      assert client.prepared == 0
      client.prepare(1)


def test_a_pool_prepares_in_the_background(server, files, model):
  with connect(server, files, keep_prepared=2) as client:
    for _ in range(2):
      until(lambda: client.prepared == 2)
      client.infer(images(model, 1))
    assert 'offline' not in client.ledger.record()['phases']


def until(condition, seconds=300):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.02)


def test_a_full_server_says_so(files, model):
  with (
    serve(model, files, memory_bytes=1000) as small,
    connect(small, files) as client,
    pytest.raises(ProtocolError, match='refused: .* is the limit: use some first'),
  ):
    client.prepare(1)


def test_old_preparations_are_forgotten(files, model):
  with (
    serve(model, files, keep_seconds=1e-9) as short,
    connect(short, files) as client,
  ):
    client.prepare(1)
    with pytest.raises(ProtocolError, match='is too old'):
      client.infer(images(model, 1))


def test_workers_answer_as_threads_do(files, model):
  batch = images(model, 2)
  with (
    serve(model, files, workers=2) as parallel,
    connect(parallel, files) as one,
    connect(parallel, files) as other,
  ):
    assert close(model, batch, one.infer(batch)) and close(model, batch, other.infer(batch))


def test_workers_killed_under_load_end_no_session(files, model):
  """Each is stopped and killed with a request in it, while two clients ask."""
  with (
    serve(model, files, workers=2) as parallel,
    futures.ThreadPoolExecutor() as threads,
  ):

    def ask(seed):
      with connect(parallel, files) as client:
        return [client.infer(images(model, 1, seed)) for _ in range(3)]

    pool = parallel._linear._workers._workers
    victims = [worker.process for worker in pool]
    for victim in victims:
      victim.send_signal(signal.SIGSTOP)
    answers = [threads.submit(ask, seed) for seed in (0, 1)]
    for worker, victim in zip(pool, victims):
      while not worker._owed and not any(answer.done() for answer in answers):
        time.sleep(0.01)
      victim.kill()
    for seed, answer in enumerate(answers):
      for logits in answer.result():
        assert close(model, images(model, 1, seed), logits)
    assert not {victim.pid for victim in victims} & {worker.process.pid for worker in pool}


def test_a_session_keeps_nothing_of_an_inference_that_is_over(server, files, model):
  def materials():
    return sum(isinstance(each, ServerMaterial) for each in gc.get_objects())

  gc.collect()
  gc.disable()  # nor leaves it to the collector, which comes late: arrays hardly count for it
  try:
    before = materials()
    with connect(server, files) as client:
      client.prepare(1)
      assert materials() == before + 1
      client.infer(images(model, 1))
      small_servers.until(lambda: materials() == before)
  finally:
    gc.enable()


def test_an_error_of_the_server_ends_one_session_and_says_nothing(
  server, files, model, monkeypatch, caplog
):
  def transparent(*args, **options):
    raise RuntimeError('result ciphertext is transparent')

  with connect(server, files) as other:
    with monkeypatch.context() as patch, connect(server, files) as client:
      patch.setattr(server._linear, 'reply', transparent)
      with pytest.raises(ProtocolError, match='refused: an error of its own, which is in its log$'):
        client.prepare(1)
    small_servers.until(lambda: 'result ciphertext is transparent' in caplog.text)
    assert close(model, images(model, 1), other.infer(images(model, 1)))


@pytest.mark.parametrize(
  'bad',
  [
    np.zeros((1, 8, 8, 2), np.float32),
    np.zeros((1, 8, 8, 3), np.uint8),
    np.zeros((8, 8, 2), np.uint8),
  ],
)
def test_wrong_images_use_nothing_up(server, files, bad):
  with connect(server, files) as client:
    client.prepare(1)
    with pytest.raises(ValueError, match='images'):
      client.infer(bad)
    assert client.prepared == 1


@pytest.mark.parametrize(
  'raw',
  [
    b'',
    b'P',
    b'XL' + bytes(4),
    b'PL' + bytes(4),
    b'IL\0\0\0\2' + bytes(16),
    b'PL\xff\xff\xff\xff',
    b'PX\0\0\0\1',
    b'PL\0\0\0\1' + bytes(16),
    b'IL\0\0\0\1' + bytes(17),
  ],
)
def test_a_nonsense_command_ends_the_session_only(server, files, model, raw):
  with connect(server, files) as client:
    client._channel.send('command', raw)
    with pytest.raises(ProtocolError, match='refused: a command'):
      client._channel.receive('anything')
  with connect(server, files) as client:
    assert client.infer(images(model, 1)).shape == (1, 3)


def test_a_description_of_the_wrong_model_is_refused(server, files, model):
  expected = description.Expectation(model_id=SystemRandomness().bytes(16))
  with pytest.raises(ProtocolError, match='the server has model'):
    connect(server, files, expected=expected)


def test_numbers_of_server_and_client_have_ranges():
  with pytest.raises(ValueError) as found:
    servers.ServerOptions(workers=-1, sessions=0, memory_bytes=1.5, timeout=float('nan'))
  names = [fault.split()[0] for fault in str(found.value).split('; ')]
  assert names == ['workers', 'sessions', 'memory_bytes', 'timeout']
  with pytest.raises(ValueError, match='^timeout -1, want a number above 0.*; keep_prepared -2'):
    clients.Client('127.0.0.1', 1, context=None, timeout=-1, keep_prepared=-2)
  with pytest.raises(ValueError, match='^model of type str, want a FixedPointModel'):
    servers.Server('model.safenet', context=None)


def test_clients_choose_a_mode_and_keep_to_what_they_prepared(files, model, tmp_path):
  batch, asked = images(model, 1), []

  def choose(described, round_trip):
    asked.append((described.choices, round_trip))
    return described.choices[-1]

  with serve(model, files, mode='auto') as running:
    with connect(running, files) as client:
      assert client.description.mode == sessions.DEFAULT
    with connect(running, files, directory=tmp_path, choose=choose) as client:
      chosen = client.description.mode
      client.prepare(1)
    ((choices, round_trip),) = asked
    # A directory leaves out the mode whose preparations stay in memory.
    assert chosen == choices[-1] != 'gazelle' and 'gazelle' not in choices and round_trip > 0
    with connect(running, files, directory=tmp_path, choose=lambda *_: 'delphi') as client:
      assert client.description.mode == chosen and client.prepared == 1
      assert close(model, batch, client.infer(batch))
      assert 'offline' not in client.ledger.record()['phases']


def test_a_preparation_is_not_used_in_another_mode(files, model):
  with (
    serve(model, files, mode='auto') as running,
    connect(running, files) as client,
  ):
    client.prepare(1)
    (identifier,) = client._store._names
    refused = f'for logits in mode {sessions.DEFAULT}, want one for logits in mode gazelle'
    with pytest.raises(ProtocolError, match=refused), client._connect(Ledger()) as channel:
      handshake.client(channel, None, client._hello, lambda _: 'gazelle')
      commands.send(channel, commands.Command(commands.INFER, 1, [identifier], 'logits'))
      channel.receive('anything', [(bytes, (1,))])

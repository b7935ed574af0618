"""How many images a client prepares at once: as both parties have room for, and no more."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.protocol.delphi import message_shapes, online
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import commands, description, sessions
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import accounts
from safenet_jax.transport.frames import ProtocolError
from tests.support import models

MODEL = models.calibrated
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 2), dtype=np.uint8)


def size(model, mode=sessions.DEFAULT):
  served = sessions.MODES[mode]
  return served.server_material.size(served.structure(model.public), 'logits')


def serve(model, **options):
  # Beside classes, whose preparations are larger, the room is for those.
  chosen = servers.ServerOptions(outputs=('logits',), **options)
  return servers.Server(model, context=None, options=chosen)


def connect(server, **options):
  return clients.Client(*server.address, context=None, **options)


@pytest.fixture
def held(monkeypatch):
  """How many images' preparations the server held, at every new one."""
  found = []
  put = servers.ServerStore.put

  def record(self, material, ticket, owner):
    put(self, material, ticket, owner)
    found.append(len(self))

  monkeypatch.setattr(servers.ServerStore, 'put', record)
  return found


@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'ot'])
def test_the_size_of_a_preparation_is_known_before_there_is_one(mode):
  with serve(MODEL(), mode=mode) as server, connect(server) as client:
    client.prepare(1)
    (kept,) = server._store._found.values()
    reserved = server._accounts.counts(accounts.Visitor('127.0.0.1')).bytes
  assert reserved == kept.material.nbytes == size(MODEL(), mode) > 10_000


def test_many_images_are_inferred_by_what_the_server_has_room_for(held):
  memory = 3 * 2 * size(MODEL())
  options = {'sessions': 3, 'address_sessions': 3, 'memory_bytes': memory}
  with serve(MODEL(), **options) as server, connect(server) as client:
    assert client.batch == server.description.batch == 2
    found = client.infer(IMAGES)
    assert held == [1, 2, 1, 2, 1]
    expected = MODEL().logits(IMAGES)
    assert np.abs(found - expected).max() < 0.05 < np.ptp(expected)
    # Asked for by name, there are as many as all clients' room takes, and an error beyond.
    client.prepare(6)
    with pytest.raises(ProtocolError, match='refused: prepared .* is the limit: use some first'):
      client.prepare(1)


def test_clients_at_once_have_room_for_their_batches(held):
  memory = 2 * 2 * size(MODEL())
  with (
    serve(MODEL(), sessions=2, memory_bytes=memory) as server,
    connect(server) as one,
    connect(server) as other,
  ):
    for client in (one, other):
      client.prepare(client.batch)
    assert server.prepared == 4
    assert len(one.infer(IMAGES)) == len(other.infer(IMAGES)) == 5
  assert max(held) == 4


def test_what_is_prepared_already_is_inferred_at_once():
  memory = 6 * size(MODEL())
  options = {'sessions': 6, 'address_sessions': 6, 'memory_bytes': memory}
  with serve(MODEL(), **options) as server, connect(server) as client:
    assert client.batch == 1
    client.prepare(5)
    client.infer(IMAGES)
    assert client.ledger.record()['phases']['online']['rounds'] == 2 * 2 + 1  # of one batch


def test_a_large_batch_takes_no_more_memory_in_a_convolution(monkeypatch):
  seen, product = [], online.linear.online_server

  def record(xp, m, u, *rest, **options):
    seen.append(len(m))
    return product(xp, m, u, *rest, **options)

  monkeypatch.setattr(online.linear, 'online_server', record)
  monkeypatch.setattr(online, '_PATCHES_BYTES', 20_000)  # two images in the first layer
  with serve(MODEL()) as server, connect(server) as client:
    client.prepare(5)
    found = client.infer(IMAGES)
  assert np.abs(found - MODEL().logits(IMAGES)).max() < 0.05
  assert seen[:3] == [2, 2, 1] and sum(seen) == 5 * len(MODEL().linear)


def test_a_client_takes_no_more_at_once_than_share_their_flights(monkeypatch):
  with serve(MODEL()) as server:
    with connect(server) as client:
      assert client.batch == commands.MAX_IMAGES
    monkeypatch.setattr(message_shapes, '_LOT_BYTES', 1 << 20)
    with connect(server) as client:
      assert 1 < client.batch == client._session.lot < commands.MAX_IMAGES


def test_no_images_are_no_work():
  with serve(MODEL()) as server, connect(server) as client:
    assert client.infer(IMAGES[:0]).shape == (0, 3)
    assert 'offline' not in client.ledger.record()['phases']


@pytest.mark.parametrize('batch', [0, -1, 1 << 20])
def test_a_batch_of_nonsense_is_refused(batch):
  with serve(MODEL()) as server:
    described = dataclasses.replace(server.description, batch=batch)
  with pytest.raises(ProtocolError, match='batches of'):
    description.decode(description.encode(described))

"""Versions and models: two parties agree, or both say in one line why not."""

import dataclasses

import pytest

from safenet_jax.crypto import randomness
from safenet_jax.protocol.service import description, handshake
from safenet_jax.protocol.service.description import Expectation
from safenet_jax.transport.channel import RefusedError
from safenet_jax.transport.frames import ProtocolError
from tests.support import models, peers

SERVED = description.describe(models.model(), randomness.InsecureSeededRandomness(0))


def shake(expected=None, served=SERVED):
  """What both sides get of a handshake: a result or an error."""
  with peers.channels(timeout=300) as (client, server):
    return peers.both(
      lambda: handshake.client(client, expected), lambda: handshake.server(server, served)
    )


def test_the_client_learns_what_is_served():
  assert shake() == [SERVED, None]


def test_a_client_gets_what_it_insists_on():
  wanted = {name: getattr(SERVED, name) for name in Expectation._fields}
  assert shake(Expectation(**wanted)) == [SERVED, None]
  for name, value in wanted.items():
    assert shake(Expectation(**{name: value})) == [SERVED, None]


@pytest.mark.parametrize(
  'expected, reason',
  [
    (Expectation(model_id=bytes(16)), f'model {SERVED.model_id.hex()}, want {"00" * 16}'),
    (Expectation(outputs=('class', 'top3')), 'outputs logits, class, want class, top3'),
  ],
)
def test_a_mismatch_is_the_same_line_on_both_sides(expected, reason):
  client, server = shake(expected)
  assert isinstance(client, ProtocolError) and str(client) == f'the server has {reason}'
  assert isinstance(server, RefusedError) and str(server) == f'the client refused: {reason}'


def test_another_version_is_refused_on_both_sides(monkeypatch):
  with peers.channels(timeout=300) as (client, server):

    def old_client():
      client.send('hello', (7).to_bytes(4, 'big'))
      return client.receive_bytes('description', 1 << 20)

    ours, theirs = peers.both(old_client, lambda: handshake.server(server, SERVED))
  reason = f'protocol version 7, want {handshake.PROTOCOL_VERSION}'
  assert str(ours) == f'the server refused: {reason}'
  assert str(theirs) == f'the client has {reason}'


def test_a_nonsensical_description_is_refused_on_both_sides():
  bare = dataclasses.replace(SERVED.model, activations={})
  client, server = shake(served=dataclasses.replace(SERVED, model=bare))
  assert str(client) == 'the description of the model: formats of other activations'
  assert str(server) == f'the client refused: {client}'


def test_an_endless_description_is_not_read():
  with peers.channels(timeout=300) as (client, server):
    server.send('description', bytes((1 << 20) + 1))
    with pytest.raises(ProtocolError, match='want bytes'):
      handshake.client(client)


def test_a_client_that_accepts_another_model_is_not_served():
  with peers.channels(timeout=300) as (client, server):
    client.send('hello', handshake.PROTOCOL_VERSION.to_bytes(4, 'big'))
    client.send('accept', bytes(16))
    with pytest.raises(ProtocolError, match='accepted another model'):
      handshake.server(server, SERVED)


def test_only_the_public_part_of_the_model_is_on_the_wire():
  """All that the server sends is the description, of which another test says what is in it."""
  sent = []
  with peers.channels(timeout=300) as (client, server):
    plain = server.send
    server.send = lambda tag, *values: (sent.append((tag, *values)), plain(tag, *values))
    peers.both(lambda: handshake.client(client), lambda: handshake.server(server, SERVED))
    record = client.ledger.record()
  assert sent == [('description', description.encode(SERVED))]
  down = [row for row in record['rows'] if row['party'] == 'server']
  assert len(down) == 1 and down[0]['messages'] == 1
  assert down[0]['bytes'] - len(sent[0][1]) in range(16, 60)
  assert record['phases']['handshake']['rounds'] == 2

"""Versions and models: two parties agree, or both say in one line why not."""

import dataclasses

import pytest

from safenet_jax.crypto import randomness
from safenet_jax.protocol.service import description, handshake, sessions
from safenet_jax.protocol.service.description import Expectation
from safenet_jax.transport.channel import RefusedError
from safenet_jax.transport.frames import ProtocolError
from tests.support import models, peers

HELLO = handshake.Hello(b'owner' + bytes(11), b'token' + bytes(11), [bytes(16), bytes([1] * 16)])
SERVED = description.describe(models.model(), randomness.InsecureSeededRandomness(0))


def shake(expected=None, served=SERVED, choose=None):
  """What both sides get of a handshake: a result or an error."""
  with peers.channels(timeout=300) as (client, server):
    return peers.both(
      lambda: handshake.client(client, expected, choose=choose),
      lambda: handshake.server(server, served),
    )


def told(found):
  """A client's welcome without the time that it took."""
  assert found.round_trip > 0
  return found._replace(round_trip=0.0)


def test_the_client_learns_what_is_served():
  ours, mode = shake()
  assert told(ours) == (SERVED, b'', 0.0) and mode == sessions.DEFAULT


OFFERED = description.describe(models.model(), randomness.InsecureSeededRandomness(0), 'auto')


@pytest.mark.parametrize('mode', OFFERED.choices)
def test_the_client_chooses_among_the_modes_that_are_offered(mode):
  asked = []

  def choose(welcome):
    asked.append(welcome)
    return mode

  ours, theirs = shake(served=OFFERED, choose=choose)
  # MiniONN is never the best, and so is offered alone only.
  assert set(OFFERED.choices) == set(sessions.MODES) - {'minionn'}
  assert OFFERED.mode == sessions.DEFAULT
  assert told(asked[0]).description == OFFERED
  assert (theirs, ours.description) == (mode, dataclasses.replace(OFFERED, mode=mode))


def test_a_client_that_chooses_what_is_not_offered_is_not_served():
  with peers.channels(timeout=300) as (client, server):
    client.send('hello', handshake.PROTOCOL_VERSION.to_bytes(4, 'big'))
    client.send('claims', bytes(16))
    client.send('accept', OFFERED.model_id, bytes([len(OFFERED.choices)]))
    with pytest.raises(ProtocolError, match='chose mode 3 of 3'):
      handshake.server(server, OFFERED)


@pytest.mark.parametrize('choices', [('gazelle',), ('delphi', 'delphi'), ('delphi', 'other')])
def test_nonsensical_choices_are_refused(choices):
  client, _ = shake(served=dataclasses.replace(SERVED, choices=choices))
  assert str(client) == f'the description of the model: choices of modes {choices}'


def test_a_client_gets_what_it_insists_on():
  wanted = {name: getattr(SERVED, name) for name in Expectation._fields}
  assert told(shake(Expectation(**wanted))[0]).description == SERVED
  for name, value in wanted.items():
    assert told(shake(Expectation(**{name: value}))[0]).description == SERVED


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


def test_an_older_client_is_refused_on_both_sides():
  with peers.channels(timeout=300) as (client, server):

    def old_client():
      client.send('hello', (3).to_bytes(4, 'big'))
      return client.receive_bytes('description', 1 << 20)

    ours, theirs = peers.both(old_client, lambda: handshake.server(server, SERVED))
  reason = f'protocol version 3, want {handshake.PROTOCOL_VERSION}'
  assert str(ours) == f'the server refused: {reason}'
  assert str(theirs) == f'the client has {reason}'


def test_an_older_server_refuses_in_the_same_line():
  with peers.channels(timeout=5) as (client, server):

    def old_server():
      (hello,) = server.receive('hello', [(bytes, (4,))])
      server.refuse(f'protocol version {int.from_bytes(hello, "big")}, want 3')

    ours, theirs = peers.both(lambda: handshake.client(client, None, HELLO), old_server)
  assert str(ours) == 'the server refused: protocol version 7, want 3' and theirs is None


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
    client.send('claims', bytes(16))
    client.send('accept', bytes(16), bytes(1))
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


@pytest.mark.parametrize(
  'hello', [HELLO, HELLO._replace(claims=[]), handshake.Hello(bytes(16), None, [])]
)
def test_the_server_answers_every_claim(hello):
  heard = []

  def claim(found):
    heard.append(found)
    return bytes([handshake.HELD, handshake.GRANTED][: len(found.claims)])

  with peers.channels(timeout=5) as (client, server):
    ours, theirs = peers.both(
      lambda: handshake.client(client, None, hello),
      lambda: handshake.server(server, SERVED, claim),
    )
  assert theirs == sessions.DEFAULT and heard == [hello]
  assert told(ours) == (SERVED, bytes([2, 1][: len(hello.claims)]), 0.0)


def test_a_server_without_preparations_knows_none():
  with peers.channels(timeout=5) as (client, server):
    ours, _ = peers.both(
      lambda: handshake.client(client, None, HELLO), lambda: handshake.server(server, SERVED)
    )
  assert ours.answers == bytes([handshake.UNKNOWN] * 2)


@pytest.mark.parametrize('answers', [b'', b'\1', b'\1\4', b'\1\1\1'])
def test_answers_that_are_none_are_refused_on_both_sides(answers):
  with peers.channels(timeout=5) as (client, server):
    ours, theirs = peers.both(
      lambda: handshake.client(client, None, HELLO),
      lambda: handshake.server(server, SERVED, lambda hello: answers),
    )
  assert isinstance(ours, ProtocolError)
  assert str(theirs) == f'the client refused: {ours}'


@pytest.mark.parametrize('raw', [b'', bytes(15), bytes(40), bytes(16 * (3 + handshake.MAX_CLAIMS))])
def test_a_nonsensical_hello_is_a_protocol_error(raw):
  with peers.channels(timeout=5) as (client, server):
    client.send('hello', handshake.PROTOCOL_VERSION.to_bytes(4, 'big'))
    client.send('claims', raw)
    with pytest.raises(ProtocolError, match='a hello of|want bytes'):
      handshake.server(server, SERVED)

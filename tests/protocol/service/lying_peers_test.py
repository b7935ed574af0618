"""What a peer may send in a session, and what is used twice, ends in one clear error."""

import contextlib
import dataclasses
import functools
import socket
import threading

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import encrypted_convolution
from safenet_jax.models import layers
from safenet_jax.protocol.delphi import message_shapes, online
from safenet_jax.transport.frames import ProtocolError
from tests.support import models, parties, peers, views


def images(count, value=7):
  return np.full((count, 8, 8, 2), value, np.uint8)


def other(value):
  """Another value of the same type and size."""
  if isinstance(value, bytes):
    return bytes(byte ^ 0x5A for byte in value)
  return ~np.asarray(value)


CLIENT = [
  ('keys', 0, None),
  ('keys', 2, 'not in the prime-order subgroup|another session'),
  ('corrections', 1, 'not in the prime-order subgroup'),
  ('masks', 0, 'another session, key or step'),
  ('labels', 0, 'another session, key or step'),
  ('powers', 0, 'another session, key or step'),
  ('shares', 0, 'another session, key or step'),
]
SERVER = [
  ('points', 0, 'not in the prime-order subgroup'),
  # One point in sixteen is a good one: then the transfers do not fit.
  ('points', 1, 'not in the prime-order subgroup|another session'),
  ('linear', 0, 'another session, key or step'),
  ('products', 0, 'another session, key or step'),
  ('choices', 0, 'another session, key or step'),
  ('tables', 0, 'do not open the garbled block'),
  ('tables', 1, 'do not open'),
  ('tables', 2, 'do not open'),
  ('activation', 0, 'do not open'),
]


@pytest.mark.parametrize(
  'party, tag, part, message',
  [('client', *case) for case in CLIENT] + [('server', *case) for case in SERVER],
)
def test_garbage_in_a_message_is_a_protocol_error(party, tag, part, message):
  def lie(sender, name, values):
    if (sender, name) != (party, tag):
      return values
    return tuple(other(v) if i == part else v for i, v in enumerate(values))

  with pytest.raises(ProtocolError, match=message):
    views.run(models.model(), images(1), lie=lie)


@pytest.mark.parametrize('tag, part', [('choices', 2), ('tables', 3)])
def test_hash_keys_that_the_cipher_refuses_are_a_protocol_error(tag, part):
  """XTS wants two different halves; a peer's zeros are not."""

  def lie(party, name, values):
    if (party, name) != ('server', tag):
      return values
    zeros = bytes(32) if isinstance(values[part], bytes) else np.zeros_like(values[part])
    return tuple(zeros if i == part else v for i, v in enumerate(values))

  with pytest.raises(ProtocolError, match='XTS'):
    views.run(models.model(), images(1), lie=lie)


def test_field_elements_beyond_the_modulus_are_a_protocol_error():
  def lie(party, name, values):
    if (party, name) != ('server', 'activation') or len(values) < 5:
      return values
    return tuple(np.full_like(v, 255) if i == 2 else v for i, v in enumerate(values))

  with pytest.raises(ProtocolError, match='want below'):
    views.run(models.model(), images(1), lie=lie)


class Silent:
  """A channel that must not be used."""

  def scope(self, **unused):
    return contextlib.nullcontext()

  def send(self, tag, *values):
    pytest.fail(f'{tag} was sent')


def silent_client(model):
  return parties.client_party(Silent(), model, *parties.set_up(model))


def silent_server(model):
  return parties.server_party(Silent(), model, *parties.set_up(model))


def test_a_preparation_serves_one_image_and_a_second_time_nothing_is_sent():
  model = models.model()
  found = views.run(model, images(1))
  with pytest.raises(ValueError, match='used before'):
    online.ClientOnline(silent_client(model), 'logits', found.client).run(images(1, 9))
  with pytest.raises(ValueError, match='used before'):
    online.ServerOnline(silent_server(model), 'logits', found.server).run()


def test_a_preparation_is_not_taken_twice_in_one_batch():
  model = models.model()
  found = views.run(model, None, prepares=[1])
  for walk in (
    online.ClientOnline(silent_client(model), 'logits', found.client * 2),
    online.ServerOnline(silent_server(model), 'logits', found.server * 2),
  ):
    with pytest.raises(ValueError, match='used before'):
      walk.run(*[images(2)] * isinstance(walk, online.ClientOnline))


@pytest.mark.parametrize('count', [1, 3])
def test_every_image_has_a_mask_of_its_own(count):
  """A single mask would be broadcast, and the server would see how images differ."""
  model = models.model()
  found = views.run(model, None, prepares=[1] if count == 3 else [2])
  walk = online.ClientOnline(silent_client(model), 'logits', found.client)
  with pytest.raises(ValueError, match='want one for each'):
    walk.run(images(count))
  assert not any(material.used for material in found.client)


def test_images_go_in_lots_that_the_queues_hold(monkeypatch):
  """Both parties send before they receive: a lot is prepared before the next is begun."""
  model = models.model()
  structure, contexts = parties.set_up(model)
  assert list(message_shapes.lots(structure, 'logits', contexts, 100)) == [100]
  monkeypatch.setattr(message_shapes, '_LOT_BYTES', 1 << 21)
  most = next(message_shapes.lots(structure, 'logits', contexts, 100))
  replies = sum(
    encrypted_convolution.reply_size(contexts[structure.plain_modulus(name)], layer)
    for name, layer in structure.linear.items()
  )
  assert 1 < most < (1 << 21) // replies
  assert sum(message_shapes.lots(structure, 'logits', contexts, 100)) == 100
  monkeypatch.setattr(message_shapes, '_LOT_BYTES', 1)
  found = views.run(model, images(2))
  assert found.logits.shape == (2, 3)
  ours = [tag for party, tag, _ in found.sent if party == 'client' and tag in ('masks', 'shares')]
  assert ours == (['masks'] * 3 + ['shares'] * 2) * 2


@pytest.fixture
def cramped(monkeypatch):
  """Sockets and queues that hold the uploads or the replies of three images."""
  sockets, channels = peers.sockets, peers.channels

  @contextlib.contextmanager
  def small(files=None):
    with sockets(files) as pair:
      for end in pair:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
          end.setsockopt(socket.SOL_SOCKET, option, 1 << 14)
      yield pair

  def prepare(count, timeout):
    options = functools.partial(channels, queue_bytes=1 << 19, timeout=timeout)
    monkeypatch.setattr(peers, 'channels', options)
    return views.run(models.model(), None, prepares=[count])

  monkeypatch.setattr(peers, 'sockets', small)
  return prepare


def test_many_images_are_prepared_whatever_queues_hold(cramped, monkeypatch):
  monkeypatch.setattr(message_shapes, '_LOT_BYTES', 1 << 19)
  assert len(cramped(10, timeout=300.0).client) == 10


def test_without_lots_both_parties_would_wait_for_each_other(cramped):
  # On a busy machine one may give up on the other before both are stuck.
  with pytest.raises(ProtocolError, match='timeout: the peer (takes|sends) nothing'):
    cramped(10, timeout=2.0)


def test_a_network_without_activations_is_served():
  model = models.model()
  dense = dataclasses.replace(model.linear['dense0'], kernel=np.arange(384).reshape(128, 3))
  linear = models.altered(
    dataclasses.replace(model, linear={'dense0': dense}, polynomials={}),
    layers=(layers.Flatten(), layers.Dense(3)),
    activations={},
    absorbed=frozenset(),
  )
  found = views.run(linear, images(1))
  # Encryption rounds by one now and then.
  np.testing.assert_allclose(found.logits, linear.run(images(1)), rtol=0, atol=1)


def test_a_client_that_stops_at_the_keys_holds_up_no_other():
  model, entered = models.model(), threading.Event()
  setting = parties.set_up(model)
  with (
    peers.channels(timeout=60) as (_, silent),
    peers.channels(timeout=10) as (ours, theirs),
  ):
    receive = silent.receive

    def receiving(*arguments):
      entered.set()
      return receive(*arguments)

    silent.receive = receiving

    def wait():
      with contextlib.suppress(ProtocolError):
        _ = parties.server_party(silent, model, *setting).keys

    thread = threading.Thread(target=wait)
    thread.start()
    assert entered.wait(10)
    mine, other = peers.both(
      lambda: parties.client_party(ours, model, *setting).keys,
      lambda: parties.server_party(theirs, model, *setting).keys,
    )
    silent.abort('the test is over')
    thread.join()
  assert mine.nonce == other.nonce

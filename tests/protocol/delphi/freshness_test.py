"""Nothing that hides a secret comes twice: tags, hash keys, deltas, masks, labels."""

import collections
import types

import numpy as np
import pytest

from safenet_jax.crypto import hashing
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.oblivious_transfer import bit_planes, word_transfer
from safenet_jax.crypto.randomness import InsecureSeededRandomness, SystemRandomness
from safenet_jax.protocol.delphi import message_shapes
from safenet_jax.protocol.layers import relu
from safenet_jax.transport.frames import ProtocolError
from tests.support import models, views

IMAGES = np.full((3, 8, 8, 2), 7, np.uint8)


@pytest.fixture
def uses(monkeypatch):
  """Tags by stream, and digests of labels by hash key, of all that runs in the test."""
  found = types.SimpleNamespace(tags=collections.defaultdict(list), rows={}, streams=[])
  restart, hash_labels = bit_planes.Streams._restart, hashing.hash_labels

  def record_tag(self, tag):
    found.streams.append(self)  # kept, so that no other has its id
    found.tags[id(self)].append(tag)
    restart(self, tag)

  def record_key(labels, key):
    assert len(labels) <= 1 << 14
    found.rows.setdefault(key, set()).add(np.ascontiguousarray(labels).tobytes())
    return hash_labels(labels, key)

  monkeypatch.setattr(bit_planes.Streams, '_restart', record_tag)
  monkeypatch.setattr(hashing, 'hash_labels', record_key)
  return found


def check_tags(found):
  everything = [tag for tags in found.tags.values() for tag in tags]
  # Both parties of a transfer take a tag once, and no other transfer does.
  assert set(collections.Counter(everything).values()) == {2}
  assert all(len(set(tags)) == len(tags) for tags in found.tags.values())


def check_keys(found):
  # A key hashes both labels, and the one that the peer has: three vectors of one use.
  assert {len(rows) for rows in found.rows.values()} == {3}


# Three outputs, two layers' products p c; and of both layers' blocks the select words, or with
# words of 16 bits what 15 bits of the client's and two triples take beside these. Tags are those
# of labels, and of choices: an image has one, or for MiniONN's circuits of two layers more.
@pytest.mark.parametrize(
  'mode, keys, tags',
  [
    ('delphi', 3 + 2 + 2, (1, 1)),
    ('minionn', 3 + 2 + 2, (2, 1 + 2)),
    ('ot', 3 + 2 + 2 * (15 + 4 + 1), (1, 1)),
  ],
)
def test_tags_and_hash_keys_are_unique_over_phases_images_and_sessions(uses, mode, keys, tags):
  found = [views.run(models.model(), IMAGES, prepares=[2, 1], mode=mode) for _ in range(2)]
  names = [material.identifier for run in found for material in run.server]
  assert len(set(names)) == 6
  check_tags(uses)
  check_keys(uses)
  # Two directions of two sessions, at both parties.
  assert sorted(map(len, uses.tags.values())) == sorted(3 * count for count in tags * 4)
  assert len(uses.rows) == 2 * 3 * keys


def test_a_tag_without_its_image_is_refused(monkeypatch):
  original = message_shapes.Tag.__init__
  monkeypatch.setattr(
    message_shapes.Tag, '__init__', lambda self, nonce, _: original(self, nonce, 0)
  )
  with pytest.raises(ValueError, match='was used before'):
    views.run(models.model(), None, prepares=[1, 1])


def test_repeated_hash_keys_would_show(uses, monkeypatch):
  keys = np.arange(32, dtype=np.uint8)
  monkeypatch.setattr(
    word_transfer, 'hash_keys', lambda count, _: np.tile(keys, (-(-count // (1 << 14)), 1))
  )
  views.run(models.model(), None, prepares=[1])
  with pytest.raises(AssertionError):
    check_keys(uses)


def test_a_key_hashes_at_most_2_to_the_14_values():
  for count in (1, 64, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 100_000):
    blocks = relu.cut(count)
    assert [block.first for block in blocks] == list(range(0, count, 1 << 14))
    assert blocks[-1].end == count
    assert all(block.count <= block.size <= 1 << 14 and block.size % 64 == 0 for block in blocks)
    *_, (_, keys) = message_shapes.choice_message([count, 5])
    assert keys[0] == len(blocks) + 1


def pieces(found):
  """All that was sent, in pieces of 16 bytes."""
  result = set()
  for _, _, values in found.sent:
    for value in values:
      data = value if isinstance(value, bytes) else value.tobytes()
      result |= {data[i : i + 16] for i in range(0, len(data) - 15, 16)}
  return result


def cut_off(tag, randomness):
  """A session that ends when the server was to send a message, and then a whole one."""

  def lie(party, name, values):
    if (party, name) == ('server', tag):
      raise ProtocolError('cut off')
    return values

  first = views.Views()
  with pytest.raises(ProtocolError, match='cut off'):
    views.run(models.model(), None, prepares=[1], lie=lie, views=first, client=randomness())
  second = views.run(models.model(), None, prepares=[1], client=randomness())
  return first, second


@pytest.mark.parametrize('tag', ['linear', 'tables', 'choices', 'prepared'])
def test_a_retry_repeats_nothing_of_the_session_that_was_cut_off(tag):
  first, second = cut_off(tag, SystemRandomness)
  assert len(pieces(first)) > 1000
  assert not pieces(first) & pieces(second)


def test_a_retry_with_the_same_coins_would_repeat_messages():
  first, second = cut_off('choices', lambda: InsecureSeededRandomness(0))
  assert pieces(first) & pieces(second)


def test_both_parties_deltas_are_fresh_odd_and_their_own(monkeypatch):
  def deltas(client=None, server=None):
    found = views.run(
      models.model(),
      None,
      prepares=[],
      client=None if client is None else InsecureSeededRandomness(client),
      server=None if server is None else InsecureSeededRandomness(server),
    )
    return found.client_keys.delta.tobytes(), found.server_keys.delta.tobytes()

  def check():
    some = [delta for _ in range(2) for delta in deltas()]
    assert len(set(some)) == 4
    assert all(delta[0] & 1 for delta in some)
    # Each depends on the coins of its own party, and of no other.
    (ours, theirs), (same, other), (changed, still) = deltas(1, 2), deltas(1, 3), deltas(4, 2)
    assert ours == same and theirs == still
    assert len({ours, theirs, other, changed}) == 4

  check()
  monkeypatch.setattr(garbling, 'fresh_delta', lambda _: np.array([1, 2], np.uint64))
  with pytest.raises(AssertionError):
    check()

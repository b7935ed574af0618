"""Base transfers and seed trees: who learns which key, and what is refused."""

import hashlib

from nacl import bindings
import numpy as np
import pytest

from safenet_jax.crypto import randomness
from safenet_jax.crypto.oblivious_transfer import base_transfer

COUNT = 24
CHOICES = np.random.default_rng(0).integers(0, 2, COUNT).astype(np.uint8)

IDENTITY = (1).to_bytes(32, 'little')
ORDER_2 = (2**255 - 20).to_bytes(32, 'little')
ORDER_4 = bytes(32)
NOT_CANONICAL = (2**255 - 19 + 1).to_bytes(32, 'little')
OFF_CURVE = (2).to_bytes(32, 'little')


def transfer(choices, seed=1):
  sender = randomness.InsecureSeededRandomness(seed)
  receiver = randomness.InsecureSeededRandomness(seed + 1)
  secret, announcement = base_transfer.announce(sender)
  points, chosen = base_transfer.choose(choices, announcement, receiver)
  pairs = base_transfer.sender_keys(secret, announcement, points, len(choices))
  return announcement, points, pairs, chosen


def some_points(count):
  return transfer(np.zeros(count, np.uint8), seed=50)[1]


def test_receiver_gets_the_chosen_key_and_not_the_other():
  _, _, pairs, chosen = transfer(CHOICES)
  index = np.arange(COUNT)
  np.testing.assert_array_equal(pairs[index, CHOICES], chosen)
  assert not (pairs[index, 1 - CHOICES] == chosen).all(1).any()


def test_all_keys_are_distinct():
  _, _, pairs, _ = transfer(np.zeros(COUNT, np.uint8))
  assert len({key.tobytes() for key in pairs.reshape(-1, 16)}) == 2 * COUNT


def test_keys_are_hashes_of_the_number_both_messages_and_the_shared_value():
  """As eprint 2015/267 wants it; a key without one of them would still be the same for both."""
  secret, announcement = base_transfer.announce(randomness.InsecureSeededRandomness(3))
  points, _ = base_transfer.choose(CHOICES, announcement, randomness.InsecureSeededRandomness(4))
  pairs = base_transfer.sender_keys(secret, announcement, points, COUNT)
  for i in range(COUNT):
    point = points[32 * i : 32 * i + 32]
    moved = bindings.crypto_core_ed25519_sub(point, announcement)
    for choice, base in enumerate((point, moved)):
      shared = bindings.crypto_scalarmult_ed25519_noclamp(secret, base)
      transcript = i.to_bytes(4, 'little') + announcement + point + shared
      assert pairs[i, choice].tobytes() == hashlib.sha256(transcript).digest()[:16]


def test_points_are_shifted_by_the_announcement_only_where_chosen():
  announcement, zeros, _, _ = transfer(np.zeros(COUNT, np.uint8))
  _, ones, _, _ = transfer(np.ones(COUNT, np.uint8))
  for i in range(COUNT):
    point = slice(32 * i, 32 * i + 32)
    assert bindings.crypto_core_ed25519_add(zeros[point], announcement) == ones[point]


def test_points_with_either_choice_look_alike():
  # The bytes of 512 points, by chi-square; the top bit of y is never set.
  for choice in (0, 1):
    points = transfer(np.full(512, choice, np.uint8), seed=9)[1]
    octets = np.frombuffer(points, np.uint8).reshape(-1, 32)[:, :31]
    counts = np.bincount(octets.reshape(-1), minlength=256)
    expected = octets.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 350


@pytest.mark.parametrize(
  'point',
  [
    IDENTITY,
    ORDER_2,
    ORDER_4,
    NOT_CANONICAL,
    OFF_CURVE,
    b'\xff' * 32,
    bindings.crypto_core_ed25519_add(some_points(1), ORDER_2),
  ],
  ids=[
    'identity',
    'order 2',
    'order 4',
    'not canonical',
    'off the curve',
    'all ones',
    'mixed order',
  ],
)
def test_points_outside_the_prime_order_subgroup_are_refused(point):
  source = randomness.InsecureSeededRandomness(3)
  secret, announcement = base_transfer.announce(source)
  with pytest.raises(ValueError, match='point 1 is not in'):
    base_transfer.sender_keys(secret, announcement, some_points(1) + point + some_points(1), 3)
  with pytest.raises(ValueError, match='point 0 is not in'):
    base_transfer.choose(CHOICES, point, source)


@pytest.mark.parametrize('size', [0, 31, 33, 64])
def test_messages_of_the_wrong_length_are_refused(size):
  source = randomness.InsecureSeededRandomness(4)
  secret, announcement = base_transfer.announce(source)
  message = some_points(2)[:size]
  with pytest.raises(ValueError, match='want 32'):
    base_transfer.sender_keys(secret, announcement, message, 1)
  with pytest.raises(ValueError, match='want 32'):
    base_transfer.choose(CHOICES, message, source)


def test_swapped_points_give_other_keys():
  sender = randomness.InsecureSeededRandomness(5)
  secret, announcement = base_transfer.announce(sender)
  points, chosen = base_transfer.choose(np.zeros(2, np.uint8), announcement, sender)
  pairs = base_transfer.sender_keys(secret, announcement, points[32:] + points[:32], 2)
  assert not (pairs[::-1, 0] == chosen).all(1).any()
  assert not (pairs[:, 0] == chosen).all(1).any()


@pytest.mark.parametrize('depth', [1, 2, 4])
def test_trees_agree_everywhere_but_at_the_chosen_leaf(depth):
  data = np.random.default_rng(depth)
  # Every index occurs, so that every path through the tree is taken.
  trees = 1 << depth
  choices = np.array([[i >> b & 1 for b in range(depth)] for i in range(trees)], np.uint8).reshape(
    -1
  )
  pairs = data.integers(0, 256, (trees * depth, 2, 16), np.uint8)
  chosen = pairs[np.arange(len(choices)), choices]
  leaves, corrections = base_transfer.grow_trees(pairs, depth)
  assert leaves.shape == (trees, 1 << depth, 16)
  assert corrections.shape == (trees, depth - 1, 2, 16)
  assert len({leaf.tobytes() for leaf in leaves.reshape(-1, 16)}) == trees**2
  punctured = base_transfer.grow_punctured_trees(chosen, choices, depth, corrections)
  equal = (punctured == leaves).all(-1)
  np.testing.assert_array_equal(equal, ~np.eye(trees, dtype=bool))
  assert not punctured[np.arange(trees), np.arange(trees)].any()


def test_a_wrong_correction_is_not_noticed_but_spoils_the_leaves():
  pairs = np.random.default_rng(7).integers(0, 256, (4, 2, 16), np.uint8)
  leaves, corrections = base_transfer.grow_trees(pairs, 4)
  choices = np.zeros(4, np.uint8)
  corrections[0, 2, 1, 5] ^= 1
  punctured = base_transfer.grow_punctured_trees(pairs[:, 0], choices, 4, corrections)
  equal = (punctured == leaves).all(-1)[0]
  assert equal.sum() == 14
  assert not equal[8]


@pytest.mark.parametrize(
  'corrections',
  [
    np.zeros((1, 3, 2, 15), np.uint8),
    np.zeros((1, 2, 2, 16), np.uint8),
    np.zeros((2, 3, 2, 16), np.uint8),
    np.zeros(96, np.uint8),
    np.zeros((1, 3, 2, 16), np.int8),
  ],
)
def test_corrections_of_the_wrong_shape_are_refused(corrections):
  with pytest.raises(ValueError, match='want uint8'):
    base_transfer.grow_punctured_trees(
      np.zeros((4, 16), np.uint8), np.zeros(4, np.uint8), 4, corrections
    )


def test_children_are_the_halves_of_a_hash_under_the_trees_own_domain():
  keys = np.arange(64, dtype=np.uint8).reshape(2, 2, 16)
  (leaves,), _ = base_transfer.grow_trees(keys, 2)
  for index, leaf in enumerate(leaves):
    parent, child = index % 2, index // 2
    node = keys[0, 1 - parent].tobytes()
    digest = hashlib.sha256(b'safenet_jax seed tree' + node).digest()
    assert leaf.tobytes() == digest[16 * child : 16 * child + 16]

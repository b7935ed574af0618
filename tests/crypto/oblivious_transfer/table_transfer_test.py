"""One entry of a table: what is received, and what is seen of the others."""

import itertools

import numpy as np
import pytest

from safenet_jax.crypto import hashing
from safenet_jax.crypto.oblivious_transfer.table_transfer import Shape
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from tests.support import transfers

SHAPES = [Shape(bits, parts) for bits in range(1, 6) for parts in (1, 2)] + [Shape(6, 1)]


def positions(shape):
  """Bits of a whole table."""
  return shape.parts << shape.bits


def bits_of(words, shape, numbers):
  """The entries of these numbers in each part."""
  return [words >> np.uint64(i << shape.bits) >> numbers & np.uint64(1) for i in range(shape.parts)]


@pytest.mark.parametrize('shape', SHAPES)
def test_the_shares_of_the_chosen_entry_add_up_to_it(shape):
  source, n = InsecureSeededRandomness(shape.bits), 500
  numbers = source.ring(shape.bits, n)
  q = source.words((shape.bits, n, 2))
  chosen = numbers >> np.arange(shape.bits, dtype=np.uint64)[:, None] & np.uint64(1)
  keys = [source.bytes(hashing.KEY_BYTES) for _ in range(shape.bits)]
  firsts, masks = shape.masks(q, transfers.DELTA, keys)
  pads = shape.pads(q ^ chosen[..., None] * transfers.DELTA, keys, numbers)
  table = source.ring(positions(shape), n)
  zeros, rest = shape.split(table)
  received = shape.chosen(rest ^ masks, numbers)
  assert (rest ^ masks < np.uint64(1 << shape.width)).all()
  for zero, first, bit, pad, want in zip(
    zeros, firsts, received, pads, bits_of(table, shape, numbers), strict=True
  ):
    np.testing.assert_array_equal(zero ^ first ^ bit ^ pad, want)


def seen(shape, number, table, monkeypatch, *, equal=False):
  """The receiver's view under all values of all hashes: its own hashes, and what is sent.

  With `equal` both labels of a transfer have the same hash.
  """
  used = range(positions(shape))
  coins = np.array(list(itertools.product(range(2), repeat=2 * shape.bits * len(used))), np.uint64)
  places = np.arange(len(used), dtype=np.uint64)
  words = (coins.reshape(-1, shape.bits, 2, len(used)) << places).sum(-1, dtype=np.uint64)
  if equal:
    words[:, :, 1] = words[:, :, 0]
  delta, n = np.array([1, 0], np.uint64), len(words)
  # Label 0 is the receiver's choice of 0.
  monkeypatch.setattr(
    hashing, 'hash_labels', lambda labels, key: words[np.arange(n), key, labels[:, 0].astype(int)]
  )
  chosen = [number >> j & 1 for j in range(shape.bits)]
  labels = np.zeros((shape.bits, n, 2), np.uint64)
  _, masks = shape.masks(labels, delta, range(shape.bits))
  _, rest = shape.split(np.full(n, table, np.uint64))
  own = [words[:, j, bit] for j, bit in enumerate(chosen)]
  return np.unique(np.stack([*own, rest ^ masks], 1), axis=0, return_counts=True)


TABLES = 0, 1, 6, 9, 15


@pytest.mark.parametrize('shape', [Shape(1, 1), Shape(1, 2), Shape(2, 1)])
def test_what_the_receiver_sees_is_uniform_whatever_the_table_is(shape, monkeypatch):
  for number in range(1 << shape.bits):
    for table in TABLES:
      views, times = seen(shape, number, table % (1 << positions(shape)), monkeypatch)
      assert len(views) == 1 << shape.bits * positions(shape) + shape.width
      assert len(set(times)) == 1


@pytest.mark.parametrize('shape', [Shape(1, 1), Shape(1, 2), Shape(2, 1)])
def test_a_receiver_that_had_the_other_hashes_would_see_the_table(shape, monkeypatch):
  """So the test above fails without its defence."""
  first, other = (
    {tuple(map(int, row)) for row in seen(shape, 0, table, monkeypatch, equal=True)[0]}
    for table in (0, 2)
  )
  assert not first & other


@pytest.mark.parametrize('bits, parts', [(0, 1), (7, 1), (6, 2), (3, 3), (3, 0)])
def test_tables_that_no_hash_covers_are_refused(bits, parts):
  with pytest.raises(ValueError, match='want up to 64 bits in all'):
    Shape(bits, parts)

"""Shares of products of random bits, and what opening two bits under them shows."""

import itertools

import numpy as np
import pytest

from safenet_jax.crypto import hashing
from safenet_jax.crypto.oblivious_transfer import and_triples
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from tests.support import transfers


def both(n=512, seed=0):
  """The sender's and the receiver's shares, from labels made by hand."""
  source = InsecureSeededRandomness(seed)
  choices = source.words((2, n // 64)).view(np.uint8)
  flags = np.unpackbits(choices, axis=1, bitorder='little').astype(np.uint64)
  q = source.words((2, n, 2))
  keys = [source.bytes(hashing.KEY_BYTES) for _ in range(2)]
  return (
    and_triples.of_sender(q, transfers.DELTA, keys),
    and_triples.of_receiver(q ^ flags[..., None] * transfers.DELTA, choices, keys),
  )


def test_shares_of_the_product_add_up():
  sender, receiver = both()
  x, y, product = (one ^ other for one, other in zip(sender, receiver))
  np.testing.assert_array_equal(product, x & y)
  # All eight are there: no share is a constant.
  bits = np.unpackbits(np.stack([x, y, sender.product]), axis=1)
  assert len(np.unique(bits, axis=1).T) == 8


def test_the_shares_of_an_and_add_up():
  triples = both()
  source = InsecureSeededRandomness(1)
  pairs = [[source.words(8).view(np.uint8) for _ in range(2)] for _ in triples]
  opened = [triple.opened(*pair) for triple, pair in zip(triples, pairs)]
  d, e = (one ^ other for one, other in zip(*opened))
  found = d & e
  for triple in triples:
    found = found ^ triple.share(d, e)
  (a, b), (c, f) = pairs
  np.testing.assert_array_equal(found, (a ^ c) & (b ^ f))


COINS = np.array(list(itertools.product(range(2), repeat=6)), np.uint8).T


def views(a, b, monkeypatch, *, same=False):
  """What each party sees while the other one opens a and b, under all choices and hashes.

  With `same` both labels of a transfer have one hash.
  """
  x, y, *hashes = COINS
  table = np.stack(hashes).reshape(2, 2, -1)
  if same:
    table[:, 1] = table[:, 0]
  n = len(x)
  monkeypatch.setattr(
    hashing,
    'hash_labels',
    lambda labels, key: table[key, labels[:, 0].astype(int), np.arange(n)].astype(np.uint64),
  )
  delta, choices = np.array([1, 0], np.uint64), np.stack([x, y])
  zeros = np.zeros((2, n, 2), np.uint64)
  labels = zeros.copy()
  labels[..., 0] = choices
  packed = np.packbits(choices, axis=1, bitorder='little')
  sender = and_triples.of_sender(zeros, delta, range(2))
  receiver = and_triples.of_receiver(labels, packed, range(2))
  bits = np.uint8(255 * a), np.uint8(255 * b)

  def rows(triple):
    return np.unpackbits(np.stack(triple.opened(*bits)), axis=1, bitorder='little')

  own = table[np.arange(2)[:, None], choices, np.arange(n)]
  return (
    np.concatenate([choices, own, rows(sender)]).T,
    np.concatenate([table.reshape(4, -1), rows(receiver)]).T,
  )


@pytest.mark.parametrize('a, b', list(itertools.product(range(2), repeat=2)))
def test_what_is_opened_says_nothing(a, b, monkeypatch):
  """Each view of a party comes once, whatever the other one's bits are."""
  for view in views(a, b, monkeypatch):
    assert len(np.unique(view, axis=0)) == 64


def test_a_receiver_that_had_the_other_hashes_would_see_the_bits(monkeypatch):
  """So the test above fails without its defence."""
  found = [set(map(tuple, views(a, 0, monkeypatch, same=True)[0].tolist())) for a in range(2)]
  assert not found[0] & found[1]

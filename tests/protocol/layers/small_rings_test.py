"""Every coin of small rings: what a party sees says nothing of what it must not know."""

import dataclasses
import itertools
import types

import numpy as np
import pytest

from safenet_jax.crypto import hashing
from safenet_jax.fixed_point import formats
from safenet_jax.fixed_point.formats import Rescale
from safenet_jax.protocol.layers import polynomial, relu, truncation

K = 3
SIZE = 1 << K


def small(**changes):
  """A format of three bits, or of a small field."""
  form = formats.ActivationFormat(
    relu=1,
    polynomial=0,
    degree=0,
    map_shape=(),
    input_fraction=0,
    sign_bits=K,
    select_bits=K,
    shift=0,
    modulus=0,
    value_fraction=0,
    output_fraction=0,
  )
  return dataclasses.replace(form, **changes)


def grid(**sizes):
  """All combinations, uint64 vectors by name."""
  rows = np.array(list(itertools.product(*map(range, sizes.values()))), np.uint64)
  return types.SimpleNamespace(**{name: rows[:, i].copy() for i, name in enumerate(sizes)})


def counts(*columns):
  return np.unique(np.stack(columns, 1), axis=0, return_counts=True)


class Ideal:
  """An ideal garbling with ideal hashes: labels are numbers, and hashes are coins."""

  def __init__(self, coins, sign):
    self.coins, self.colour = coins, sign ^ coins.p
    self.decoding = np.packbits(coins.p.astype(np.uint8), bitorder='little')[None]
    self.output_labels = np.zeros((1, len(sign), 2), np.uint64)

  def labels(self, name, bits):
    return np.zeros((len(bits), bits.shape[1] * 8, 2), np.uint64)

  def evaluate(self, garbled, labels):
    colours = np.packbits(self.colour.astype(np.uint8), bitorder='little')[None]
    held = np.stack([self.colour, np.zeros_like(self.colour)], -1)[None]
    return types.SimpleNamespace(labels=held, colours=colours)

  def hash_labels(self, labels, key):
    """The coin of the label's colour, row by row."""
    return np.where(labels[:, 0] == 1, self.coins.h1, self.coins.h0)


def select(c, s, coins, monkeypatch):
  """Both parties' own code: the client's view, and the shares v and rho."""
  n = len(coins.p)
  c, s = np.full(n, c, np.uint64), np.full(n, s, np.uint64)
  sign = np.uint64(1) - ((c + s) >> np.uint64(K - 1) & np.uint64(1))
  ideal = Ideal(coins, sign)
  monkeypatch.setattr(hashing, 'hash_labels', ideal.hash_labels)
  mask = np.uint64(SIZE - 1)
  other = (coins.p * c - coins.v) & mask  # u' + v' = p c
  form, delta = small(), np.array([1, 0], np.uint64)
  labels, words, rho = relu.online_server(relu.ServerBlock(ideal, other, b''), s, delta, form)
  v = relu.online_client(relu.ClientBlock(None, None, c, coins.v, b''), ideal, labels, words, form)
  hashes = np.where(ideal.colour == 1, coins.h1, coins.h0)
  view = ideal.colour, coins.v, hashes, words[0]
  np.testing.assert_array_equal((v + rho) & mask, sign * ((c + s) & mask))
  return view, v, rho


ALL = {'p': 2, 'v': SIZE, 'h0': SIZE, 'h1': SIZE}


@pytest.mark.parametrize('c', range(SIZE))
def test_the_select_word_shows_nothing_and_both_shares_are_uniform(c, monkeypatch):
  for s in range(SIZE):
    view, v, rho = select(c, s, grid(**ALL), monkeypatch)
    views, times = counts(*view)
    # Each view of colour, v', hash and word comes once, whatever s is.
    assert len(views) == 2 * SIZE**3 and (times == 1).all()
    for share in (v, rho):
      assert (np.bincount(share.astype(int), minlength=SIZE) == 2 * SIZE**2).all()


@pytest.mark.parametrize('coin', ['p', 'h0', 'h1'])
def test_without_one_of_the_coins_the_select_word_shows_the_server_share(coin, monkeypatch):
  """So the test above fails without its defences."""
  fixed = grid(**ALL | {coin: 1})
  seen = []
  for s in range(SIZE):
    view, _, _ = select(1, s, fixed, monkeypatch)
    views, times = counts(*view)
    seen.append({(*map(int, row), int(n)) for row, n in zip(views, times)})
  assert any(one != seen[0] for one in seen)


def limit_view(reached, coins):
  """The client's view of the word that selects a limit of 3, and both shares of it."""
  n = len(coins.p)
  nothing = np.zeros(n, np.uint64)
  limit, colour = np.full(n, 3, np.uint64), np.uint64(reached) ^ coins.p
  words, rho = relu.select_server(coins.p, limit, nothing, coins.h0, coins.h1, K)
  pad = np.where(colour == 1, coins.h1, coins.h0)
  v = relu.select_client(colour, nothing, nothing, pad, words, K)
  np.testing.assert_array_equal((v + rho) & np.uint64(SIZE - 1), 3 * reached)
  return counts(colour, pad, words)


def test_the_word_of_a_limit_does_not_show_whether_it_is_reached():
  for reached in (0, 1):
    views, times = limit_view(reached, grid(p=2, h0=SIZE, h1=SIZE))
    assert len(views) == 2 * SIZE**2 and (times == 1).all()
  # Without the pads it would.
  one, other = (limit_view(reached, grid(p=2, h0=1, h1=1))[0] for reached in (0, 1))
  assert not np.array_equal(one, other)


def wrap_views(z, betas):
  """What the client sees of d in Z_16, for all shares of z: pairs (v, d)."""
  rescale = Rescale(16, 1, 5)
  coins = grid(rho=16, beta=betas)
  v = (np.uint64(z % 16) - coins.rho) & np.uint64(15)
  return counts(v, truncation.online_server(coins.rho, coins.beta, rescale))


def test_the_wrap_bit_says_nothing_to_the_client():
  for z in range(-3, 4):
    views, times = wrap_views(z, 2)
    assert len(views) == 32 and (times == 1).all()


def test_without_beta_the_wrap_bit_shows_the_value():
  seen = {tuple(map(tuple, wrap_views(z, 1)[0])) for z in range(-3, 4)}
  assert len(seen) > 1


P = 17


def deltas(s, coefficients, pads):
  """The server's own message for a cubic in F_17, one value under all pads."""
  form = small(relu=0, polynomial=1, degree=3, modulus=P)
  n = pads.shape[1]
  found, _ = polynomial.online_server(
    np,
    np.full((n, 1), s, np.uint64),
    np.asarray(coefficients)[:, None],
    pads[..., None],
    np.zeros((3, n, 1), np.uint64),
    form,
    8,
  )
  return found[..., 0]


PRIVATE = [(0, (0, 0, 0, 0)), (5, (1, 2, 3, 4)), (200, (16, 9, 0, 1))]


@pytest.mark.parametrize('s, coefficients', PRIVATE)
def test_the_cubic_message_is_uniform_whatever_share_and_coefficients_are(s, coefficients):
  coins = grid(a=P, b=P, c=P)
  found = deltas(s, coefficients, np.stack([coins.a, coins.b, coins.c]))
  views, times = counts(*found)
  assert len(views) == P**3 and (times == 1).all()


def test_with_one_pad_for_all_powers_the_cubic_message_shows_coefficients():
  pad = np.arange(P, dtype=np.uint64)
  seen = {
    tuple(sorted(map(tuple, deltas(s, c, np.stack([pad] * 3)).T.tolist()))) for s, c in PRIVATE
  }
  assert len(seen) == len(PRIVATE)

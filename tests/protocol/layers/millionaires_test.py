"""Sign tests by transfers: right for every width, and every coin of small ones."""

import itertools
import types

import numpy as np
import pytest

from safenet_jax.crypto import hashing, ring
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from safenet_jax.protocol.layers import blocks, millionaires, relu, sign_test
from tests.protocol.layers import small_rings_test

T = 2  # low bits that sign tests leave out


def form_of(width, dropped=T):
  k = width + dropped
  return small_rings_test.small(sign_bits=k, select_bits=max(28, k), input_fraction=dropped)


def deal(form, c, source):
  """Both parties' blocks for shares c, by labels made by hand; and delta."""
  test, n = sign_test.sign_test(form), c.size
  size = -(-n // 64) * 64
  drawn = source.words((test.drawn, size // 64)).view(np.uint8)
  bits = blocks.pack(relu.sign_words(c, form)[None], test.width, size)[:-1]
  choices = np.concatenate([bits, drawn])
  delta, seed = garbling.fresh_delta(source), source.bytes(16)
  q = source.words((test.transfers, size, 2))
  flags = np.unpackbits(choices, axis=1, bitorder='little').astype(np.uint64)
  signs = source.words(size // 64).view(np.uint8)
  server = millionaires.offline_server(test, q, delta, seed, signs)
  client = millionaires.offline_client(test, q ^ flags[..., None] * delta, choices, seed)
  p = np.unpackbits(signs, bitorder='little')[:n].astype(np.uint64)
  product = source.ring(form.select_bits, n)
  other = ring.reduce(p * c - product, form.select_bits)
  return (
    server._replace(product_share=other),
    client._replace(share=c, product_share=product),
    delta,
  )


def exchange(form, c, s, source):
  """The shares v and rho of ReLU(c + s)."""
  server, client, delta = deal(form, c, source)
  test, count = sign_test.sign_test(form), c.size
  assert server.nbytes == test.kept_by_server(8 * server.signs.size, count)
  parts = [part for part in client if isinstance(part, np.ndarray)]
  assert sum(p.nbytes for p in parts) == test.kept_by_client(8 * client.mask.size, count)
  tables, opened, step = millionaires.first_of_server(server, s, form)
  assert all((t < 1 << shape.width).all() for t, shape in zip(tables, test.digits, strict=True))
  answer, mine = millionaires.answer_of_client(client, tables, opened, form)
  last, words, rho = millionaires.last_of_server(server, step, answer, s, delta, form)
  assert test.opened == tuple(map(len, (opened, answer, last)))
  return millionaires.finish_client(client, mine, last, words, form), rho


def relu_of(form, c, s):
  """What the sign test on the upper bits selects, in the select ring."""
  width = form.sign_bits - form.dropped
  upper = sum(relu.sign_words(share, form) for share in (c, s))
  positive = np.uint64(1) ^ upper >> np.uint64(width - 1) & np.uint64(1)
  return ring.reduce(positive * (c + s), form.select_bits)


def check(form, c, s, source):
  v, rho = exchange(form, c, s, source)
  np.testing.assert_array_equal(
    ring.reduce(v + rho, form.select_bits), relu_of(form, c, s), strict=True
  )


@pytest.mark.parametrize('width', range(1, 23))
def test_random_shares_of_any_width(width):
  source, form = InsecureSeededRandomness(width), form_of(width)
  c = source.ring(56, 2000)
  # Half of the sums are within 8 of where the sign changes.
  near = source.ring(4, 1000) - np.uint64(8) << np.uint64(T)
  s = np.concatenate([source.ring(56, 1000), ring.reduce(near - c[1000:], 56)])
  check(form, c, s, source)


def test_a_form_agrees_with_the_garbled_sign_test():
  """`relu_of` is the circuit's own rule."""
  form, source = form_of(5), InsecureSeededRandomness(0)
  c, s = (source.ring(56, 500) for _ in range(2))
  y = ring.reconstruct(c, s, form.sign_bits)
  kept = relu_of(form, c, s) == ring.reduce(c + s, form.select_bits)
  clear = (y < 0) | (y >= 1 << T)
  clear &= y > -(1 << form.sign_bits - 1) + (1 << T)
  np.testing.assert_array_equal(kept[clear], y[clear] >= 0)


# Bits that one, two, three and four digits take at most: with few, short words have many digits.
LIMITS = {'one': (5, 9, 16, 21), 'two': (0, 9, 16, 21), 'three': (0, 0, 16, 21), 'four': (0,) * 4}


@pytest.mark.parametrize('digits', LIMITS)
def test_every_pair_of_shares_of_short_words(digits, monkeypatch):
  monkeypatch.setattr(sign_test, '_MOST', (*LIMITS[digits][:3], 21))
  for width in range(1 + list(LIMITS).index(digits) + 1, 7):
    form = form_of(width, dropped=0)
    count = len(sign_test.sign_test(form).digits)
    assert count == list(LIMITS).index(digits) + 1
    c, s = (part.reshape(-1) for part in np.mgrid[: 1 << width, : 1 << width].astype(np.uint64))
    check(form, c, s, InsecureSeededRandomness(width))


def test_tables_and_triples_are_as_few_as_the_limits_say():
  found = {w: sign_test.SignTest(w) for w in (1, 6, 7, 10, 13, 14, 17, 22)}
  assert [len(test.digits) for test in found.values()] == [0, 1, 2, 2, 3, 3, 3, 4]
  # CNN-7's: 12 bits of C, two triples and a; 75 bits of tables.
  assert (found[13].transfers, sum(d.width for d in found[13].digits)) == (17, 75)
  with pytest.raises(ValueError, match='23 bits in the mode ot, want 1 to 22'):
    sign_test.SignTest(23)


def packed(*rows):
  """Bits of instances, each row uint8 [n / 8]."""
  return np.packbits(np.stack(rows).astype(np.uint8), axis=1, bitorder='little')


def unpacked(rows):
  return np.unpackbits(rows, axis=1, bitorder='little')


class Coins:
  """Every value of all random bits of a sign test, without hashes and select.

  They are the masks M of the tables, both parties' triples, a, and p.
  """

  def __init__(self, test, fixed=()):
    tables = [shape.parts << shape.bits for shape in test.digits]
    triples = test.first_triples + test.last_triples
    count = sum(tables) + 5 * triples + 2
    rows = np.arange(1 << count, dtype=np.uint64)
    bits = (rows >> np.arange(count, dtype=np.uint64)[:, None] & np.uint64(1)).astype(np.uint8)
    for coin in fixed:
      bits[coin] = 0
    *rest, self.a, self.p = bits
    self.masks = [rest[start - size : start] for start, size in zip(np.cumsum(tables), tables)]
    dealt = rest[sum(tables) :]
    self.client = [dealt[i : i + 3] for i in range(0, len(dealt), 5)]
    self.server = []
    for i, (x, y, z) in zip(range(3, len(dealt), 5), self.client):
      xs, ys = dealt[i : i + 2]
      self.server.append([xs, ys, z ^ (x ^ xs) & (y ^ ys)])
    self.bits, self.count = bits, 1 << count

  def words(self, table):
    return sum(row.astype(np.uint64) << np.uint64(i) for i, row in enumerate(table))


def views(test, form, c, s, monkeypatch, fixed=()):
  """Everything that the client and the server see of bits: rows of each coin."""
  coins = Coins(test, fixed)
  n = coins.count
  c, s = np.full(n, c, np.uint64), np.full(n, s, np.uint64)
  firsts, masks, pads = [], [], []
  for shape, table, number in zip(test.digits, coins.masks, test.numbers(c)):
    first, mask = shape.split(coins.words(table))
    firsts += first
    masks.append(mask)
    pads += [
      coins.words(table) >> np.uint64(i << shape.bits) >> number & np.uint64(1)
      for i in range(shape.parts)
    ]
  labels = np.zeros((1 + 2 * test.last_triples, n, 2), np.uint64)
  pack = [[packed(*rows) for rows in triples] for triples in (coins.client, coins.server)]
  (a,), (p,) = packed(coins.a), packed(coins.p)
  nothing = np.zeros(n, np.uint64)
  client = millionaires.ClientBlock(packed(*pads), np.array(pack[0]), a, labels, b'', c, nothing)
  server = millionaires.ServerBlock(
    np.array(masks), packed(*firsts), np.array(pack[1]), labels, b'', p, nothing
  )
  monkeypatch.setattr(hashing, 'hash_labels', lambda labels, key: nothing)
  delta = np.array([1, 0], np.uint64)
  tables, opened, step = millionaires.first_of_server(server, s, form)
  answer, _ = millionaires.answer_of_client(client, tables, opened, form)
  last, _, _ = millionaires.last_of_server(server, step, answer, s, delta, form)
  sent = [
    table >> np.uint64(i) & np.uint64(1)
    for table, shape in zip(tables, test.digits)
    for i in range(shape.width)
  ]
  own = [*pads, *itertools.chain(*coins.client), coins.a]
  seen = types.SimpleNamespace()
  seen.client = own + sent + [*unpacked(opened), *unpacked(last)]
  own = [*itertools.chain(*coins.masks), *itertools.chain(*coins.server), coins.p]
  seen.server = own + list(unpacked(answer))
  for party, rows in vars(seen).items():
    weights = np.uint64(1) << np.arange(len(rows), dtype=np.uint64)
    total = sum(row.astype(np.uint64) * weight for row, weight in zip(rows, weights))
    setattr(seen, party, total)
  return seen


# Words with a digit of one or two bits, with two digits, and with two levels.
SMALL = [(2, 0), (3, 0), (3, 1), (4, 2)]
PAIRS = {2: [(0, 1), (3, 3), (1, 2)], 3: [(0, 0), (5, 3), (7, 1)], 4: [(2, 13), (15, 7)]}


@pytest.mark.parametrize('width, limits', SMALL)
def test_what_either_party_sees_is_uniform_whatever_the_shares_are(width, limits, monkeypatch):
  """Each view that there can be comes equally often."""
  monkeypatch.setattr(sign_test, '_MOST', (0,) * limits + (21,) * (4 - limits))
  form = form_of(width, dropped=0)
  test = sign_test.sign_test(form)
  for c, s in PAIRS[width]:
    seen = views(test, form, c, s, monkeypatch)
    for party, rows in vars(seen).items():
      times = np.bincount(np.unique(rows, return_counts=True)[1])
      # What a party does not see are masks of entries, so a view comes a power of 2 times.
      assert np.count_nonzero(times) == 1, (party, c, s)


@pytest.mark.parametrize('party', ['client', 'server'])
def test_without_one_of_the_coins_a_view_tells_the_other_ones_share(party, monkeypatch):
  """So the test above fails without its defences, each of those that hide something."""
  monkeypatch.setattr(sign_test, '_MOST', (0, 21, 21, 21))
  form = form_of(3, dropped=0)
  test = sign_test.sign_test(form)

  def tells(coin):
    """Whether for some own share the view depends on the other party's."""
    for own in range(8):
      pairs = [(own, other) if party == 'client' else (other, own) for other in range(8)]
      seen = [getattr(views(test, form, *pair, monkeypatch, fixed=[coin]), party) for pair in pairs]
      first, *others = (list(zip(*np.unique(each, return_counts=True))) for each in seen)
      if any(each != first for each in others):
        return True
    return False

  # Masks of lt of both digits; x, y and z of the client; x and y of the server; a; p. Masks of eq
  # (2 and 3) hide nothing in digits of one bit, whose two entries are each other's opposites.
  masks, client, server, a, p = (0, 1, 4, 5), range(6, 9), range(9, 11), 11, 12
  hiding = {*masks, *server, p} if party == 'client' else {*client, a}
  assert {coin for coin in range(len(Coins(test).bits)) if tells(coin)} == hiding

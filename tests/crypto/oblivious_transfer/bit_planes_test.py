"""Streams and their transposition, against slow references in numpy."""

import hashlib

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np
import pytest

from safenet_jax.crypto.oblivious_transfer import bit_planes


def random_words(shape, seed=0):
  return np.random.default_rng(seed).integers(0, 2**64, shape, np.uint64, endpoint=False)


def to_bits(words):
  return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder='little')


def make_seeds(groups, streams):
  rows = random_words((groups, streams, 2), seed=groups + streams)
  return [[seed.tobytes() for seed in group] for group in rows]


@pytest.mark.parametrize('words', [1, 2, 3, 64, 100])
@pytest.mark.parametrize('padding', [0, 5])
def test_transposition_equals_the_reference(words, padding):
  planes = random_words((128, words + padding))
  want = to_bits(planes)[:, : 64 * words].T
  labels = np.zeros((64 * words, 2), np.uint64)
  bit_planes.transpose(planes, labels)
  np.testing.assert_array_equal(to_bits(labels), want)


@pytest.mark.parametrize(
  'planes, labels',
  [
    (np.zeros((127, 2), np.uint64), np.zeros((128, 2), np.uint64)),
    (np.zeros((128, 2), np.int64), np.zeros((128, 2), np.uint64)),
    (np.zeros((128, 1), np.uint64), np.zeros((128, 2), np.uint64)),
    (np.zeros((128, 2), np.uint64), np.zeros((100, 2), np.uint64)),
    (np.zeros((128, 2), np.uint64), np.zeros((128, 2), np.uint32)),
    (np.zeros((128, 4), np.uint64)[:, ::2], np.zeros((64, 2), np.uint64)),
  ],
)
def test_transposition_refuses_wrong_shapes(planes, labels):
  with pytest.raises(ValueError, match='want'):
    bit_planes.transpose(planes, labels)


def test_gray_order_flips_one_bit_a_step_and_ends_in_zero():
  for bits in (1, 2, 4):
    order = bit_planes.gray_order(bits)
    assert sorted(order) == list(range(1 << bits))
    assert order[-1] == 0
    assert all((a ^ b).bit_count() == 1 for a, b in zip(order, order[1:]))


@pytest.mark.parametrize('bits', [1, 2, 4])
@pytest.mark.parametrize('missing', [0, 1])
def test_labels_are_the_weighted_sums_of_the_streams(bits, missing):
  words = 6
  groups = 128 // bits
  weights = bit_planes.gray_order(bits)
  seeds = make_seeds(groups, len(weights) - missing)
  data = np.random.default_rng(bits)
  positions = data.integers(1, len(weights) + 1, groups)
  addends = random_words((groups, words), seed=3)
  totals = None if missing else np.empty((groups, words), np.uint64)
  streams = bit_planes.Streams(seeds, positions, bits)
  labels = streams.labels(b'tag', addends, totals)

  counter = hashlib.sha256(b'tag').digest()[:12] + bytes(4)
  planes = np.zeros((groups, bits, words), np.uint64)
  sums = addends.copy()
  for group in range(groups):
    joined = weights[positions[group] - 1]
    for bit in range(bits):
      if joined >> bit & 1:
        planes[group, bit] ^= addends[group]
    for weight, seed in zip(weights, seeds[group]):
      context = Cipher(algorithms.AES(seed), modes.CTR(counter)).encryptor()
      stream = np.frombuffer(context.update(bytes(8 * words)), np.uint64)
      sums[group] ^= stream
      for bit in range(bits):
        if weight >> bit & 1:
          planes[group, bit] ^= stream
  np.testing.assert_array_equal(to_bits(labels), to_bits(planes.reshape(128, words)).T)
  if not missing:
    np.testing.assert_array_equal(totals, sums)


@pytest.mark.parametrize('chunk, scratch', [(2, 1), (6, 4000), (1024, 64)])
def test_labels_do_not_depend_on_how_the_work_is_cut(monkeypatch, chunk, scratch):
  addends = random_words((32, 10))
  seeds = make_seeds(32, 16)

  def run():
    totals = np.zeros_like(addends)
    streams = bit_planes.Streams(seeds, [16] * 32, 4)
    labels = streams.labels(b'tag', addends, totals)
    # A second call finds the scratch as the first one's last chunk left it.
    again = streams.labels(b'other', addends, np.zeros_like(addends))
    return labels, again, totals

  want = run()
  monkeypatch.setattr(bit_planes, '_CHUNK_WORDS', chunk)
  monkeypatch.setattr(bit_planes, '_SUM_WORDS', scratch)
  for got, expected in zip(run(), want):
    np.testing.assert_array_equal(got, expected)


def test_tags_start_unrelated_streams_and_are_taken_once():
  addends = np.zeros((128, 2), np.uint64)
  streams = bit_planes.Streams(make_seeds(128, 2), [2] * 128, 1)
  first = streams.labels(b'a', addends)
  second = streams.labels(b'b', addends)
  assert not (first == second).any()
  for tag in (b'a', b'b'):
    with pytest.raises(ValueError, match='used before'):
      streams.labels(tag, addends)

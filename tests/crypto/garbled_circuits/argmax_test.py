"""The tournament is numpy.argmax of the shared words, and costs what it says."""

import itertools

import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import argmax, circuits
from tests.support import plain_circuits


def wires(words, bits):
  """The low bits of uint64 words, lowest first: bool [bits, ...]."""
  shifts = np.arange(bits, dtype=np.uint64).reshape(-1, *[1] * words.ndim)
  return (words >> shifts & np.uint64(1)).astype(bool)


def shares(values, bits, seed=0):
  """Random shares of int64 values, as bool [bits, ...] each."""
  c = np.random.default_rng(seed).integers(0, 1 << 63, values.shape).astype(np.uint64)
  return wires(c, bits), wires(values.astype(np.uint64) - c, bits)


def index(outputs):
  return sum(bit.astype(int) << i for i, bit in enumerate(outputs))


def in_plain(values, bits):
  """The index for values [count, ...]."""
  return index(plain_circuits.first_largest(*shares(values, bits)))


@pytest.mark.parametrize('count, bits', [(2, 1), (2, 4), (3, 3), (4, 2), (5, 2), (6, 2), (7, 1)])
def test_it_is_the_first_of_the_largest_of_all_small_words(count, bits):
  words = range(-(1 << bits >> 1), 1 << bits >> 1)
  values = np.array(list(itertools.product(words, repeat=count)), np.int64).T
  np.testing.assert_array_equal(in_plain(values, bits), values.argmax(0))


def test_all_shares_of_all_words_are_compared_alike():
  """Both shares of three words in a ring of four, whatever their sums."""
  c, s = np.array(list(itertools.product(range(4), repeat=6)), np.uint64).T.reshape(2, 3, -1)
  values = (c + s).astype(np.int64) % 4
  expected = np.where(values > 1, values - 4, values).argmax(0)
  np.testing.assert_array_equal(
    index(plain_circuits.first_largest(wires(c, 2), wires(s, 2))), expected
  )


@pytest.mark.parametrize('count, bits', [(10, 24), (100, 24), (37, 56), (101, 64)])
def test_it_is_numpys_for_random_words_ties_and_extremes(count, bits):
  rng = np.random.default_rng(count)
  limit = 1 << bits - 1
  cases = [
    rng.integers(-limit, limit - 1, (count, 50), endpoint=True),
    rng.integers(-2, 2, (count, 50)),  # ties, most of them of the largest
    rng.integers(-3, 0, (count, 50)),  # and of negative words
    rng.choice([-limit, 0, limit - 1], (count, 50)),
    np.full((count, 1), -7),
    -np.arange(count)[:, None],
    np.arange(count)[:, None],
  ]
  values = np.concatenate(cases, axis=1)
  np.testing.assert_array_equal(in_plain(values, bits), values.argmax(0))


def test_a_word_outside_of_the_ring_is_another_word():
  """Exact only below 2^(k-1): 8 is -8 in a ring of 16."""
  values = np.array([[8], [-1], [0]])
  assert values.argmax() == 0 and in_plain(values, 4) == [2]
  assert in_plain(values, 5) == [0]


@pytest.mark.parametrize(
  'count, bits, selected',
  [
    (2, 8, 0),
    (3, 8, 1),
    (10, 24, 7),
    (10, 56, 7),
    (100, 24, 95),
    (1000, 24, 991),
  ],
)
def test_it_costs_what_its_docstring_says(count, bits, selected):
  assert argmax.and_count(count, bits) == count * (3 * bits - 1) - 3 * bits + selected
  stages = argmax.stages(count, bits)
  assert len(stages) == argmax.index_bits(count) + 1
  assert sum(stage.instances for stage in stages[1:]) == count - 1
  # Gates one after the other: one circuit a round.
  longest = sum(stage.circuit.and_count for stage in stages)
  assert longest <= bits + (2 * bits + len(stages)) * (len(stages) - 1)
  # Of the last winner, nothing but its index.
  assert len(stages[-1].circuit.outputs) == argmax.index_bits(count)
  assert all(isinstance(bit, circuits.Wire) for bit in stages[-1].circuit.outputs)


@pytest.mark.parametrize('count, bits', [(1, 8), (0, 8), (3, 0), (3, 65), ((1 << 14) + 1, 8)])
def test_what_cannot_be_compared_is_refused(count, bits):
  with pytest.raises(ValueError, match='words of'):
    argmax.stages(count, bits)

"""The tournament is numpy.argmax of the shared words, and costs what it says."""

import dataclasses
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
  'count, bits, ring', [(2, 1, 2), (2, 2, 4), (3, 2, 3), (3, 1, 3), (5, 1, 2)]
)
def test_checked_words_have_an_index_only_if_all_are_in_range(count, bits, ring):
  """All words of so many bits, those out of range among them."""
  words = range(-(1 << ring >> 1), 1 << ring >> 1)
  values = np.array(list(itertools.product(words, repeat=count)), np.int64).T
  *found, fits = plain_circuits.first_largest(*shares(values, ring), bits)
  limit = 1 << bits >> 1
  inside = ((-limit <= values) & (values < limit)).all(0)
  assert inside.any() and not inside.all()
  np.testing.assert_array_equal(fits, inside)
  np.testing.assert_array_equal(index(found), np.where(inside, values.argmax(0), 0))


@pytest.mark.parametrize('count', [2, 10, 37])
def test_one_word_at_the_edge_of_the_range_decides(count):
  limit = 1 << 22
  values = np.random.default_rng(0).integers(-limit, limit, (count, 8))
  place = np.arange(8) * 5 % count
  values[place, np.arange(8)] = [-limit, -limit - 1, limit - 1, limit, 0, 1 << 27, -(1 << 27), 3]
  *found, fits = plain_circuits.first_largest(*shares(values, 28), 23)
  wanted = [True, False, True, False, True, False, False, True]
  np.testing.assert_array_equal(fits, wanted)
  np.testing.assert_array_equal(index(found), values.argmax(0) * wanted)


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
  form = argmax.Tournament(count, bits)
  assert argmax.and_count(form) == count * (3 * bits - 1) - 3 * bits + selected
  checked, ring = dataclasses.replace(form, ring=bits + 5), bits + 5
  more = count * (ring - bits) + count * (ring - bits - 1) + (count - 1) + form.index_bits
  assert argmax.and_count(checked) == argmax.and_count(form) + more
  assert checked.outputs == len(argmax.stages(checked)[-1].circuit.outputs) == form.outputs + 1
  stages = argmax.stages(form)
  assert len(stages) == form.index_bits + 1
  assert sum(stage.instances for stage in stages[1:]) == count - 1
  # Gates one after the other: one circuit a round.
  longest = sum(stage.circuit.and_count for stage in stages)
  assert longest <= bits + (2 * bits + len(stages)) * (len(stages) - 1)
  # Of the last winner, nothing but its index.
  assert len(stages[-1].circuit.outputs) == form.outputs == form.index_bits
  assert all(isinstance(bit, circuits.Wire) for bit in stages[-1].circuit.outputs)


@pytest.mark.parametrize('count, bits', [(1, 8), (0, 8), (3, 0), (3, 65), ((1 << 14) + 1, 8)])
def test_what_cannot_be_compared_is_refused(count, bits):
  with pytest.raises(ValueError, match='words of'):
    argmax.stages(argmax.Tournament(count, bits))


@pytest.mark.parametrize('ring', [7, 8, 65])
def test_a_range_that_the_ring_does_not_exceed_is_refused(ring):
  with pytest.raises(ValueError, match=f'8 bits in shares of {ring}, want 9 to 64'):
    argmax.stages(argmax.Tournament(3, 8, ring))

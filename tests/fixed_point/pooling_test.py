"""Pools of any window, stride and padding, in integers."""

import math

import numpy as np
import pytest

from safenet_jax.fixed_point import pool_tiles, pooling
from safenet_jax.models import layers, windows
from tests.support import reference

PADDED = ((1, 0), (1, 2))
POOLS = [
  (2, None, None),
  (3, None, None),
  (3, 2, None),
  (3, 1, PADDED),
  (3, 2, PADDED),
  (2, 3, None),
]


def maps(window, stride, padding):
  """Integers on a map that the windows divide where they have to."""
  shape = (6, 6) if stride is None else (7, 9)
  x = np.random.default_rng(0).integers(-99, 99, (2, *shape, 3))
  return x, (window, stride, padding or layers.NO_PADDING)


@pytest.mark.parametrize('count_padding', [True, False])
@pytest.mark.parametrize('fields', POOLS)
def test_sums_are_means_times_the_divisor(fields, count_padding):
  x, fields = maps(*fields)
  pool = layers.AveragePool(*fields, count_padding)
  divisor = pooling.divisor(pool, windows.of(pool, *x.shape[1:3]))
  found = pooling.sums(np, x, pool)
  expected = np.stack([reference.means(one, pool) for one in x])
  np.testing.assert_allclose(found / divisor, expected, rtol=1e-12)
  # Shares wrap, and their sum is the sum of values.
  share = np.random.default_rng(1).integers(0, 1 << 62, x.shape).astype(np.uint64) * np.uint64(4)
  other = x.astype(np.uint64) - share
  parts = pooling.sums(np, share, pool) + pooling.sums(np, other, pool)
  np.testing.assert_array_equal(parts.astype(np.int64), found)


def test_a_mean_of_the_whole_map_needs_no_square():
  pool = layers.AveragePool(None)
  x = np.arange(2 * 3 * 5 * 2).reshape(2, 3, 5, 2)
  np.testing.assert_array_equal(pooling.sums(np, x, pool), x.sum((1, 2), keepdims=True))
  assert pooling.divisor(pool, windows.of(pool, 3, 5)) == 15


def test_where_padding_does_not_count_the_divisor_is_a_common_multiple():
  pool = layers.AveragePool(3, 1, ((1, 1), (1, 1)), count_padding=False)
  assert pooling.divisor(pool, windows.of(pool, 8, 8)) == math.lcm(4, 6, 9)


@pytest.mark.parametrize('fields', POOLS)
def test_maxima_and_the_words_of_tiles_are_those_of_windows(fields):
  x, fields = maps(*fields)
  pool = layers.MaxPool(*fields)
  expected = np.stack([reference.largest(one, pool) for one in x])
  np.testing.assert_array_equal(pooling.maxima(x, pool), expected)
  tiles = pool_tiles.of(windows.of(pool, *x.shape[1:3]))
  words = tiles.cut(x).reshape(*tiles.spans, -1)
  rows, columns = tiles.windows
  outputs = [
    words[i * rows.stride :, j * columns.stride :][: rows.size, : columns.size].max((0, 1))
    for i in range(tiles.side)
    for j in range(tiles.side)
  ]
  np.testing.assert_array_equal(tiles.joined(np.stack(outputs), 3), expected)

"""ReLUs with limits and slopes: what both parties add to the shares of plain ones."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto import ring
from safenet_jax.models import layers
from safenet_jax.protocol.layers import relu
from tests.support import models

K = 5


def form(limit, slope, slope_bits):
  found = models.activation(1, 0, 0, ())
  return dataclasses.replace(
    found,
    input_fraction=0,
    output_fraction=0,
    sign_bits=K,
    select_bits=K + slope_bits + 1,
    limit=limit,
    slope=slope,
    slope_bits=slope_bits,
  )


@pytest.mark.parametrize(
  'limit, slope, slope_bits', [(0, 0, 0), (3, 0, 0), (0, 1, 2), (0, 3, 3), (0, -1, 1), (3, 1, 1)]
)
def test_shares_add_up_to_the_activation_for_all_values_and_shares(limit, slope, slope_bits):
  one = form(limit, slope, slope_bits)
  bits = one.select_bits
  # So that y less the limit fits, too.
  y, c = np.meshgrid(np.arange(-(1 << (K - 2)), 1 << (K - 2)), np.arange(1 << bits))
  c = c.reshape(-1).astype(np.uint64)
  y = y.reshape(-1)
  s = ring.reduce(y.astype(np.uint64) - c, bits)
  count = 2 if limit else 1
  ours = relu.tested(c, one, count, server=False)
  theirs = relu.tested(s, one, count, server=True)
  assert ours.size == theirs.size == count * y.size
  tested = ring.reconstruct(ours, theirs, bits)
  chosen = np.maximum(tested, 0).astype(np.uint64)
  rho = np.random.default_rng(0).integers(0, 1 << bits, chosen.size).astype(np.uint64)
  v = ring.reduce(chosen - rho, bits)
  # In several blocks, as a layer has them.
  parts = [np.array_split(part, 3) for part in (v, ours, rho, theirs)]
  found = [relu.joined(*pair, one, count)[0] for pair in (parts[:2], parts[2:])]
  expected = np.where(y < 0, slope * y, y * 2**slope_bits)
  if limit:
    expected = np.minimum(expected, limit * 2**slope_bits)
  np.testing.assert_array_equal(ring.reconstruct(*found, bits), expected)
  np.testing.assert_array_equal(one.exact(y), expected)


def test_a_mean_behind_them_drops_the_bits_of_slope_and_values():
  one = dataclasses.replace(
    form(0, 1, 2), map_shape=(6, 6), pool=layers.AveragePool(3), input_fraction=9
  )
  # log2(9) is 3.17.
  assert one.relu_shift == 9 + 2 + 3

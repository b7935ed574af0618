"""Max pools by comparisons: which values are compared, and that the largest remains.

Here the comparison itself is ideal. That the parties' own follows the integer reference is in
`delphi/other_networks_test`, and that every message is uniform in `delphi/uniformity_test`.
"""

import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto import randomness, ring
from safenet_jax.models import layers
from safenet_jax.protocol.layers import maximum_tree
from tests.support import models, reference

AROUND = ((1, 1), (1, 1))


def form(pool, map_shape, *, sign_bits=20, dropped=8, channels=3, rectified=True):
  return dataclasses.replace(
    models.activation(channels, 0, 0, map_shape, pool),
    sign_bits=sign_bits,
    select_bits=sign_bits - dropped + 1,
    input_fraction=7 + dropped,
    output_fraction=7,
    rectified=rectified,
  )


@pytest.mark.parametrize(
  'pool, window, comparisons, levels, more',
  [
    (layers.MaxPool(2), 2, 3, 2, 1),
    (layers.MaxPool(3, 2, AROUND), 2, 6, 4, 0),
    (layers.MaxPool(3, 1, AROUND), 1, 4, 4, 0),
    (layers.MaxPool(8), 8, 63, 6, 1),
    (layers.MaxPool(5, 1, ((2, 2), (2, 2))), 1, 6, 6, 0),
  ],
)
def test_windows_share_comparisons_as_the_table_says(pool, window, comparisons, levels, more):
  side = 64 * window
  for rectified in (False, True):
    found = maximum_tree.levels(form(pool, (side, side), rectified=rectified))
    total = sum(np.prod(level.map_shape) for level in found)
    # At the border some windows have fewer values.
    assert 0.96 < total / 64**2 / (comparisons + rectified) <= 1
    assert len(found) == levels + more * rectified
    assert found[-1].map_shape == (64, 64)
    assert {level.sign_bits - level.dropped for level in found} == {13}


def walk(form, values, seed=0):
  """Both parties' walks over values [B, H, W, C], with ideal comparisons; the maxima."""
  source = randomness.InsecureSeededRandomness(seed)
  client = source.ring(28, values.shape)
  server = ring.reduce(ring.from_signed(values, 28) - client, 28)
  bits = form.select_bits
  trees = [
    maximum_tree.compared(share, form, server=party)
    for party, share in ((False, client), (True, server))
  ]
  pairs = [next(tree) for tree in trees]
  shapes = [level.map_shape for level in maximum_tree.levels(form)]
  for i, shape in enumerate(shapes):
    difference, second = (ring.reconstruct(*shares, bits) for shares in zip(*pairs, strict=True))
    assert difference.shape[1:3] == shape
    maxima = second + np.maximum(difference, 0)
    if i + 1 < len(shapes):
      mask = source.ring(bits, maxima.shape)
      rest = ring.reduce(ring.from_signed(maxima, bits) - mask, bits)
      pairs = [tree.send(share) for tree, share in zip(trees, (mask, rest), strict=True)]
  return maxima


POOLS = [
  (layers.MaxPool(2), (4, 4)),
  (layers.MaxPool(3), (6, 3)),
  (layers.MaxPool(3, 2, AROUND), (9, 4)),
  (layers.MaxPool(3, 1, ((2, 0), (0, 1))), (6, 5)),
  (layers.MaxPool(2, 3), (7, 6)),
  (layers.MaxPool(1, 2), (5, 4)),
  (layers.MaxPool(4, 1, ((3, 3), (3, 3))), (2, 3)),
]


@pytest.mark.parametrize('rectified', [True, False])
@pytest.mark.parametrize('pool, map_shape', POOLS)
def test_what_remains_is_the_largest_value_within_a_unit(pool, map_shape, rectified):
  layer = form(pool, map_shape, rectified=rectified)
  limit = (1 << 19) - (1 << 8)
  values = np.random.default_rng(1).integers(-limit, limit, (20, *map_shape, 3))
  values[:4] //= 512  # about the unit of the output
  values[4] = limit - 1
  values[5] = np.where(values[5] > 0, limit - 1, 1 - limit)  # differences of a bit more
  values[6] = -values[6, :1, :1]  # ties
  expected = np.stack([reference.largest(x, pool) for x in values])
  error = walk(layer, values) - (np.maximum(expected, 0) if rectified else expected) / 256
  assert np.abs(error).max() <= 1
  assert error[7:].mean() > -0.05


@pytest.mark.parametrize('pool, map_shape', POOLS)
def test_without_low_bits_to_drop_it_is_exact(pool, map_shape):
  layer = form(pool, map_shape, sign_bits=7, dropped=0, rectified=False)
  values = np.random.default_rng(2).integers(-63, 64, (50, *map_shape, 3))
  np.testing.assert_array_equal(
    walk(layer, values), np.stack([reference.largest(x, pool) for x in values])
  )


def test_a_pool_of_means_has_no_tree():
  layer = dataclasses.replace(models.activation(3, 0, 0, (4, 4)), pool=layers.AveragePool(2))
  with pytest.raises(ValueError, match='want a max pool'):
    maximum_tree.levels(layer)

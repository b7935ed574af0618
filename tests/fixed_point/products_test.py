"""Convolutions by blocks: what JAX computes, and exactly for integers."""

import jax
from jax import lax
import numpy as np
import pytest

from safenet_jax.crypto import ring
from safenet_jax.fixed_point import products
from safenet_jax.models import layers

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('block', [1, 200, 1 << 17])
@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'stride': 2},
    {'kernel': 2},
    {'dilation': 2, 'groups': 2},
    {'kernel': 5, 'stride': 2, 'dilation': 2, 'groups': 4, 'padding': ((1, 0), (2, 3))},
    {'kernel': 1, 'stride': 2},
    {'kernel': 1, 'groups': 4},
    {'groups': 8},
    {'kernel': 7, 'stride': 2, 'padding': ((3, 3), (0, 1))},
  ],
)
def test_any_convolution_is_that_of_jax(fields, block, monkeypatch):
  monkeypatch.setattr(products, '_BLOCK', block)
  layer = layers.Conv(16, **fields)
  x = RNG.normal(size=(3, 11, 14, 8))
  kernel = RNG.normal(size=(layer.kernel, layer.kernel, 8 // layer.groups, 16))
  with jax.enable_x64(True):
    wanted = lax.conv_general_dilated(
      x,
      kernel,
      (layer.stride,) * 2,
      layer.around,
      rhs_dilation=(layer.dilation,) * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=layer.groups,
    )
  np.testing.assert_allclose(products.convolve(x, kernel, layer), wanted, atol=1e-12)


def test_integers_of_any_size_are_exact():
  kernel = RNG.integers(-(1 << 14), 1 << 14, (3, 3, 8, 4))
  layer, weights = layers.Conv(4), kernel.astype(np.float64)
  limb = ring.limb_bits(kernel)
  for bits in (limb - 1, limb + 1, 62):
    x = RNG.integers(-(1 << bits), 1 << bits, (2, 5, 5, 8))
    found = products.exactly(lambda v: products.convolve(v, weights, layer), x, limb)
    wanted = ring.convolve(np, x.astype(np.uint64), kernel, layer, 64, None)
    np.testing.assert_array_equal(found, wanted.astype(np.int64))


def test_batches_hold_all_images_and_are_bounded(monkeypatch):
  records, shape = (layers.Conv(8),), (4, 4, 2)
  monkeypatch.setattr(products, '_MAP', 3 * 4 * 4 * 8)
  found = list(products.batches(records, shape, 7))
  assert [range(7)[part] for part in found] == [range(3), range(3, 6), range(6, 7)]
  monkeypatch.setattr(products, '_MAP', 1)
  assert len(list(products.batches(records, shape, 7))) == 7

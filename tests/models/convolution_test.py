"""The canonical convolution equals the native one, gradients included."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.models import convolution


def native(x, w, stride):
  # For odd kernels PyTorch's padding=k//2.
  padding = [((w.shape[0] - 1) // 2, w.shape[0] // 2)] * 2
  return lax.conv_general_dilated(
      x, w, (stride, stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@pytest.mark.parametrize('size', [7, 8])
@pytest.mark.parametrize('kernel', [1, 2, 3, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_gradients_equal_the_native_ones(stride, kernel, size):
  key_x, key_w, key_y = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(key_x, (3, size, size, 4))
  w = jax.random.normal(key_w, (kernel, kernel, 4, 5))
  y, pullback = jax.vjp(lambda x, w: convolution.convolve(x, w, stride), x, w)
  expected, expected_pullback = jax.vjp(lambda x, w: native(x, w, stride), x, w)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  cotangent = jax.random.normal(key_y, y.shape)
  for ours, theirs in zip(pullback(cotangent), expected_pullback(cotangent)):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_inside_a_loop_equal_those_outside():
  x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
  w = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
  gradient = jax.grad(lambda w, x: jnp.sin(convolution.convolve(x, w, 1)).sum())
  looped = jax.jit(lambda w, xs: lax.map(lambda x: gradient(w, x), xs))(w, x[None])
  np.testing.assert_allclose(looped[0], gradient(w, x), rtol=1e-5, atol=1e-5)

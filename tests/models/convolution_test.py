"""Every form of the convolution equals the native one, gradients included."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.models import convolution, layers
from safenet_jax.models.layers import Conv


def native(x, w, stride):
  # For odd kernels PyTorch's padding=k//2.
  padding = [((w.shape[0] - 1) // 2, w.shape[0] // 2)] * 2
  return lax.conv_general_dilated(
    x, w, (stride, stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@pytest.mark.parametrize('size', [1, 2, 4, 7])
@pytest.mark.parametrize('kernel', [1, 2, 3, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_value_and_gradients_equal_the_native_ones(stride, kernel, size):
  key_x, key_w, key_y = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(key_x, (3, size, size + 1, 4))
  w = jax.random.normal(key_w, (kernel, kernel, 4, 5))
  y, pullback = jax.vjp(lambda x, w: convolution.convolve(x, w, stride), x, w)
  expected, expected_pullback = jax.vjp(lambda x, w: native(x, w, stride), x, w)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  cotangent = jax.random.normal(key_y, y.shape)
  for ours, theirs in zip(pullback(cotangent), expected_pullback(cotangent)):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  'layer',
  [
    Conv(8, 3, groups=4),
    Conv(4, 3, 2, groups=4, padding=((0, 1), (0, 1))),
    Conv(6, 3, groups=2, dilation=2),
    Conv(5, 2, 3, dilation=3, padding=((0, 3), (5, 1))),
    Conv(5, 3, 2, padding=((0, 0), (0, 0))),
  ],
)
def test_convolutions_of_any_form_equal_the_native_ones(layer):
  """Also under a vmap over kernels, as for the members of a population."""
  key_x, key_w = jax.random.split(jax.random.key(0))
  x = jax.random.normal(key_x, (2, 7, 6, 4))
  w = jax.random.normal(key_w, (3, layer.kernel, layer.kernel, 4 // layer.groups, layer.features))

  def native(x, w):
    return lax.conv_general_dilated(
      x,
      w,
      (layer.stride,) * 2,
      layer.around,
      rhs_dilation=(layer.dilation,) * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=layer.groups,
    )

  def values_and_gradients(form):
    y, pullback = jax.vjp(lambda w: jax.vmap(lambda w: form(x, w))(w), w)
    return y, *pullback(jnp.sin(y)), jax.grad(lambda x: jnp.sin(form(x, w[0])).sum())(x)

  ours = values_and_gradients(lambda x, w: convolution.convolve_layer(x, w, layer))
  for found, wanted in zip(ours, values_and_gradients(native), strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
  (shape,) = layers.shapes((layer,), x.shape[1:])
  assert shape.output_shape == ours[0].shape[2:]
  assert shape.macs == ours[0][0, 0].size * w[0, ..., 0].size


def test_a_map_smaller_than_the_kernel_takes_no_convolution_on_a_cpu():
  """Nor does either gradient; a map of the kernel's size does."""

  def operations(size):
    def loss(x, w):
      return convolution.convolve(x, w, 2).sum()

    arguments = jnp.ones((2, size, size, 3)), jnp.ones((3, 3, 3, 4))
    return jax.jit(jax.grad(loss, (0, 1))).lower(*arguments).as_text()

  if jax.default_backend() == 'cpu':
    assert 'stablehlo.convolution' not in operations(4)
    assert 'stablehlo.convolution' in operations(5)


@pytest.mark.parametrize('channels', [(3, 16), (16, 16), (33, 5)])
@pytest.mark.parametrize('stride', [1, 2])
def test_values_and_gradients_do_not_depend_on_the_number_of_channels(stride, channels):
  """Few channels have other forms, which take eight images at a time."""
  key_x, key_w, key_y = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(key_x, (16, 7, 8, channels[0]))
  w = jax.random.normal(key_w, (3, 3, *channels))
  y, pullback = jax.vjp(lambda x, w: convolution.convolve(x, w, stride), x, w)
  expected, expected_pullback = jax.vjp(lambda x, w: native(x, w, stride), x, w)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
  cotangent = jax.random.normal(key_y, y.shape)
  for ours, theirs in zip(pullback(cotangent), expected_pullback(cotangent)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_gradients_inside_a_loop_equal_those_outside():
  x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
  w = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
  gradient = jax.grad(lambda w, x: jnp.sin(convolution.convolve(x, w, 1)).sum())
  looped = jax.jit(lambda w, xs: lax.map(lambda x: gradient(w, x), xs))(w, x[None])
  np.testing.assert_allclose(looped[0], gradient(w, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('size', [1, 3, 5])
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('shared_kernel', [False, True])
def test_convolutions_of_members_are_those_one_after_another(size, stride, shared_kernel):
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.normal(size=(3, 2, 8, 7, 4)), jnp.float32)
  kernels = jnp.asarray(rng.normal(size=(3, size, size, 4, 5)), jnp.float32)
  if shared_kernel:
    kernels = jnp.broadcast_to(kernels[0], kernels.shape)

  def value_and_gradients(images, kernel):
    def loss(images, kernel):
      y = convolution.convolve(images, kernel, stride)
      return jnp.sum(jnp.sin(y)), y

    (_, y), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(images, kernel)
    return y, gradients

  axes = (0, None) if shared_kernel else (0, 0)
  found = jax.vmap(value_and_gradients, axes)(images, kernels[0] if shared_kernel else kernels)
  for i in range(3):
    for a, b in zip(
      jax.tree.leaves(found), jax.tree.leaves(value_and_gradients(images[i], kernels[i]))
    ):
      np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4)

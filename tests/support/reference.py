"""An integer reference of a served network, with none of the protocol's arithmetic.

Plain int64 loops over kernel positions; floors and remainders by numpy's // and %.
"""

import math

import numpy as np

from safenet_jax.models import layers


def layer_of(model, name):
  """The record of a served layer."""
  shapes = layers.shapes(model.public.layers, model.public.input_shape)
  return next(shape.layer for shape in shapes if shape.name == name)


def convolution(x, kernel, layer):
  """int64 [H, W, I] with [k, k, I / groups, O] to [H', W', O]."""
  k, stride, step = kernel.shape[0], layer.stride, layer.dilation
  padded = np.pad(x, (*layer.around, (0, 0)))
  oh, ow = ((n - (k - 1) * step - 1) // stride + 1 for n in padded.shape[:2])
  y = np.zeros((oh, ow, kernel.shape[3]), np.int64)
  inputs, outputs = kernel.shape[2], kernel.shape[3] // layer.groups
  for i in range(k):
    for j in range(k):
      window = padded[i * step :: stride, j * step :: stride][:oh, :ow]
      for g in range(layer.groups):
        own, made = (slice(g * n, (g + 1) * n) for n in (inputs, outputs))
        y[..., made] += np.einsum('hwi,io->hwo', window[..., own], kernel[i, j, :, made])
  return y


def windows(x, pool, reduce, fill):
  """What `reduce` makes of each window of [H, W, C], where `fill` is in the padding."""
  size = pool.window or x.shape[:2]
  n, m = (size, size) if isinstance(size, int) else size
  down, right = pool.stride or n, pool.stride or m
  padded = np.pad(x.astype(np.float64), (*pool.padding, (0, 0)), constant_values=fill)
  rows, columns = (padded.shape[0] - n) // down + 1, (padded.shape[1] - m) // right + 1
  return np.array(
    [
      [
        reduce(padded[i * down : i * down + n, j * right : j * right + m], axis=(0, 1))
        for j in range(columns)
      ]
      for i in range(rows)
    ]
  )


def means(x, pool):
  """Means over windows of [H, W, C]; without a pool x itself."""
  if pool is None:
    return x
  if pool.count_padding:
    return windows(x, pool, np.mean, 0)
  return windows(x, pool, np.nanmean, np.nan)


def largest(x, pool):
  """Maxima over windows of [H, W, C]."""
  return windows(x, pool, np.max, -np.inf)


def constant(pool, map_shape):
  """What the integers behind a mean are multiplied by: its values over a power of two."""
  if pool is None:
    return 1.0
  ones = windows(np.ones((*map_shape, 1)), pool, np.sum, 0)
  size = pool.window or map_shape
  values = np.prod(size) if not isinstance(size, int) else size**2
  values = values if pool.count_padding else math.lcm(*ones.astype(int).ravel().tolist())
  return values / 2.0 ** math.floor(math.log2(values))


def activation(y, form, coefficients):
  """The exact real-valued output of an activation layer, in units of its last place.

  Also how far the protocol may be from it: one unit of rounding, and what a unit
  in the polynomial's argument is worth.
  """
  shift, pool = form.input_fraction - form.output_fraction, form.pool
  if isinstance(pool, layers.MaxPool):
    return largest(np.maximum(y, 0) if form.rectified else y, pool) / 2.0**shift, 1.0
  more = constant(pool, form.map_shape)
  garbled = y[..., : form.relu]
  exact = np.where(garbled < 0, garbled * form.slope / 2.0**form.slope_bits, garbled)
  exact = means(np.minimum(exact, form.limit or np.inf), pool)
  outputs = [exact * more / 2.0**shift]
  # Where signs are wrong, which they may be near zero and near the limit.
  wrong = 1.0 + bool(form.limit)
  bounds = [np.full(exact.shape, 1.0 + (pool is not None or form.limit > 0) * more * wrong)]
  if form.polynomial:
    t = y[..., form.relu :] / 2.0**form.shift
    value = sum(c * t**j for j, c in enumerate(coefficients))
    slope = np.abs(sum(j * c * t ** (j - 1) for j, c in enumerate(coefficients) if j))
    curve = sum(
      j * (j - 1) / 2 * np.abs(c) * (np.abs(t) + 1) ** (j - 2)
      for j, c in enumerate(coefficients)
      if j > 1
    )
    unit = 2.0 ** (form.value_fraction - form.output_fraction)
    outputs.append(means(value, pool) * more / unit)
    bounds.append(1.0 + means(slope + curve, pool) * more / unit)
  return np.concatenate(outputs, -1), np.concatenate(bounds, -1)


def gathered(x, channels, stride, scale):
  """Channels by index of [..., C], zeros for -1, one by one."""
  x = x[::stride, ::stride] if stride > 1 else x
  y = np.zeros((*x.shape[:-1], len(channels)), np.int64)
  for i, channel in enumerate(channels):
    if channel >= 0:
      y[..., i] = x[..., channel] * scale
  return y


def near(found, wanted, err_msg=''):
  """Equal, but for a few values that encryption has rounded wrongly by one."""
  assert found.shape == wanted.shape, err_msg
  difference = np.abs(found - wanted)
  assert difference.max(initial=0) <= 1, err_msg
  # One in 2000, and with large weights one in 500 more.
  expected = found.size / 400
  assert np.count_nonzero(difference) <= expected + 6 * expected**0.5 + 3, err_msg


class Follower:
  """Operations on one image's int64 [H, W, C] that check a protocol's values layer by layer.

  Linear layers have to be exact, or `near`; additions exact. An activation may differ by its
  bound. The next layer goes on with what the protocol had.
  """

  def __init__(self, model, values, image, check=np.testing.assert_array_equal):
    self.model, self.values, self.image = model, values, image
    self.check, self.errors = check, {}

  def _exact(self, name, y):
    found = self.values[name][self.image]
    self.check(found, y, err_msg=name)
    return found

  def conv(self, name, layer, x):
    weights = self.model.linear[name]
    assert weights.kernel.shape[-1] == layer.features
    return self._exact(name, convolution(x, weights.kernel, layer) + weights.bias)

  def dense(self, name, layer, x):
    weights = self.model.linear[name]
    assert weights.kernel.shape[-1] == layer.features
    return self._exact(name, x @ weights.kernel + weights.bias)

  def activation(self, name, layer, y):
    del layer
    form = self.model.public.activations[name]
    exact, bound = activation(y, form, self.model.polynomials.get(name, ()))
    x = self.values[name][self.image]
    error = x - exact
    assert (np.abs(error) <= bound).all(), (name, np.abs(error).max(), bound.max())
    self.errors[name] = error, bound
    return x

  def average_pool(self, name, layer, x):
    if name in self.model.public.absorbed:
      return x
    ones = np.ones((*x.shape[:2], 1))
    top = windows(ones, layer, np.sum, 0)
    size = x.shape[0] * x.shape[1] if layer.window is None else layer.window**2
    size = size if layer.count_padding else math.lcm(*top.astype(int).ravel().tolist())
    return np.round(means(x, layer) * size).astype(np.int64)

  def max_pool(self, name, layer, x):
    return x if name in self.model.public.absorbed else self.activation(name, layer, x)

  def flatten(self, name, layer, x):
    del name, layer
    return x.reshape(-1)

  def gather(self, name, layer, x):
    del name
    return gathered(x, layer.channels, layer.stride, layer.factor * 2**layer.shift)

  def truncate(self, name, layer, x):
    found = self.values[name][self.image]
    assert (np.abs(found - x / 2**layer.shift) < 1.01).all(), name
    return found

  def constant(self, name, layer, x):
    del x
    assert self.model.constants[name].shape == layer.shape
    return self.model.constants[name]

  def add(self, branch, shortcut):
    assert branch.shape == shortcut.shape
    return branch + shortcut

  def concat(self, values):
    return np.concatenate(values, -1)

"""An integer reference of a served network, with none of the protocol's arithmetic.

Plain int64 loops over kernel positions; floors and remainders by numpy's // and %.
"""

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


def pooled(x, window):
  """Sums over windows of [H, W, C]; of window 1, of anything."""
  if window == 1:
    return x
  h, w, c = x.shape
  return x.reshape(h // window, window, w // window, window, c).sum((1, 3))


def largest(x, window):
  """Maxima over windows of [H, W, C]."""
  h, w, c = x.shape
  return x.reshape(h // window, window, w // window, window, c).max((1, 3))


def activation(y, form, coefficients):
  """The exact real-valued output of an activation layer, in units of its last place.

  Also how far the protocol may be from it: one unit of rounding, and what a unit
  in the polynomial's argument is worth.
  """
  shift = form.input_fraction - form.output_fraction
  if form.maximum:
    return largest(np.maximum(y, 0), form.window) / 2.0**shift, 1.0
  relu = pooled(np.maximum(y[..., : form.relu], 0), form.window)
  outputs = [relu / (2.0**shift * form.window**2)]
  bounds = [np.full(relu.shape, 1.0 + (form.window > 1))]
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
    outputs.append(pooled(value, form.window) / (unit * form.window**2))
    bounds.append(1.0 + pooled(slope + curve, form.window) / (unit * form.window**2))
  return np.concatenate(outputs, -1), np.concatenate(bounds, -1)


def gathered(x, channels, stride, shift):
  """Channels by index of [..., C], zeros for -1, one by one."""
  x = x[::stride, ::stride] if stride > 1 else x
  y = np.zeros((*x.shape[:-1], len(channels)), np.int64)
  for i, channel in enumerate(channels):
    if channel >= 0:
      y[..., i] = x[..., channel] * 2**shift
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
    return x if name in self.model.public.absorbed else pooled(x, layer.window)

  def max_pool(self, name, layer, x):
    del layer
    assert name in self.model.public.absorbed
    return x

  def flatten(self, name, layer, x):
    del name, layer
    return x.reshape(-1)

  def gather(self, name, layer, x):
    del name
    return gathered(x, layer.channels, layer.stride, layer.shift)

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

"""An integer reference of a served network, with none of the protocol's arithmetic.

Plain int64 loops over kernel positions; floors and remainders by numpy's // and %.
"""

import numpy as np


def convolution(x, kernel, stride):
  """int64 [H, W, I] with [k, k, I, O] to [H', W', O]."""
  h, w, _ = x.shape
  k = kernel.shape[0]
  oh, ow = -(-h // stride), -(-w // stride)
  top = left = (k - 1) // 2
  padded = np.zeros((h + 2 * k, w + 2 * k, x.shape[2]), np.int64)
  padded[top : top + h, left : left + w] = x
  y = np.zeros((oh, ow, kernel.shape[3]), np.int64)
  for i in range(k):
    for j in range(k):
      window = padded[i : i + oh * stride : stride, j : j + ow * stride : stride]
      y += np.einsum('hwi,io->hwo', window[:oh, :ow], kernel[i, j])
  return y


def pooled(x, window):
  """Sums over windows of [H, W, C]."""
  h, w, c = x.shape
  return x.reshape(h // window, window, w // window, window, c).sum((1, 3))


def activation(y, form, coefficients):
  """The exact real-valued output of an activation layer, in units of its last place.

  Also how far the protocol may be from it: one unit of rounding, and what a unit
  in the polynomial's argument is worth.
  """
  shift = form.input_fraction - form.output_fraction
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

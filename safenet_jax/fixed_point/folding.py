"""What disappears into the weights before serving: batch norm, and square polynomials."""

import math

import numpy as np

from safenet_jax.approximation import activation
from safenet_jax.models import layers as records
from safenet_jax.models.network import BATCH_NORM_EPSILON, Network


def fold_batch_norm(network: Network, variables) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Name of a linear layer to its float64 kernel [..., O] and bias [O]."""
  params, stats = variables['params'], variables.get('batch_stats', {})
  folded = {}
  for shape in records.shapes(network.layers, network.input_shape):
    if not isinstance(shape.layer, records.Conv | records.Dense):
      continue
    name = shape.name
    kernel = np.asarray(params[name]['kernel'], np.float64)
    bias = np.asarray(params[name].get('bias', np.zeros(kernel.shape[-1])), np.float64)
    if f'{name}_bn' in params:
      norm = {k: np.asarray(v, np.float64) for k, v in params[f'{name}_bn'].items()}
      moments = {k: np.asarray(v, np.float64) for k, v in stats[f'{name}_bn'].items()}
      scale = norm['scale'] / np.sqrt(moments['var'] + BATCH_NORM_EPSILON)
      bias = norm['bias'] + (bias - moments['mean']) * scale
      kernel = kernel * scale
    folded[name] = kernel, bias
  return folded


class Split:
  """How one activation layer's channels are divided, by original index."""

  def __init__(self, layer: activation.Approximation):
    if np.any(np.asarray(layer.blend)):
      raise ValueError(f'activation with blend {layer.blend}, want 0: finish the annealed switch')
    mask, degree = np.asarray(layer.mask), int(layer.degree)
    self.total = mask.size
    self.relu = np.flatnonzero(~mask)
    self.polynomial = np.flatnonzero(mask) if degree else np.zeros(0, np.int64)
    self.degree = degree if self.polynomial.size else 0
    self.order = np.concatenate([self.relu, self.polynomial])
    # float64 [4, polynomial channels], constant term first.
    used = activation.effective(layer.coefficients, layer.degree, layer.floor)
    coefficients = np.asarray(used, np.float64)
    self.coefficients = np.broadcast_to(coefficients, (mask.size, 4))[self.polynomial].T

  def fold(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Degree 2 as (a y + b)^2 + K: a and b go into the polynomial channels' weights."""
    if self.degree != 2:
      return kernel, bias
    kernel, bias = kernel.copy(), bias.copy()
    block = slice(self.relu.size, None)
    _, linear, leading, _ = self.coefficients
    root = np.sqrt(leading)
    kernel[..., block] *= root
    bias[block] = bias[block] * root + linear / (2 * root)
    return kernel, bias

  @property
  def extra(self) -> int:
    """More weight bits for folded rows, whose scale is the root of the leading coefficient."""
    if self.degree != 2:
      return 0
    return max(0, math.ceil(-math.log2(np.sqrt(np.median(self.coefficients[2])))))

  def integers(self, fraction: int, lead: int, *, folded: bool) -> tuple[np.ndarray, int]:
    """Coefficients int64 [degree + 1, channels] for inputs of `fraction` bits.

    Also the fraction bits of the polynomial's value. `lead` is those of the
    leading coefficient, unless it is `folded` away.
    """
    constant, linear, leading, _ = self.coefficients
    if folded:
      constant = np.round((constant - linear**2 / (4 * leading)) * 4.0**fraction)
      return np.stack([constant, 0 * constant, 0 * constant + 1]).astype(np.int64), 2 * fraction
    value = self.degree * fraction + lead
    used = self.coefficients[: self.degree + 1]
    scales = 2.0 ** (value - fraction * np.arange(len(used)))
    return np.round(used * scales[:, None]).astype(np.int64), value

  def evaluate(self, y: np.ndarray) -> np.ndarray:
    """ReLU and polynomial blocks of values in `order`."""
    relu, z = np.split(y, [self.relu.size], axis=-1)
    value = sum(c * z**j for j, c in enumerate(self.coefficients)) if self.degree else z
    return np.concatenate([np.maximum(relu, 0), value], axis=-1)

"""What disappears into the weights before serving: batch norm, and square polynomials."""

import copy
import math

import numpy as np

from safenet_jax.approximation import activation
from safenet_jax.models import layers as records
from safenet_jax.models.network import Network


def fold_batch_norm(network: Network, variables) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """By linear layer: its float64 kernel [..., O] and bias [O], with batch norm in them.

  A batch norm that stands alone has the kernel of a depthwise convolution, [1, 1, 1, C], or on
  flat features the diagonal matrix [C, C].
  """
  params, stats = variables['params'], variables.get('batch_stats', {})
  folded = {}

  def norm(name, layer):
    parts = {k: np.asarray(v, np.float64) for k, v in (params[name] | stats[name]).items()}
    scale = parts['scale'] / np.sqrt(parts['var'] + layer.epsilon)
    return scale, parts['bias'] - parts['mean'] * scale

  for shape in records.shapes(network.layers, network.input_shape):
    name, layer = shape.name, shape.layer
    if isinstance(layer, records.BatchNorm):
      scale, bias = norm(name, layer)
      kernel = np.diag(scale) if len(shape.output_shape) == 1 else scale[None, None, None]
      folded[name] = kernel, bias
    elif isinstance(layer, records.Conv | records.Dense):
      kernel = np.asarray(params[name]['kernel'], np.float64)
      bias = np.asarray(params[name].get('bias', np.zeros(kernel.shape[-1])), np.float64)
      if layer.batch_norm:
        scale, offset = norm(f'{name}_bn', layer)
        kernel, bias = kernel * scale, bias * scale + offset
      folded[name] = kernel, bias
  return folded


class Split:
  """How one activation layer's channels are divided, by original index.

  total: how many channels the original network has here.
  relu, polynomial: the garbled channels and the polynomial ones; the rest is pruned.
  degree: of the polynomials, 0 where there are none.
  order: garbled channels first, then polynomial ones.
  coefficients: float64 [4, polynomial channels], constant term first.
  """

  def __init__(self, layer: activation.Approximation):
    if np.any(np.asarray(layer.blend)):
      raise ValueError(f'activation with blend {layer.blend}, want 0: finish the annealed switch')
    mask, degree = np.asarray(layer.mask), int(layer.degree)
    self.total = mask.size
    self.relu = np.flatnonzero(~mask)
    self.polynomial = np.flatnonzero(mask) if degree else np.zeros(0, np.int64)
    self.degree = degree if self.polynomial.size else 0
    self.order = np.concatenate([self.relu, self.polynomial])

    used = activation.effective(layer.coefficients, layer.degree, layer.floor)
    coefficients = np.asarray(used, np.float64)
    self.coefficients = np.broadcast_to(coefficients, (mask.size, 4))[self.polynomial].T

  def larger(self, factors: float | np.ndarray) -> 'Split':
    """The split of a layer whose inputs and outputs are larger by positive factors.

    They are one number, or one for each channel, [total]. For ReLUs nothing changes. A polynomial
    P(y) becomes s P(y / s).
    """
    found, s = copy.copy(self), np.broadcast_to(factors, (self.total,))[self.polynomial]
    found.coefficients = self.coefficients * s ** (1.0 - np.arange(4)[:, None])
    return found

  def fold(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Puts the scale and the shift of squares into the weights of the layer before.

    A polynomial c2 y^2 + c1 y + c0 equals (a y + b)^2 + K with a = sqrt(c2), b = c1 / (2 a)
    and K = c0 - b^2. With a and b in the weights, only a square and K are left to compute.
    Other degrees change nothing.

    Args:
      kernel: [..., O], with output channels in `order`.
      bias: [O].
    """
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
    """Additional fraction bits for the weights of polynomial channels after `fold`.

    There the weights are multiplied by a, the root of the leading coefficient. It is usually
    below 1, so that the weights need more bits after the point to be as precise.
    """
    if self.degree != 2:
      return 0
    return max(0, math.ceil(-math.log2(np.sqrt(np.median(self.coefficients[2])))))

  def integers(self, fraction: int, lead: int, *, folded: bool) -> tuple[np.ndarray, int]:
    """The polynomials in integers.

    Args:
      fraction: fraction bits of the input.
      lead: fraction bits of the leading coefficient; without meaning if `folded`.
      folded: whether the input is a y + b as `fold` has it. Then the leading coefficient
        is 1, the linear one 0 and the constant K.

    Returns:
      Coefficients int64 [degree + 1, polynomial channels], constant term first; and the
      fraction bits of the polynomial's value.
    """
    constant, linear, leading, _ = self.coefficients
    if folded:
      constant = np.round((constant - linear**2 / (4 * leading)) * 4.0**fraction)
      return np.stack([constant, 0 * constant, 0 * constant + 1]).astype(np.int64), 2 * fraction
    value = self.degree * fraction + lead
    used = self.coefficients[: self.degree + 1]
    scales = 2.0 ** (value - fraction * np.arange(len(used)))
    return np.round(used * scales[:, None]).astype(np.int64), value

  def evaluate(self, y: np.ndarray, layer: records.Activation) -> np.ndarray:
    """The activation in floats.

    Args:
      y: its inputs [..., C], with channels in `order`.
      layer: what the garbled channels are.
    """
    relu, z = np.split(y, [self.relu.size], axis=-1)
    value = sum(c * z**j for j, c in enumerate(self.coefficients)) if self.degree else z
    exact = np.where(relu < 0, layer.slope * relu, relu)
    exact = exact if layer.limit is None else np.minimum(exact, layer.limit)
    return np.concatenate([exact, value], axis=-1)

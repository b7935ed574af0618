"""From a trained, planned network to its fixed-point model.

Batch norm is folded into the weights, pruned channels are removed, the rest is
permuted so that garbled channels come first, and the formats of every layer are
chosen from calibration images, with room for values larger than those seen.
"""

import dataclasses
import math

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.models import layers as records
from safenet_jax.models.network import Network
from safenet_jax.protocol import folding
from safenet_jax.protocol.formats import (
  ActivationFormat,
  FixedPointModel,
  LinearWeights,
  Precision,
  RangeReport,
)

# Fraction bits to aim for in the leading coefficient of degree 3, which is small.
_LEAD_BITS = 16
# Most of an inference's chances to fail in a local truncation: 2^-20 is usual.
_TRUNCATION_FAILURE = 2.0**-10

_LIMIT = (1 << (ring.FIXED_POINT_BITS - 1)) - 1


def quantize(
  network: Network,
  variables,
  approximation,
  images: np.ndarray,
  *,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  precision: Precision | None = None,
) -> FixedPointModel:
  """The fixed-point model of a planned network.

  Args:
    network: its layer records.
    variables: trained params and batch_stats.
    approximation: per activation layer an `Approximation`.
    images: uint8 [B, H, W, C], calibration images that set the formats.
    mean, std: per channel, with which images are normalised.
    precision: bits to aim for.

  Raises:
    ValueError: the values do not fit the rings.
  """
  operations = _Calibration(network, variables, approximation, precision or Precision())
  normal = (images / 255.0 - np.asarray(mean)) / np.asarray(std)
  start = operations.start(normal)
  end = records.run(network.layers, operations, start)
  model = FixedPointModel(
    layers=tuple(operations.layers),
    input_shape=network.input_shape,
    mean=tuple(mean),
    std=tuple(std),
    precision=operations.precision,
    activations=operations.activations,
    linear=operations.linear,
    polynomials=operations.polynomials,
    absorbed=frozenset(name for name, _ in operations.pools.values()),
    input_fraction=start.fraction,
    output_fraction=end.fraction,
  )
  report = RangeReport()
  model.run(images[:16], report)
  if report.truncation_failure > _TRUNCATION_FAILURE:
    raise ValueError(
      f'local truncation fails with probability {report.truncation_failure:.2g} per image, want '
      f'at most {_TRUNCATION_FAILURE:.2g}: a ring of more than {model.precision.ring} bits'
    )
  return model


@dataclasses.dataclass(frozen=True)
class _Value:
  """Calibration values float64 [B, ..., C] on their way through the layers.

  channels: the original index of every channel that is left, in its new order.
  total: how many channels there were.
  fraction: fraction bits.
  """

  x: np.ndarray
  channels: np.ndarray
  total: int
  fraction: int


class _Calibration:
  """Operations that choose formats and integers while they run the float network."""

  def __init__(self, network, variables, approximation, precision: Precision):
    self.precision = precision
    self.folded = folding.fold_batch_norm(network, variables)
    self.splits = [folding.Split(layer) for layer in approximation]
    self.feeds = {
      name: split
      for names, split in zip(records.producers(network.layers), self.splits)
      for name in names
    }
    shapes = records.shapes(network.layers, network.input_shape)
    self.pools = {
      before.name: (after.name, records.window(after.layer, *after.input_shape[:2]))
      for before, after in zip(shapes, shapes[1:])
      if isinstance(before.layer, records.Activation)
      and isinstance(after.layer, records.AveragePool)
    }
    self.layers: list[records.Layer] = []
    self.activations: dict[str, ActivationFormat] = {}
    self.linear: dict[str, LinearWeights] = {}
    self.polynomials: dict[str, np.ndarray] = {}

  def start(self, normal: np.ndarray) -> _Value:
    fraction = self._fraction(normal, self.precision.activation)
    return _Value(normal, np.arange(normal.shape[-1]), normal.shape[-1], fraction)

  def _fraction(self, values: np.ndarray, wanted: int) -> int:
    """The most fraction bits up to `wanted` with which values fit 15 bits."""
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    return min(wanted, math.floor(math.log2(_LIMIT / largest)))

  def _linear(self, name, value, kernel, bias, stride, apply) -> _Value:
    """kernel [..., I, O] has only the input channels that are left."""
    split = self.feeds.get(name)
    order = np.arange(bias.size) if split is None else split.order
    if not order.size:
      raise ValueError(f'{name}: the plan prunes every channel, want at least one left')
    total, kernel, bias = bias.size, kernel[..., order], bias[order]
    x = apply(value.x, kernel) + bias
    extra = 0
    if split is not None:
      kernel, bias = split.fold(kernel, bias)
      extra = split.extra
    weight = self._fraction(kernel, self.precision.weight + extra) - extra
    fraction = value.fraction + weight
    bits = np.full(order.size, weight)
    if split is not None:
      bits[split.relu.size :] += extra
    integers = np.round(kernel * 2.0**bits).astype(np.int64)
    self.linear[name] = LinearWeights(
      integers,
      np.round(bias * 2.0 ** (value.fraction + bits)).astype(np.int64),
      stride,
      ring.limb_bits(integers),
    )
    return _Value(x, order, total, fraction)

  def conv(self, name, layer, value):
    kernel, bias = self.folded[name]
    result = self._linear(
      name,
      value,
      kernel[:, :, value.channels],
      bias,
      layer.stride,
      lambda x, w: ring.patches(np, x, w.shape[0], layer.stride) @ w.reshape(-1, w.shape[-1]),
    )
    self.layers.append(dataclasses.replace(layer, features=result.channels.size, batch_norm=False))
    return result

  def dense(self, name, layer, value):
    kernel, bias = self.folded[name]
    # Flattening interleaves channels: row (h W + w) C + c.
    positions = kernel.shape[0] // value.total
    rows = np.arange(positions)[:, None] * value.total + value.channels
    result = self._linear(name, value, kernel[rows.ravel()], bias, 1, np.matmul)
    self.layers.append(dataclasses.replace(layer, features=result.channels.size, batch_norm=False))
    return result

  def activation(self, name, layer, value):
    split = self.splits[len(self.activations)]
    precision, margin = self.precision, self.precision.margin
    _, window = self.pools.get(name, (None, 1))
    ring.window_bits(window)  # refuses windows whose mean is no shift
    z = split.evaluate(value.x)
    pooled = ring.sum_pool(z, window) / window**2 if window > 1 else z
    output = min(self._fraction(pooled, precision.activation), value.fraction)

    largest = float(np.abs(value.x[..., : split.relu.size]).max(initial=0.0)) * 2.0**value.fraction
    largest = max(largest, 1.0)
    dropped = value.fraction - output
    sign = math.ceil(math.log2(margin * largest + 2.0**dropped)) + 1
    select = math.ceil(math.log2(margin * largest * window**2 + 1)) + 2
    shift = modulus = fraction = 0
    if split.degree:
      wanted = precision.square if split.degree == 2 else precision.cubic
      modulus = ring.PRIME_41 if split.degree == 2 else ring.PRIME_50
      inputs = min(wanted, value.fraction + split.extra)
      largest_value = float(np.abs(z[..., split.relu.size :]).max()) * window**2
      # The last truncation is exact up to 32 bits in the cubic's field (ring.PRIME_50).
      lead = min(_LEAD_BITS, 32 + output - ring.window_bits(window) - 3 * inputs)
      integers, fraction = split.integers(inputs, lead)
      while margin * largest_value * 2.0**fraction >= modulus / 4:
        if split.degree == 3 and lead > _LEAD_BITS // 2:
          lead -= 1
        else:
          inputs -= 1
        if inputs < 0:
          raise ValueError(
            f'{name}: polynomial values up to {largest_value:.3g} do not fit {modulus}'
          )
        integers, fraction = split.integers(inputs, lead)
      shift = value.fraction + split.extra - inputs
      self.polynomials[name] = integers
    self.activations[name] = ActivationFormat(
      relu=split.relu.size,
      polynomial=split.polynomial.size,
      degree=split.degree,
      map_shape=value.x.shape[1:-1],
      window=window,
      input_fraction=value.fraction,
      sign_bits=sign,
      select_bits=max(select, sign, precision.select_ring),
      shift=shift,
      modulus=modulus,
      value_fraction=fraction,
      output_fraction=output,
    )
    self.activations[name].rescales(precision.ring)  # raises where they do not fit
    if self.activations[name].select_bits >= precision.ring:
      raise ValueError(
        f'{name}: values up to 2^{sign} do not fit the ring of {precision.ring} bits'
      )
    self.layers.append(layer)
    return dataclasses.replace(value, x=pooled, fraction=output)

  def average_pool(self, name, layer, value):
    if name in (pool for pool, _ in self.pools.values()):
      self.layers.append(layer)
      return value
    window = records.window(layer, *value.x.shape[1:3])
    # From here on the record names its window, a whole map's too.
    self.layers.append(dataclasses.replace(layer, window=window))
    bits = ring.window_bits(window)
    x = ring.sum_pool(value.x, window) / window**2
    return dataclasses.replace(value, x=x, fraction=value.fraction + bits)

  def flatten(self, name, layer, value):
    del name
    self.layers.append(layer)
    return dataclasses.replace(value, x=value.x.reshape(value.x.shape[0], -1))

"""Runs the float network on calibration images, and makes its integers on the way.

Pruned channels are neither computed nor read. Garbled channels come first. Before an
addition, a `Gather` gives both sides the same channels and fraction bits. Each party
can then add by adding its own shares.
"""

import dataclasses
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from safenet_jax.approximation import activation
from safenet_jax.crypto import ring
from safenet_jax.fixed_point import bit_widths, channel_order, folding, pooling
from safenet_jax.fixed_point.formats import ActivationFormat, Precision
from safenet_jax.fixed_point.model import LinearWeights
from safenet_jax.models import layers as records
from safenet_jax.models import windows

_LIMIT = (1 << (ring.FIXED_POINT_BITS - 1)) - 1
# An image is left out if its largest value is more than this many times the median image's.
_OUTLIER = 8.0
# Fraction bits that a value gets at least, where a factor of a mean is rounded.
_FACTOR_BITS = 8


class _Step(NamedTuple):
  """A served layer, and the step before it.

  Two sides of an addition follow their steps back to find where they part.
  """

  layer: records.Layer
  before: '_Step | None'


def layers_since(step: _Step | None, start: _Step | None) -> tuple[records.Layer, ...]:
  """The served layers after `start`, up to `step` itself.

  Args:
    step: the last step; None before the first layer.
    start: a step on the way to `step`; None for the network's input.
  """
  found: list[records.Layer] = []
  while step is not start and step is not None:
    found.append(step.layer)
    step = step.before
  return tuple(reversed(found))


@dataclasses.dataclass(frozen=True)
class Value:
  """Calibration values float64 [B, ..., C] on their way through the layers.

  x: the values, in floats.
  channels: the original index of every channel that is there, in the new order. The
    channels that are not there are zero.
  total: how many channels the original network has here.
  fraction: fraction bits of the integers that stand for x. Behind a mean of n values they are
    log2(n) more, which need not be whole: the weights of who reads them make up for that.
  step: the last served layer.
  folded: whether a square (a y + b)^2 + K has its a and b in the weights of the layer
    before. Then the integers of the polynomial channels are those of a y + b.
  """

  x: np.ndarray
  channels: np.ndarray
  total: int
  fraction: float
  step: _Step | None = None
  folded: bool = False

  def then(self, layer: records.Layer, **changes) -> 'Value':
    """This value after one more served layer."""
    return dataclasses.replace(self, step=_Step(layer, self.step), **changes)

  def arranged(self, channels: np.ndarray, fraction: float | None = None) -> 'Value':
    """This value with other channels, by original index, or with more fraction bits.

    If these are not whole bits more, it is multiplied by the nearest integer (`_common`).
    """
    more = 0 if fraction is None else fraction - self.fraction
    if not more and np.array_equal(channels, self.channels):
      return self
    place = {channel: i for i, channel in enumerate(self.channels.tolist())}
    index = tuple(place.get(channel, -1) for channel in channels.tolist())
    shift = int(more) if more == int(more) else 0
    return self.then(
      records.Gather(index, shift=shift, factor=1 if shift == more else round(2.0**more)),
      x=ring.gather(np, self.x, index),
      channels=channels,
      fraction=self.fraction if fraction is None else fraction,
    )


class Calibration:
  """Operations on a `Value` that choose formats and integers.

  layers: the network's records, in the order in which they are served.
  activations, absorbed: as in `PublicModel`.
  linear, polynomials: as in `FixedPointModel`.
  usual: bool [B], the images that no layer has left out.
  """

  def __init__(self, network, variables, approximation, precision: Precision):
    self.precision = precision
    self.folded = folding.fold_batch_norm(network, variables)
    splits = [folding.Split(layer) for layer in approximation]
    self.layers = channel_order.rectified_first(network.layers, splits)
    self.channels = channel_order.Channels(self.layers, splits)
    self.absorbed = frozenset(pool.name for pool in self.channels.pools.values())
    self.activations: dict[str, ActivationFormat] = {}
    self.linear: dict[str, LinearWeights] = {}
    self.polynomials: dict[str, np.ndarray] = {}
    self.additions = 0
    self.usual = np.zeros(0, bool)

  def start(self, normal: np.ndarray) -> Value:
    """The value at the input: normalised images, float64 [B, H, W, C]."""
    self.usual = np.ones(len(normal), bool)
    fraction = self._fraction(normal, self.precision.activation)
    return Value(normal, np.arange(normal.shape[-1]), normal.shape[-1], fraction)

  def _fraction(self, values: np.ndarray, wanted: int) -> int:
    """The most fraction bits, but not over `wanted`, with which the values fit 15 bits."""
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    return min(wanted, math.floor(math.log2(_LIMIT / largest)))

  def _without_outliers(self, x: np.ndarray) -> np.ndarray:
    """Values [B, ..., C] of a linear layer, in which no image is far beyond the others.

    An image is far beyond if its largest value here is more than `_OUTLIER` times that of
    the median image. It gets the median image's values from this layer on, and is no longer
    among the `usual` ones.

    The reason: with many polynomials in a row, the values of about one image in a hundred may
    grow without bound. Formats wide enough for that image would leave no fraction bits to the
    others, and the float network rarely finds its class either.
    """
    largest = np.abs(x).reshape(len(x), -1).max(-1)
    far = largest > _OUTLIER * np.median(largest)
    x[far] = x[np.argsort(largest)[len(x) // 2]]
    self.usual &= ~far
    return x

  def _linear(self, name, layer, value, kernel, bias, stride, apply) -> Value:
    """What conv and dense share.

    Args:
      name, layer, value: as of every operation.
      kernel: float64 [..., I, O], batch norm folded in, with only the input channels that
        are left.
      bias: float64 [O].
      stride: of a convolution, else 1.
      apply: computes the layer's product of values and a kernel.
    """
    order = self.channels.order(name, bias.size)
    split = self.channels.folded(name)
    if not order.size:
      raise ValueError(f'{name}: the plan prunes every channel, want at least one left')
    total, kernel, bias = bias.size, kernel[..., order], bias[order]
    x = self._without_outliers(apply(value.x, kernel) + bias)
    folds = split is not None and split.degree == 2
    extra = 0
    if split is not None and folds:
      kernel, bias = split.fold(kernel, bias)
      extra = split.extra
    weight = self._fraction(kernel, self.precision.weight + extra) - extra
    # The weights make up for the constant of a mean, so that the output's bits are whole.
    fraction = math.floor(value.fraction + weight)
    weight = fraction - value.fraction
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
    served = dataclasses.replace(layer, features=order.size, batch_norm=False)
    return value.then(served, x=x, channels=order, total=total, fraction=fraction, folded=folds)

  def conv(self, name, layer, value):
    kernel, bias = self.folded[name]

    def apply(x, w):
      return ring.patches(np, x, w.shape[0], layer.stride) @ w.reshape(-1, w.shape[-1])

    kept = kernel[:, :, value.channels]
    return self._linear(name, layer, value, kept, bias, layer.stride, apply)

  def dense(self, name, layer, value):
    kernel, bias = self.folded[name]
    return self._linear(name, layer, value, kernel[value.channels], bias, 1, np.matmul)

  def activation(self, name, layer, value):
    split = self.channels.split(name)
    if not split.order.size:
      raise ValueError(f'{name}: the plan prunes every channel, want at least one left')
    if split.total != value.total:
      raise ValueError(f'{name} has {value.total} channels, want the {split.total} of its plan')
    value = value.arranged(split.order, _whole(value.fraction))
    return self._activation(name, layer, value, split, self.channels.pools.get(name))

  def _activation(self, name, layer, value, split, pool) -> Value:
    """What activations and max pools alone share; the latter have a record that is None."""
    z = value.x if layer is None else split.evaluate(value.x, layer)
    pooled, more = z, 0.0
    if pool is not None and isinstance(pool.layer, records.MaxPool):
      pooled = pooling.maxima(z, pool.layer)
    elif pool is not None:
      pooled, bits = _means(z, pool.layer)
      more = bits - math.floor(bits)
    wanted = self._fraction(pooled * 2.0**more, self.precision.activation)
    output = min(wanted, int(value.fraction))
    choice = bit_widths.Choice(
      name,
      self.precision,
      split,
      value.x,
      z,
      int(value.fraction),
      output,
      pool,
      value.folded,
      layer,
    )
    self.activations[name], integers = choice.formats()
    if integers is not None:
      self.polynomials[name] = integers
    record = pool.layer if layer is None else layer
    return value.then(record, x=pooled, fraction=output + more if more else output, folded=False)

  def average_pool(self, name, layer, value):
    if name in self.absorbed:
      return value.then(layer)
    x, bits = _means(value.x, layer)
    return value.then(layer, x=x, fraction=value.fraction + bits)

  def max_pool(self, name, layer, value):
    if name in self.absorbed:
      return value.then(layer)
    value = value.arranged(value.channels, _whole(value.fraction))
    split = folding.Split(activation.all_relu(value.x.shape[-1:])[0])
    return self._activation(name, None, value, split, channel_order.Pool(name, layer))

  def flatten(self, name, layer, value):
    del name
    # Channel c of the position (h, w) becomes channel (h W + w) C + c.
    positions = math.prod(value.x.shape[1:-1])
    channels = (np.arange(positions)[:, None] * value.total + value.channels).ravel()
    x = value.x.reshape(value.x.shape[0], -1)
    return value.then(layer, x=x, channels=channels, total=positions * value.total)

  def pad_shortcut(self, name, layer, value):
    del name
    kept = records.Gather(tuple(range(value.channels.size)), stride=layer.stride)
    return value.then(
      kept,
      x=value.x[:, :: layer.stride, :: layer.stride],
      # The channels of zeros need not exist before something is added to them.
      channels=value.channels + (layer.features - value.total) // 2,
      total=layer.features,
    )

  def add(self, branch, shortcut):
    order = self.channels.order(f'add{self.additions}', branch.total)
    self.additions += 1
    fraction = _common([branch.fraction, shortcut.fraction])
    start = _parting(branch.step, shortcut.step)
    sides = [side.arranged(order, fraction) for side in (branch, shortcut)]
    block = records.Residual(*(layers_since(side.step, start) for side in sides))
    return Value(sides[0].x + sides[1].x, order, branch.total, fraction, _Step(block, start))

  def concat(self, values):
    fraction = _common([value.fraction for value in values])
    start = functools.reduce(_parting, [value.step for value in values])
    sides = [value.arranged(value.channels, fraction) for value in values]
    firsts = itertools.accumulate([0, *(side.total for side in sides)])
    return Value(
      np.concatenate([side.x for side in sides], axis=-1),
      np.concatenate([side.channels + first for side, first in zip(sides, firsts)]),
      sum(side.total for side in sides),
      fraction,
      _Step(records.Concat(tuple(layers_since(side.step, start) for side in sides)), start),
    )


def _means(x: np.ndarray, layer: records.AveragePool) -> tuple[np.ndarray, float]:
  """The means, and how many fraction bits the sums that stand for them have more."""
  divisor = pooling.divisor(layer, windows.of(layer, *x.shape[1:3]))
  whole = divisor.bit_length() - 1
  bits = whole if divisor == 1 << whole else math.log2(divisor)
  return pooling.sums(np, x, layer) / divisor, bits


def _common(fractions: list[float]) -> float:
  """Fraction bits that all of these values can have: the most of them, if all are whole.

  Others differ by a factor of a mean. They are multiplied by an integer near a power of two of
  that factor, which has eight bits or more, as weights have.
  """
  most = max(fractions)
  if all(most - fraction == int(most - fraction) for fraction in fractions):
    return most
  return math.ceil(most) + _FACTOR_BITS


def _whole(fraction: float) -> int:
  """Fraction bits that are whole, as `_common` has them."""
  return int(fraction) if fraction == int(fraction) else math.ceil(fraction) + _FACTOR_BITS


def _parting(branch: _Step | None, shortcut: _Step | None) -> _Step | None:
  """The last step that both sides of an addition have in common."""
  behind = set()
  while branch is not None:
    behind.add(id(branch))
    branch = branch.before
  while shortcut is not None and id(shortcut) not in behind:
    shortcut = shortcut.before
  return shortcut

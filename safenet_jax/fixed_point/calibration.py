"""Chooses formats from the values that calibration images have, and makes integers of the network.

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
from safenet_jax.fixed_point.statistics import Statistics
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
  """What is known of a value on its way through the layers.

  channels: the original index of every channel that is there, in the new order. The
    channels that are not there are zero.
  total: how many channels the original network has here.
  fraction: fraction bits of the integers that stand for it. Behind a mean of n values they are
    log2(n) more, which need not be whole: the weights of who reads them make up for that.
  step: the last served layer.
  folded: whether a square (a y + b)^2 + K has its a and b in the weights of the layer
    before. Then the integers of the polynomial channels are those of a y + b.
  """

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
      channels=channels,
      fraction=self.fraction if fraction is None else fraction,
    )


class Prepared(NamedTuple):
  """A float network, ready to be made one of integers.

  layers: its records, in the order in which they are served.
  input_shape: (H, W, C) of an image.
  folded: by linear layer, kernel and bias with batch norm in them.
  splits: of every activation, in the order in which the network is walked.
  statistics: how large its values are.
  """

  layers: tuple[records.Layer, ...]
  input_shape: tuple[int, ...]
  folded: dict[str, tuple[np.ndarray, np.ndarray]]
  splits: list[folding.Split]
  statistics: Statistics


class Calibration:
  """Operations on a `Value` that choose formats and integers.

  layers, input_shape, folded, statistics: as in `Prepared`.
  start: the value at the input.
  activations, absorbed: as in `PublicModel`.
  linear, polynomials: as in `FixedPointModel`.
  usual: bool [B], the images that no layer has left out.
  """

  def __init__(self, prepared: Prepared, precision: Precision):
    self.precision, self.folded, self.layers = precision, prepared.folded, prepared.layers
    self.input_shape, self.statistics = prepared.input_shape, prepared.statistics
    self.channels = channel_order.Channels(self.layers, prepared.splits)
    self.absorbed = frozenset(pool.name for pool in self.channels.pools.values())
    self.activations: dict[str, ActivationFormat] = {}
    self.linear: dict[str, LinearWeights] = {}
    self.polynomials: dict[str, np.ndarray] = {}
    self.additions = 0
    images, channels = self.statistics.largest['input'].shape
    self.usual = np.ones(images, bool)
    self._shapes = {s.name: s for s in records.shapes(self.layers, prepared.input_shape)}
    fraction = self._fraction(self.largest('input'), self.precision.activation)
    self.start = Value(np.arange(channels), channels, fraction)

  def largest(self, name: str, channels: slice | np.ndarray = slice(None)) -> float:
    """Of a value's channels, by original index, in all images that are usual so far."""
    return float(self.statistics.largest[name][self.usual][:, channels].max(initial=0.0))

  def _fraction(self, largest: float, wanted: int) -> int:
    """The most fraction bits, but not over `wanted`, with which values fit 15 bits."""
    return min(wanted, math.floor(math.log2(_LIMIT / (largest or 1.0))))

  def _leave_outliers(self, name: str, channels: np.ndarray) -> None:
    """Leaves out the images whose values in a linear layer are far beyond those of the others.

    An image is far beyond if its largest value here is more than `_OUTLIER` times that of
    the median image. From this layer on it is no longer among the `usual` ones.

    The reason: with many polynomials in a row, the values of about one image in a hundred may
    grow without bound. Formats wide enough for that image would leave no fraction bits to the
    others, and the float network rarely finds its class either.
    """
    largest = self.statistics.largest[name][:, channels].max(-1, initial=0.0)
    self.usual &= largest <= _OUTLIER * np.median(largest[self.usual])

  def _linear(self, name, layer, value, kernel, bias, stride) -> Value:
    """What conv and dense share.

    Args:
      name, layer, value: as of every operation.
      kernel: float64 [..., I, O], batch norm folded in, with only the input channels that
        are left.
      bias: float64 [O].
      stride: of a convolution, else 1.
    """
    order = self.channels.order(name, bias.size)
    split = self.channels.folded(name)
    if not order.size:
      raise ValueError(f'{name}: the plan prunes every channel, want at least one left')
    total, kernel, bias = bias.size, kernel[..., order], bias[order]
    self._leave_outliers(name, order)
    folds = split is not None and split.degree == 2
    extra = 0
    if split is not None and folds:
      kernel, bias = split.fold(kernel, bias)
      extra = split.extra
    largest = float(np.abs(kernel).max(initial=0.0))
    weight = self._fraction(largest, self.precision.weight + extra) - extra
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
    return value.then(served, channels=order, total=total, fraction=fraction, folded=folds)

  def conv(self, name, layer, value):
    kernel, bias = self.folded[name]
    return self._linear(name, layer, value, kernel[:, :, value.channels], bias, layer.stride)

  def dense(self, name, layer, value):
    kernel, bias = self.folded[name]
    return self._linear(name, layer, value, kernel[value.channels], bias, 1)

  def activation(self, name, layer, value):
    split = self.channels.split(name)
    if not split.order.size:
      raise ValueError(f'{name}: the plan prunes every channel, want at least one left')
    if split.total != value.total:
      raise ValueError(f'{name} has {value.total} channels, want the {split.total} of its plan')
    value = value.arranged(split.order)
    return self._activation(name, layer, value, split, self.channels.pools.get(name))

  def _activation(self, name, layer, value, split, pool) -> Value:
    """What activations and max pools alone share; for the latter `layer` is None."""
    # Integers whose bits are not whole stand for larger values with whole bits.
    fraction = math.floor(value.fraction)
    larger = 2.0 ** (value.fraction - fraction)
    split, exact = split.larger(larger), layer
    if layer is not None and layer.limit is not None:
      exact = dataclasses.replace(layer, limit=layer.limit * larger)
    before, order, more = self._shapes[name].input_shape, value.channels, 0.0
    garbled, polynomial = np.split(order, [split.relu.size])
    if pool is not None and isinstance(pool.layer, records.AveragePool):
      bits = _mean_bits(pool.layer, before)
      more = bits - math.floor(bits)
    pooled = larger * self.largest(pool.name if pool else name, order)
    output = min(self._fraction(pooled * 2.0**more, self.precision.activation), fraction)
    choice = bit_widths.Choice(
      name,
      self.precision,
      split,
      larger * self.largest(f'{name}/input', garbled),
      larger * self.largest(name, polynomial),
      before[:-1],
      fraction,
      output,
      pool,
      value.folded,
      exact,
    )
    self.activations[name], integers = choice.formats()
    if integers is not None:
      self.polynomials[name] = integers
    return value.then(
      layer or pool.layer, fraction=output + (value.fraction - fraction) + more, folded=False
    )

  def average_pool(self, name, layer, value):
    if name in self.absorbed:
      return value.then(layer)
    bits = _mean_bits(layer, self._shapes[name].input_shape)
    return value.then(layer, fraction=value.fraction + bits)

  def max_pool(self, name, layer, value):
    if name in self.absorbed:
      return value.then(layer)
    split = folding.Split(activation.all_relu((value.channels.size,))[0])
    return self._activation(name, None, value, split, channel_order.Pool(name, layer))

  def flatten(self, name, layer, value):
    # Channel c of the position (h, w) becomes channel (h W + w) C + c.
    positions = math.prod(self._shapes[name].input_shape[:-1])
    channels = (np.arange(positions)[:, None] * value.total + value.channels).ravel()
    return value.then(layer, channels=channels, total=positions * value.total)

  def pad_shortcut(self, name, layer, value):
    del name
    kept = records.Gather(tuple(range(value.channels.size)), stride=layer.stride)
    return value.then(
      kept,
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
    return Value(order, branch.total, fraction, _Step(block, start))

  def concat(self, values):
    fraction = _common([value.fraction for value in values])
    start = functools.reduce(_parting, [value.step for value in values])
    sides = [value.arranged(value.channels, fraction) for value in values]
    firsts = itertools.accumulate([0, *(side.total for side in sides)])
    return Value(
      np.concatenate([side.channels + first for side, first in zip(sides, firsts)]),
      sum(side.total for side in sides),
      fraction,
      _Step(records.Concat(tuple(layers_since(side.step, start) for side in sides)), start),
    )


def _mean_bits(layer: records.AveragePool, shape: tuple[int, ...]) -> float:
  """How many fraction bits the sums have that stand for means over a map (H, W, C)."""
  divisor = pooling.divisor(layer, windows.of(layer, *shape[:2]))
  whole = divisor.bit_length() - 1
  return whole if divisor == 1 << whole else math.log2(divisor)


def _common(fractions: list[float]) -> float:
  """Fraction bits that all of these values can have: the most of them, if all are whole.

  Others differ by a factor of a mean. They are multiplied by an integer near a power of two of
  that factor, which has eight bits or more, as weights have.
  """
  most = max(fractions)
  if all(most - fraction == int(most - fraction) for fraction in fractions):
    return most
  return math.ceil(most) + _FACTOR_BITS


def _parting(branch: _Step | None, shortcut: _Step | None) -> _Step | None:
  """The last step that both sides of an addition have in common."""
  behind = set()
  while branch is not None:
    behind.add(id(branch))
    branch = branch.before
  while shortcut is not None and id(shortcut) not in behind:
    shortcut = shortcut.before
  return shortcut

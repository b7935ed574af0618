"""Runs the float network on calibration images, and makes its integers on the way.

Pruned channels are neither computed nor read. Garbled channels come first. Before an
addition, a `Gather` gives both sides the same channels and fraction bits. Each party
can then add by adding its own shares.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.fixed_point import bit_widths, folding
from safenet_jax.fixed_point.channel_order import Channels
from safenet_jax.fixed_point.formats import ActivationFormat, Precision
from safenet_jax.fixed_point.model import LinearWeights, max_pool
from safenet_jax.models import layers as records

_LIMIT = (1 << (ring.FIXED_POINT_BITS - 1)) - 1
# An image is left out if its largest value is more than this many times the median image's.
_OUTLIER = 8.0


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
  fraction: fraction bits of the integers that stand for x.
  step: the last served layer.
  folded: whether a square (a y + b)^2 + K has its a and b in the weights of the layer
    before. Then the integers of the polynomial channels are those of a y + b.
  """

  x: np.ndarray
  channels: np.ndarray
  total: int
  fraction: int
  step: _Step | None = None
  folded: bool = False

  def then(self, layer: records.Layer, **changes) -> 'Value':
    """This value after one more served layer."""
    return dataclasses.replace(self, step=_Step(layer, self.step), **changes)

  def arranged(self, channels: np.ndarray, fraction: int | None = None) -> 'Value':
    """This value with other channels, by original index, or with more fraction bits."""
    shift = 0 if fraction is None else fraction - self.fraction
    if not shift and np.array_equal(channels, self.channels):
      return self
    place = {channel: i for i, channel in enumerate(self.channels.tolist())}
    index = tuple(place.get(channel, -1) for channel in channels.tolist())
    return self.then(
      records.Gather(index, shift=shift),
      x=ring.gather(np, self.x, index),
      channels=channels,
      fraction=self.fraction + shift,
    )


class Calibration:
  """Operations on a `Value` that choose formats and integers.

  activations, absorbed: as in `PublicModel`.
  linear, polynomials: as in `FixedPointModel`.
  usual: bool [B], the images that no layer has left out.
  """

  def __init__(self, network, variables, approximation, precision: Precision):
    self.precision = precision
    self.folded = folding.fold_batch_norm(network, variables)
    self.channels = Channels(
      network.layers, network.input_shape, [folding.Split(layer) for layer in approximation]
    )
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
    return value.then(
      served, x=x, channels=order, total=total, fraction=value.fraction + weight, folded=folds
    )

  def conv(self, name, layer, value):
    kernel, bias = self.folded[name]

    def apply(x, w):
      return ring.patches(np, x, w.shape[0], layer.stride) @ w.reshape(-1, w.shape[-1])

    kept = kernel[:, :, value.channels]
    return self._linear(name, layer, value, kept, bias, layer.stride, apply)

  def dense(self, name, layer, value):
    kernel, bias = self.folded[name]
    # After flattening, channel c of the position (h, w) is row (h W + w) C + c.
    positions = kernel.shape[0] // value.total
    rows = np.arange(positions)[:, None] * value.total + value.channels
    return self._linear(name, layer, value, kernel[rows.ravel()], bias, 1, np.matmul)

  def activation(self, name, layer, value):
    split = self.channels.splits[len(self.activations)]
    if not split.order.size:
      raise ValueError(f'{name}: the plan prunes every channel, want at least one left')
    if split.total != value.total or value.x.shape[-1] != value.channels.size:
      raise ValueError(
        f'{name} has {value.x.shape[-1]} channels, want the {split.total} that its plan is for, '
        'not flattened'
      )
    value = value.arranged(split.order)
    pool = self.channels.pools.get(name)
    z = split.evaluate(value.x)
    if pool is None:
      pooled = z
    elif pool.maximum:
      if split.degree:
        raise ValueError(
          f'{name}: {split.polynomial.size} polynomial channels of degree {split.degree} reach '
          f'{pool.name}, want garbled or pruned ones only: no circuit has their maximum'
        )
      pooled = max_pool(z, pool.window)
    else:
      pooled = ring.sum_pool(z, pool.window) / pool.window**2
    output = min(self._fraction(pooled, self.precision.activation), value.fraction)
    choice = bit_widths.Choice(
      name, self.precision, split, value.x, z, value.fraction, output, pool, value.folded
    )
    self.activations[name], integers = choice.formats()
    if integers is not None:
      self.polynomials[name] = integers
    return value.then(layer, x=pooled, fraction=output, folded=False)

  def average_pool(self, name, layer, value):
    if name in self.absorbed:
      return value.then(layer)
    window = records.window(layer, *value.x.shape[1:3])
    bits = ring.window_bits(window)
    x = ring.sum_pool(value.x, window) / window**2
    # From here on the record has its window as a number, also where it is the whole map.
    layer = dataclasses.replace(layer, window=window)
    return value.then(layer, x=x, fraction=value.fraction + bits)

  def max_pool(self, name, layer, value):
    del name  # it is part of an activation: `Channels` refuses all other max pools
    return value.then(layer)

  def flatten(self, name, layer, value):
    del name
    return value.then(layer, x=value.x.reshape(value.x.shape[0], -1))

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
    fraction = max(branch.fraction, shortcut.fraction)
    start = _parting(branch.step, shortcut.step)
    sides = [side.arranged(order, fraction) for side in (branch, shortcut)]
    block = records.Residual(*(layers_since(side.step, start) for side in sides))
    return Value(sides[0].x + sides[1].x, order, branch.total, fraction, _Step(block, start))


def _parting(branch: _Step | None, shortcut: _Step | None) -> _Step | None:
  """The last step that both sides of an addition have in common."""
  behind = set()
  while branch is not None:
    behind.add(id(branch))
    branch = branch.before
  while shortcut is not None and id(shortcut) not in behind:
    shortcut = shortcut.before
  return shortcut

"""Runs the float network on calibration images, and makes its integers on the way.

Pruned channels are neither computed nor read. Garbled channels come first. Before an
addition, a `Gather` gives both sides the same channels and fraction bits. Each party
can then add by adding its own shares.

Where a plan prunes all channels of an activation, what follows is the same for all images. It
goes on as floats, and no layer is served for it. Only where it is added to a value that
depends on the image, or at the end, it becomes a `Constant`.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.fixed_point import bit_widths, folding, fusing, rings
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

  names: what the network calls the layer, or all layers of a block in walking order. What is in
    the served model only has a name of its own, or ''.
  """

  layer: records.Layer
  names: tuple[str, ...]
  before: '_Step | None'


def steps_since(step: _Step | None, start: _Step | None) -> list[_Step]:
  """The steps after `start`, up to `step` itself, without those that a constant replaces.

  Args:
    step: the last step; None before the first layer.
    start: a step on the way to `step`; None for the network's input.
  """
  found: list[_Step] = []
  while step is not start and step is not None:
    found.append(step)
    step = start if isinstance(step.layer, records.Constant) else step.before
  return found[::-1]


@dataclasses.dataclass(frozen=True)
class Value:
  """Calibration values float64 [B, ..., C] on their way through the layers.

  x: the values, in floats.
  channels: the original index of every channel that is there, in the new order. The
    channels that are not there are zero.
  total: how many channels the original network has here.
  fraction: fraction bits of the integers that stand for x.
  step: the last served layer.
  linear: whether a linear layer's output is in it, with no activation behind.
  constant: whether it does not depend on the image. Then all channels are there, in the
    original order.
  folded: whether a square (a y + b)^2 + K has its a and b in the weights of the layer
    before. Then the integers of the polynomial channels are those of a y + b.
  """

  x: np.ndarray
  channels: np.ndarray
  total: int
  fraction: int
  step: _Step | None = None
  linear: bool = False
  constant: bool = False
  folded: bool = False

  def then(self, layer: records.Layer, name: str = '', **changes) -> 'Value':
    """This value after one more served layer; `name` is that of `_Step`."""
    return dataclasses.replace(self, step=_Step(layer, (name,), self.step), **changes)

  def arranged(self, channels: np.ndarray, fraction: int | None = None) -> 'Value':
    """This value with other channels, by original index, or with more fraction bits."""
    shift = 0 if fraction is None else fraction - self.fraction
    if not shift and np.array_equal(channels, self.channels):
      return self
    index = _places(self.channels, channels)
    return self.then(
      records.Gather(index, shift=shift),
      x=ring.gather(np, self.x, index),
      channels=channels,
      fraction=self.fraction + shift,
    )


class Calibration:
  """Operations on a `Value` that choose formats and integers.

  activations, absorbed: as in `PublicModel`.
  layers: of the network, its batch norms and some linear layers fused (`fusing`).
  linear, polynomials, constants: as in `FixedPointModel`. Names are those of `layers`.
  usual: bool [B], the images that no layer has left out.
  """

  def __init__(self, network, variables, approximation, precision: Precision):
    self.precision = precision
    folded = folding.fold_batch_norm(network, variables)
    self.layers, self.folded = fusing.fuse(network, folded)
    shapes = records.shapes(self.layers, network.input_shape)
    self._shapes = {shape.name: shape.output_shape for shape in shapes}
    self.channels = Channels(
      self.layers, network.input_shape, [folding.Split(layer) for layer in approximation]
    )
    self.absorbed = frozenset(pool.name for pool in self.channels.pools.values())
    self.activations: dict[str, ActivationFormat] = {}
    self.linear: dict[str, LinearWeights] = {}
    self.polynomials: dict[str, np.ndarray] = {}
    self.constants: dict[str, np.ndarray] = {}
    self.additions = 0
    self.usual = np.zeros(0, bool)

  def start(self, normal: np.ndarray) -> Value:
    """The value at the input: normalised images, float64 [B, H, W, C]."""
    self.usual = np.ones(len(normal), bool)
    fraction = self._fraction(normal, self.precision.activation)
    return Value(normal, np.arange(normal.shape[-1]), normal.shape[-1], fraction)

  def finish(self, end: Value) -> Value:
    """The value of the logits, in the network's order, and with a layer for it."""
    if end.constant:
      return self._made(end, self.precision.activation + self.precision.weight)
    return end.arranged(np.arange(end.total)) if end.x.shape[-1] == end.channels.size else end

  def split(self, name: str) -> folding.Split:
    """How the channels of an activation layer are divided."""
    return self.channels.splits[int(name.removeprefix('activation'))]

  def _constant(self, value: Value, x: np.ndarray) -> Value:
    """A value x [B, ..., C] that does not depend on the image; it has no layer yet."""
    total = x.shape[-1]
    return dataclasses.replace(value, x=x, channels=np.arange(total), total=total, constant=True)

  def _nothing(self, value: Value, name: str) -> Value:
    """Zeros in the place of what a layer would make."""
    return self._constant(value, np.zeros((len(value.x), *self._shapes[name])))

  def _made(self, value: Value, fraction: int, channels: np.ndarray | None = None) -> Value:
    """A constant with these of its channels, or all, as a layer of the served model."""
    channels = value.channels if channels is None else channels
    x, name = value.x[..., channels], f'constant {len(self.constants)}'
    self.constants[name] = np.round(x[0] * 2.0**fraction).astype(np.int64)
    made = records.Constant(x.shape[1:])
    return value.then(
      made, name, x=x, channels=channels, fraction=fraction, linear=False, constant=False
    )

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

  def _scaled(self, layer, x, kernel, bias, apply) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and bias that a linear layer is served with, of its input x; see `_linear`."""
    del layer, x, apply
    return kernel, bias

  def _linear(self, name, layer, value, kernel, bias, apply, outputs=None) -> Value:
    """What conv and dense share.

    Args:
      name, layer, value: as of every operation.
      kernel: float64 [..., I, O], batch norm folded in, with only the input channels that
        are left.
      bias: float64 [O].
      apply: computes the layer's product of values and a kernel.
      outputs: the channels that the layer makes, in their order: by default those that are
        read. Others among them mean nothing.
    """
    order, split = self.channels.order(name, bias.size), self.channels.folded(name)
    outputs = order if outputs is None else outputs
    total, kernel, bias = bias.size, kernel[..., outputs], bias[outputs]
    kernel, bias = self._scaled(layer, value.x, kernel, bias, apply)
    x = self._without_outliers(apply(value.x, kernel) + bias)
    folds = split is not None and split.degree == 2
    extra, more = 0, np.zeros(outputs.size, np.int64)
    if split is not None and folds:
      # Where each channel is that is read, and the other way round.
      of_order, of_outputs = _places(outputs, order), _places(order, outputs)
      folded = split.fold(ring.gather(np, kernel, of_order), bias[list(of_order)])
      kernel, bias = (ring.gather(np, array, of_outputs) for array in folded)
      extra = split.extra
      own = np.repeat([0, extra], [split.relu.size, split.polynomial.size])
      more = ring.gather(np, own, of_outputs)
    weight = self._fraction(kernel, self.precision.weight + extra) - extra
    bits = weight + more
    value = self._shortened(name, value, x, weight)
    integers = np.round(kernel * 2.0**bits).astype(np.int64)
    self.linear[name] = LinearWeights(
      integers,
      np.round(bias * 2.0 ** (value.fraction + bits)).astype(np.int64),
      ring.limb_bits(integers),
    )
    served = dataclasses.replace(layer, features=outputs.size, batch_norm=False)
    return value.then(
      served,
      name,
      x=x,
      channels=outputs,
      total=total,
      fraction=value.fraction + weight,
      linear=True,
      folded=folds,
    )

  def _shortened(self, name: str, value: Value, x: np.ndarray, weight: int) -> Value:
    """A linear layer's input, without low bits where its output x would take too many.

    `weight` are the fraction bits that the layer adds. To drop bits takes the widest ring for
    what is read. So it is done only if the layer would take that ring too.
    """
    fraction = self._fraction(value.x, self.precision.activation)
    largest = float(np.abs(x).max(initial=0.0)) * 2.0 ** (value.fraction + weight)
    largest *= self.precision.margin * self.channels.window(name) ** 2
    bits = math.ceil(math.log2(largest + 1)) + 2  # as for `select_bits` in `bit_widths`
    fits = bits <= rings.NARROW[-1] and not self.channels.polynomial(name)
    if not value.linear or fits or fraction >= value.fraction:
      return value
    return value.then(records.Truncate(value.fraction - fraction), fraction=fraction)

  def conv(self, name, layer, value):
    kernel, bias = self.folded[name]
    order, outputs = self.channels.order(name, bias.size), None
    if not order.size:
      return self._nothing(value, name)
    if layer.groups > 1 and not value.constant:
      inputs, outputs = _grouped(layer, value, order)
      value = value.arranged(inputs)
      groups = outputs.size // (layer.features // layer.groups)
      layer = dataclasses.replace(layer, groups=groups, features=outputs.size)
    else:
      kernel = kernel[:, :, value.channels] if layer.groups == 1 else kernel

    def apply(x, w):
      return ring.convolve_by(np.matmul, np, x, w, layer)

    if value.constant:
      return self._constant(value, apply(value.x, kernel) + bias)
    return self._linear(name, layer, value, kernel, bias, apply, outputs)

  def dense(self, name, layer, value):
    kernel, bias = self.folded[name]
    if value.constant:
      return self._constant(value, value.x @ kernel + bias)
    if not self.channels.order(name, bias.size).size:
      return self._nothing(value, name)
    # After flattening, channel c of the position (h, w) is row (h W + w) C + c.
    positions = kernel.shape[0] // value.total
    rows = np.arange(positions)[:, None] * value.total + value.channels
    return self._linear(name, layer, value, kernel[rows.ravel()], bias, np.matmul)

  def activation(self, name, layer, value):
    split = self.split(name)
    if split.total != value.total or value.x.shape[-1] != value.channels.size:
      raise ValueError(
        f'{name} has {value.x.shape[-1]} channels, want the {split.total} that its plan is for, '
        'not flattened'
      )
    if value.constant or not split.order.size:
      return self._of_constant(name, value, split)
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
    return value.then(layer, name, x=pooled, fraction=output, linear=False, folded=False)

  def _of_constant(self, name: str, value: Value, split: folding.Split) -> Value:
    """An activation, with its pool, of what does not depend on the image; or of no channels."""
    z = np.zeros_like(value.x, shape=(*value.x.shape[:-1], split.total))
    if value.constant:
      z[..., split.order] = split.evaluate(value.x[..., split.order])
    pool = self.channels.pools.get(name)
    if pool is not None:
      z = max_pool(z, pool.window) if pool.maximum else ring.sum_pool(z, pool.window)
      z = z if pool.maximum else z / pool.window**2
    return self._constant(value, z)

  def average_pool(self, name, layer, value):
    if name in self.absorbed:
      return value if value.constant else value.then(layer, name)
    window = records.window(layer, *value.x.shape[1:3])
    bits = ring.window_bits(window)
    x = ring.sum_pool(value.x, window) / window**2
    if value.constant:
      return self._constant(value, x)
    # From here on the record has its window as a number, also where it is the whole map.
    layer = dataclasses.replace(layer, window=window)
    return value.then(layer, name, x=x, fraction=value.fraction + bits)

  def max_pool(self, name, layer, value):
    # It is part of an activation: `Channels` refuses all other max pools.
    return value if value.constant else value.then(layer, name)

  def flatten(self, name, layer, value):
    x = value.x.reshape(value.x.shape[0], -1)
    return self._constant(value, x) if value.constant else value.then(layer, name, x=x)

  def pad_shortcut(self, name, layer, value):
    before = (layer.features - value.total) // 2
    if value.constant:
      found = self._nothing(value, name)
      inside = slice(before, before + value.total)
      found.x[..., inside] = value.x[:, :: layer.stride, :: layer.stride]
      return found
    kept = records.Gather(tuple(range(value.channels.size)), stride=layer.stride)
    return value.then(
      kept,
      x=value.x[:, :: layer.stride, :: layer.stride],
      # The channels of zeros need not exist before something is added to them.
      channels=value.channels + before,
      total=layer.features,
    )

  def add(self, branch, shortcut):
    order = self.channels.order(f'add{self.additions}', branch.total)
    self.additions += 1
    if branch.constant and shortcut.constant:
      return self._constant(shortcut, branch.x + shortcut.x)
    start = _parting(branch.step, shortcut.step)
    for side, other in ((branch, shortcut), (shortcut, branch)):
      if side.constant and not side.x.any():
        return other.arranged(order)
    branch, shortcut = (
      self._made(side, other.fraction, order) if side.constant else side
      for side, other in ((branch, shortcut), (shortcut, branch))
    )
    fraction = max(branch.fraction, shortcut.fraction)
    sides = [side.arranged(order, fraction) for side in (branch, shortcut)]
    steps = [steps_since(side.step, start) for side in sides]
    block = records.Residual(*(tuple(step.layer for step in side) for side in steps))
    names = tuple(name for side in steps for step in side for name in step.names)
    return Value(
      sides[0].x + sides[1].x,
      order,
      branch.total,
      fraction,
      _Step(block, names, start),
      linear=branch.linear or shortcut.linear,
    )


def _places(channels: np.ndarray, wanted: np.ndarray) -> tuple[int, ...]:
  """Where each wanted channel is among these; -1 for one that is not there."""
  place = {channel: i for i, channel in enumerate(channels.tolist())}
  return tuple(place.get(channel, -1) for channel in wanted.tolist())


def _grouped(layer: records.Conv, value: Value, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The inputs and the outputs, by original index, of the groups that are served.

  Args:
    layer: a convolution of several groups.
    value: its input.
    order: the outputs that are read.
  """
  inputs, outputs = value.total // layer.groups, layer.features // layer.groups
  groups = np.unique(order // outputs)
  if inputs == outputs == 1:
    # In the order of the inputs, so that these stay as they are.
    there = value.channels[np.isin(value.channels, groups)]
    groups = np.concatenate([there, groups[~np.isin(groups, there)]])
    return groups, groups
  each = groups[:, None]
  return (
    (each * inputs + np.arange(inputs)).ravel(),
    (each * outputs + np.arange(outputs)).ravel(),
  )


def _parting(branch: _Step | None, shortcut: _Step | None) -> _Step | None:
  """The last step that both sides of an addition have in common."""
  behind = set()
  while branch is not None:
    behind.add(id(branch))
    branch = branch.before
  while shortcut is not None and id(shortcut) not in behind:
    shortcut = shortcut.before
  return shortcut

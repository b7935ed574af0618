"""Chooses formats from the values that calibration images have, and makes integers of the network.

Pruned channels are neither computed nor read. Garbled channels come first. Before an
addition, a `Gather` gives both sides the same channels and fraction bits. Each party
can then add by adding its own shares.

Where a plan prunes all channels of an activation, what follows is the same for all images. It
goes on as floats, and no layer is served for it. Only where it is added to a value that
depends on the image, or at the end, it becomes a `Constant`.
"""

import dataclasses
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from safenet_jax.approximation import activation
from safenet_jax.crypto import ring
from safenet_jax.fixed_point import pooling, products, rings
from safenet_jax.fixed_point.formats import ActivationFormat, Precision
from safenet_jax.fixed_point.model import LinearWeights
from safenet_jax.models import layers as records
from safenet_jax.models import windows
from safenet_jax.quantization import (
  bit_widths,
  channel_order,
  folding,
  values,
  weight_bits,
)
from safenet_jax.quantization.statistics import Statistics
from safenet_jax.quantization.values import Value

_LIMIT = (1 << (ring.FIXED_POINT_BITS - 1)) - 1
# An image is left out if its largest value is more than this many times the median image's.
_OUTLIER = 8.0


class Prepared(NamedTuple):
  """A float network, ready to be made one of integers.

  layers: its records, in the order in which they are served.
  input_shape: (H, W, C) of an image.
  folded: by linear layer, kernel and bias with batch norm in them.
  splits: of every activation, in the order in which the network is walked.
  statistics: how large its values are.
  """

  layers: tuple[records.Layer, ...]
  input_shape: tuple[int, int, int]
  folded: dict[str, tuple[np.ndarray, np.ndarray]]
  splits: list[folding.Split]
  statistics: Statistics


class Calibration:
  """Operations on a `Value` that choose formats and integers.

  layers, input_shape, folded, statistics: as in `Prepared`.
  start: the value at the input.
  activations, absorbed: as in `PublicModel`.
  linear, polynomials, constants: as in `FixedPointModel`. Names are those of `layers`.
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
    self.constants: dict[str, np.ndarray] = {}
    self.additions = 0
    images, channels = self.statistics.largest['input'].shape
    self.usual = np.ones(images, bool)
    self._shapes = {s.name: s for s in records.shapes(self.layers, self.input_shape)}
    largest = self.largest('input')
    fraction = self._fraction(largest, self.precision.activation)
    self.start = Value(np.arange(channels), channels, largest, fraction)

  def largest(self, name: str, channels: slice | np.ndarray = slice(None)) -> float:
    """Of a value's channels, by original index, in all images that are usual so far."""
    return float(self.statistics.largest[name][self.usual][:, channels].max(initial=0.0))

  def finish(self, end: Value) -> Value:
    """The value of the logits, in the network's order, and with a layer for it."""
    if end.constant is not None:
      return self._made(end, self.precision.activation + self.precision.weight)
    return end.arranged(np.arange(end.total))

  def _nothing(self, value: Value, name: str) -> Value:
    """Zeros in the place of what a layer would make."""
    return value.always(np.zeros((1, *self._shapes[name].output_shape)))

  def _made(self, value: Value, fraction: float, channels: np.ndarray | None = None) -> Value:
    """A value that has a layer: for a constant one with these of its channels, or all."""
    if value.constant is None:
      return value
    channels = value.channels if channels is None else channels
    x, name = value.constant[..., channels], f'constant {len(self.constants)}'
    self.constants[name] = np.round(x[0] * 2.0**fraction).astype(np.int64)
    made = records.Constant(x.shape[1:])
    return value.then(made, name, channels=channels, fraction=fraction, linear=False, constant=None)

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

  def _linear(self, name, layer, value, kernel, bias, outputs=None) -> Value:
    """What conv and dense share.

    Args:
      name, layer, value: as of every operation.
      kernel: float64 [..., I, O], batch norm folded in, with only the input channels that
        are left.
      bias: float64 [O].
      outputs: the channels that the layer makes, in their order: by default those that are
        read. Others among them mean nothing.
    """
    order, split = self.channels.order(name, bias.size), self.channels.folded(name)
    outputs = order if outputs is None else outputs
    total, kernel, bias = bias.size, kernel[..., outputs], bias[outputs]
    self._leave_outliers(name, outputs)
    made = self.largest(name, outputs)
    folds = split is not None and split.degree == 2
    extra, more = 0, np.zeros(outputs.size, np.int64)
    if split is not None and folds:
      # Where each channel is that is read, and the other way round.
      of_order, of_outputs = values.places(outputs, order), values.places(order, outputs)
      folded = split.fold(ring.gather(np, kernel, of_order), bias[list(of_order)])
      kernel, bias = (ring.gather(np, array, of_outputs) for array in folded)
      extra = split.extra
      own = np.repeat([0, extra], [split.relu.size, split.polynomial.size])
      more = ring.gather(np, own, of_outputs)
    wanted = weight_bits.choose(
      kernel,
      value.fraction,
      self._becomes(name),
      self.precision.weight + extra,
      [bits for bits in rings.NARROW if bits < self.precision.ring],
    )
    weight = self._fraction(float(np.abs(kernel).max(initial=0.0)), wanted)
    value = self._shortened(name, value, made, weight - extra)
    # The weights make up for the constant of a mean, so that the output's bits are whole.
    fraction = math.floor(value.fraction + weight - extra)
    bits = fraction - value.fraction + more
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
      channels=outputs,
      total=total,
      largest=made,
      fraction=fraction,
      linear=True,
      folded=folds,
    )

  def _becomes(self, name: str) -> list[weight_bits.Reader]:
    """What a linear layer's output becomes, if that is known, and if more bits do no harm.

    Of what becomes a polynomial, each more bit would double the failures of local truncation.
    """
    found = self.channels.readers(name)
    others = [self.channels.readers(other) for other in found.linear]
    if not found.all or not all(other.all and not other.linear for other in others):
      return []
    if any(self.channels.polynomial(each) for each in (name, *found.linear)):
      return []
    becomes = [weight_bits.Reader(self._selected(each)) for each in found.activations]
    for other in others:
      becomes += [weight_bits.Reader(self._selected(each), True) for each in other.activations]
    if found.end or any(other.end for other in others):
      logits = self.precision.margin * self.largest('logits')
      becomes.append(weight_bits.Reader(logits, not found.end))
    return becomes

  def _selected(self, activation: str) -> float:
    """The largest value that is selected behind a ReLU, with the margin: maybe that of a sum."""
    found = self._shapes[activation].layer
    layer = found if isinstance(found, records.Activation) else records.Activation()
    _, slope_bits = bit_widths.slope_of(layer.slope)
    largest = self.precision.margin * self.largest(f'{activation}/input')
    # A sign test takes the limit off, and needs a bit less than the selection.
    largest = max(largest, (largest + (layer.limit or 0.0)) / 2)
    return largest * self._divisor(self.channels.pools.get(activation)) * 2.0**slope_bits

  def _shortened(self, name: str, value: Value, made: float, weight: int) -> Value:
    """A linear layer's input, without low bits where its output would take too many.

    `made` is the output's largest value, `weight` are the fraction bits that the layer adds. To
    drop bits takes the widest ring for what is read. So it is done only if the layer would take
    that ring too.
    """
    drop = math.floor(value.fraction) - self._fraction(value.largest, self.precision.activation)
    most = made * 2.0 ** (value.fraction + weight) * self.precision.margin * self._sum(name)
    bits = math.ceil(math.log2(most + 1)) + 2  # as for `select_bits` in `bit_widths`
    fits = bits <= rings.NARROW[-1] and not self.channels.polynomial(name)
    if not value.linear or fits or drop <= 0:
      return value
    return value.then(records.Truncate(drop), fraction=value.fraction - drop)

  def _sum(self, name: str) -> int:
    """Of how many values a pool makes a sum whose activation reads a linear layer, else 1."""
    return max((self._divisor(pool) for pool in self.channels.pools_behind(name)), default=1)

  def _divisor(self, pool: channel_order.Pool | None) -> int:
    """By what the sums of a pool are divided to be means, 1 without one."""
    if pool is None or isinstance(pool.layer, records.MaxPool):
      return 1
    found = windows.of(pool.layer, *self._shapes[pool.name].input_shape[:2])
    return pooling.divisor(pool.layer, found)

  def conv(self, name, layer, value):
    kernel, bias = self.folded[name]
    order, outputs = self.channels.order(name, bias.size), None
    if not order.size:
      return self._nothing(value, name)
    if value.constant is not None:
      return value.always(products.convolve(value.constant, kernel, layer) + bias)
    if layer.groups > 1:
      inputs, outputs = _grouped(layer, value, order)
      value = value.arranged(inputs)
      groups = outputs.size // (layer.features // layer.groups)
      layer = dataclasses.replace(layer, groups=groups, features=outputs.size)
    else:
      kernel = kernel[:, :, value.channels]
    return self._linear(name, layer, value, kernel, bias, outputs)

  def dense(self, name, layer, value):
    kernel, bias = self.folded[name]
    if value.constant is not None:
      return value.always(value.constant @ kernel + bias)
    if not self.channels.order(name, bias.size).size:
      return self._nothing(value, name)
    return self._linear(name, layer, value, kernel[value.channels], bias)

  def activation(self, name, layer, value):
    split, pool = self.channels.split(name), self.channels.pools.get(name)
    if value.constant is not None or not split.order.size:
      return self._of_constant(name, layer, value, split, pool)
    return self._activation(name, layer, value.arranged(split.order), split, pool)

  def _of_constant(self, name, layer, value, split, pool) -> Value:
    """An activation, with its pool, of what does not depend on the image; or of no channels."""
    z = np.zeros((1, *self._shapes[name].output_shape))
    if value.constant is not None:
      z[..., split.order] = split.evaluate(value.constant[..., split.order], layer)
    return value.always(z if pool is None else _pooled(z, pool.layer))

  def _activation(self, name, layer, value, split, pool) -> Value:
    """What activations and max pools alone share; for the latter `layer` is None."""
    # Integers whose bits are not whole stand for larger values with whole bits.
    fraction = math.floor(value.fraction)
    larger = 2.0 ** (value.fraction - fraction)
    split, exact = split.larger(larger), layer
    if layer is not None and layer.limit is not None:
      exact = dataclasses.replace(layer, limit=layer.limit * larger)
    order = value.channels
    garbled, polynomial = np.split(order, [split.relu.size])
    bits = _bits(self._divisor(pool))
    more = bits - math.floor(bits)
    pooled = self.largest(pool.name if pool else name, order)
    wanted = self._fraction(larger * pooled * 2.0**more, self.precision.activation)
    output = min(wanted, fraction)
    choice = bit_widths.Choice(
      name,
      self.precision,
      split,
      larger * self.largest(f'{name}/input', garbled),
      larger * self.largest(name, polynomial),
      self._shapes[name].input_shape[:-1],
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
      layer or pool.layer,
      name,
      largest=pooled,
      fraction=output + (value.fraction - fraction) + more,
      linear=False,
      folded=False,
    )

  def average_pool(self, name, layer, value):
    if name in self.absorbed:
      return value if value.constant is not None else value.then(layer, name)
    if value.constant is not None:
      return value.always(_pooled(value.constant, layer))
    bits = _bits(self._divisor(channel_order.Pool(name, layer)))
    largest = self.largest(name, value.channels)
    return value.then(layer, name, largest=largest, fraction=value.fraction + bits)

  def max_pool(self, name, layer, value):
    if name in self.absorbed:
      return value if value.constant is not None else value.then(layer, name)
    if value.constant is not None:
      return value.always(_pooled(value.constant, layer))
    split = folding.Split(activation.all_relu((value.channels.size,))[0])
    return self._activation(name, None, value, split, channel_order.Pool(name, layer))

  def flatten(self, name, layer, value):
    if value.constant is not None:
      return value.always(value.constant.reshape(1, -1))
    # Channel c of the position (h, w) becomes channel (h W + w) C + c.
    positions = math.prod(self._shapes[name].input_shape[:-1])
    channels = (np.arange(positions)[:, None] * value.total + value.channels).ravel()
    return value.then(layer, name, channels=channels, total=positions * value.total)

  def pad_shortcut(self, name, layer, value):
    before = (layer.features - value.total) // 2
    if value.constant is not None:
      x = np.zeros((1, *self._shapes[name].output_shape))
      x[..., before : before + value.total] = value.constant[:, :: layer.stride, :: layer.stride]
      return value.always(x)
    kept = records.Gather(tuple(range(value.channels.size)), stride=layer.stride)
    # The channels of zeros need not exist before something is added to them.
    return value.then(kept, channels=value.channels + before, total=layer.features)

  def add(self, branch, shortcut):
    name = f'add{self.additions}'
    order = self.channels.order(name, branch.total)
    self.additions += 1
    if branch.constant is not None and shortcut.constant is not None:
      return shortcut.always(branch.constant + shortcut.constant)
    start = values.parting(branch.step, shortcut.step)
    for side, other in ((branch, shortcut), (shortcut, branch)):
      if side.constant is not None and not side.constant.any():
        return other.arranged(order)
    sides = [
      self._made(side, other.fraction, order)
      for side, other in ((branch, shortcut), (shortcut, branch))
    ]
    fraction = values.common([side.fraction for side in sides])
    steps = [values.steps_since(side.arranged(order, fraction).step, start) for side in sides]
    block = records.Residual(*(tuple(step.layer for step in side) for side in steps))
    return Value(
      order,
      branch.total,
      self.largest(name, order),
      fraction,
      values.Step(block, values.names_of(steps), start),
      linear=branch.linear or shortcut.linear,
    )

  def concat(self, sides):
    if all(value.constant is not None for value in sides):
      return sides[0].always(np.concatenate([value.constant for value in sides], axis=-1))
    fraction = values.common([value.fraction for value in sides if value.constant is None])
    start = functools.reduce(values.parting, [value.step for value in sides])
    made = [self._made(value, fraction) for value in sides]
    sides = [value.arranged(value.channels, fraction) for value in made]
    firsts = itertools.accumulate([0, *(side.total for side in sides)])
    steps = [values.steps_since(side.step, start) for side in sides]
    block = records.Concat(tuple(tuple(step.layer for step in side) for side in steps))
    return Value(
      np.concatenate([side.channels + first for side, first in zip(sides, firsts)]),
      sum(side.total for side in sides),
      max(side.largest for side in sides),
      fraction,
      values.Step(block, values.names_of(steps), start),
      linear=any(side.linear for side in sides),
    )


def _pooled(x: np.ndarray, layer: records.Pool) -> np.ndarray:
  """The pool of floats [B, H, W, C]."""
  if isinstance(layer, records.MaxPool):
    return pooling.maxima(x, layer)
  divisor = pooling.divisor(layer, windows.of(layer, *x.shape[1:3]))
  return pooling.sums(np, x, layer) / divisor


def _bits(divisor: int) -> float:
  """How many fraction bits the sums have that stand for means."""
  whole = divisor.bit_length() - 1
  return whole if divisor == 1 << whole else math.log2(divisor)


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

"""Runs the float network on calibration images, and makes its integers on the way.

Pruned channels are neither computed nor read. Garbled channels come first. Before an
addition, a `Gather` gives both sides the same channels and fraction bits. Each party
can then add by adding its own shares.

Where a plan prunes all channels of an activation, what follows is the same for all images. It
goes on as floats, and no layer is served for it. Only where it is added to a value that
depends on the image, or at the end, it becomes a `Constant`.
"""

import dataclasses
import functools
import math

import numpy as np

from safenet_jax.approximation import activation
from safenet_jax.crypto import ring
from safenet_jax.fixed_point import bit_widths, channel_order, folding, fusing, pooling, rings
from safenet_jax.fixed_point.calibration_values import parting, places, Step, steps_since, Value
from safenet_jax.fixed_point.formats import ActivationFormat, Precision
from safenet_jax.fixed_point.model import LinearWeights
from safenet_jax.models import layers as records
from safenet_jax.models import windows

_LIMIT = (1 << (ring.FIXED_POINT_BITS - 1)) - 1
# An image is left out if its largest value is more than this many times the median image's.
_OUTLIER = 8.0
# Fraction bits that a value gets at least, where a factor of a mean is rounded.
_FACTOR_BITS = 8


class Calibration:
  """Operations on a `Value` that choose formats and integers.

  layers: of the network, its batch norms and some linear layers fused (`fusing`), in the order in
    which they are served.
  activations, absorbed: as in `PublicModel`.
  linear, polynomials, constants: as in `FixedPointModel`. Names are those of `layers`.
  usual: bool [B], the images that no layer has left out.
  """

  def __init__(self, network, variables, approximation, precision: Precision):
    self.precision = precision
    splits = [folding.Split(layer) for layer in approximation]
    fused, self.folded = fusing.fuse(network, folding.fold_batch_norm(network, variables))
    self.layers = channel_order.rectified_first(fused, splits)
    shapes = records.shapes(self.layers, network.input_shape)
    self._shapes = {shape.name: shape.output_shape for shape in shapes}
    self.channels = channel_order.Channels(self.layers, splits)
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
    return end.arranged(np.arange(end.total))

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

  def _made(self, value: Value, fraction: float, channels: np.ndarray | None = None) -> Value:
    """A constant with these of its channels, or all, as a layer of the served model."""
    channels = value.channels if channels is None else channels
    x, name = value.x[..., channels], f'constant {len(self.constants)}'
    self.constants[name] = np.round(x[0] * 2.0**fraction).astype(np.int64)
    made = records.Constant(x.shape[1:])
    return value.then(
      made, name, x=x, channels=channels, fraction=fraction, linear=False, constant=False
    )

  def _fraction(self, x: np.ndarray, wanted: int) -> int:
    """The most fraction bits, but not over `wanted`, with which the values fit 15 bits."""
    largest = float(np.abs(x).max(initial=0.0)) or 1.0
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
      of_order, of_outputs = places(outputs, order), places(order, outputs)
      folded = split.fold(ring.gather(np, kernel, of_order), bias[list(of_order)])
      kernel, bias = (ring.gather(np, array, of_outputs) for array in folded)
      extra = split.extra
      own = np.repeat([0, extra], [split.relu.size, split.polynomial.size])
      more = ring.gather(np, own, of_outputs)
    weight = self._fraction(kernel, self.precision.weight + extra) - extra
    value = self._shortened(name, value, x, weight)
    # The weights make up for the constant of a mean, so that the output's bits are whole.
    fraction = math.floor(value.fraction + weight)
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
      x=x,
      channels=outputs,
      total=total,
      fraction=fraction,
      linear=True,
      folded=folds,
    )

  def _shortened(self, name: str, value: Value, x: np.ndarray, weight: int) -> Value:
    """A linear layer's input, without low bits where its output x would take too many.

    `weight` are the fraction bits that the layer adds. To drop bits takes the widest ring for
    what is read. So it is done only if the layer would take that ring too.
    """
    shift = math.floor(value.fraction - self._fraction(value.x, self.precision.activation))
    largest = float(np.abs(x).max(initial=0.0)) * 2.0 ** (value.fraction + weight)
    # A pool over the whole map has at most that map's values.
    sides = [pool.window or max(x.shape[1:-1]) for pool in self.channels.pools_of(name)]
    largest *= self.precision.margin * max(sides, default=1) ** 2
    bits = math.ceil(math.log2(largest + 1)) + 2  # as for `select_bits` in `bit_widths`
    fits = bits <= rings.NARROW[-1] and not self.channels.polynomial(name)
    if not value.linear or fits or shift <= 0:
      return value
    return value.then(records.Truncate(shift), fraction=value.fraction - shift)

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
    return self._linear(name, layer, value, kernel[value.channels], bias, np.matmul)

  def activation(self, name, layer, value):
    split = self.split(name)
    if split.total != value.total:
      raise ValueError(f'{name} has {value.total} channels, want the {split.total} of its plan')
    if value.constant or not split.order.size:
      return self._of_constant(name, layer, value, split)
    value = value.arranged(split.order)
    return self._activation(name, layer, value, split, self.channels.pools.get(name))

  def _activation(self, name, layer, value, split, pool) -> Value:
    """What activations and max pools alone share; for the latter `layer` is None."""
    # Integers whose bits are not whole stand for larger values with whole bits.
    fraction = math.floor(value.fraction)
    larger = 2.0 ** (value.fraction - fraction)
    x, split, exact = value.x * larger, split.larger(larger), layer
    if layer is not None and layer.limit is not None:
      exact = dataclasses.replace(layer, limit=layer.limit * larger)
    z = x if exact is None else split.evaluate(x, exact)
    pooled, more = z, 0.0
    if pool is not None and isinstance(pool.layer, records.MaxPool):
      pooled = pooling.maxima(z, pool.layer)
    elif pool is not None:
      pooled, bits = _means(z, pool.layer)
      more = bits - math.floor(bits)
    output = min(self._fraction(pooled * 2.0**more, self.precision.activation), fraction)
    choice = bit_widths.Choice(
      name, self.precision, split, x, z, fraction, output, pool, value.folded, exact
    )
    self.activations[name], integers = choice.formats()
    if integers is not None:
      self.polynomials[name] = integers
    return value.then(
      layer or pool.layer,
      name,
      x=pooled / larger,
      fraction=output + (value.fraction - fraction) + more,
      linear=False,
      folded=False,
    )

  def _of_constant(self, name: str, layer, value: Value, split: folding.Split) -> Value:
    """An activation, with its pool, of what does not depend on the image; or of no channels."""
    z = np.zeros_like(value.x, shape=(*value.x.shape[:-1], split.total))
    if value.constant:
      z[..., split.order] = split.evaluate(value.x[..., split.order], layer)
    absorbed = self.channels.pools.get(name)
    pool = absorbed.layer if absorbed else None
    if isinstance(pool, records.MaxPool):
      z = pooling.maxima(z, pool)
    elif pool is not None:
      z, _ = _means(z, pool)
    return self._constant(value, z)

  def average_pool(self, name, layer, value):
    if name in self.absorbed:
      return value if value.constant else value.then(layer, name)
    x, bits = _means(value.x, layer)
    if value.constant:
      return self._constant(value, x)
    return value.then(layer, name, x=x, fraction=value.fraction + bits)

  def max_pool(self, name, layer, value):
    if name in self.absorbed:
      return value if value.constant else value.then(layer, name)
    if value.constant:
      return self._constant(value, pooling.maxima(value.x, layer))
    split = folding.Split(activation.all_relu(value.x.shape[-1:])[0])
    return self._activation(name, None, value, split, channel_order.Pool(name, layer))

  def flatten(self, name, layer, value):
    x = value.x.reshape(value.x.shape[0], -1)
    if value.constant:
      return self._constant(value, x)
    # Channel c of the position (h, w) becomes channel (h W + w) C + c.
    positions = math.prod(value.x.shape[1:-1])
    channels = (np.arange(positions)[:, None] * value.total + value.channels).ravel()
    return value.then(layer, name, x=x, channels=channels, total=positions * value.total)

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
    start = parting(branch.step, shortcut.step)
    for side, other in ((branch, shortcut), (shortcut, branch)):
      if side.constant and not side.x.any():
        return other.arranged(order)
    branch, shortcut = (
      self._made(side, other.fraction, order) if side.constant else side
      for side, other in ((branch, shortcut), (shortcut, branch))
    )
    fraction = _common([branch.fraction, shortcut.fraction])
    sides = [side.arranged(order, fraction) for side in (branch, shortcut)]
    steps = [steps_since(side.step, start) for side in sides]
    block = records.Residual(*(tuple(step.layer for step in side) for side in steps))
    names = tuple(name for side in steps for step in side for name in step.names)
    return Value(
      sides[0].x + sides[1].x,
      order,
      branch.total,
      fraction,
      Step(block, names, start),
      linear=branch.linear or shortcut.linear,
    )

  def concat(self, values):
    if all(value.constant for value in values):
      return self._constant(values[0], np.concatenate([value.x for value in values], axis=-1))
    fraction = _common([value.fraction for value in values if not value.constant])
    start = functools.reduce(parting, [value.step for value in values])
    sides, channels, first = [], [], 0
    for value in values:
      # What is zero need not be there.
      if not value.constant or value.x.any():
        made = self._made(value, fraction) if value.constant else value
        sides.append(made.arranged(made.channels, fraction))
        channels.append(made.channels + first)
      first += value.total
    steps = [steps_since(side.step, start) for side in sides]
    block = records.Concat(tuple(tuple(step.layer for step in side) for side in steps))
    names = tuple(name for side in steps for step in side for name in step.names)
    return Value(
      np.concatenate([side.x for side in sides], axis=-1),
      np.concatenate(channels),
      first,
      fraction,
      Step(block, names, start),
      linear=any(side.linear for side in sides),
    )


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

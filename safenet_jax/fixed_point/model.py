"""The fixed-point model, and its network in plain integers: what the protocol computes."""

import dataclasses

import numpy as np

from safenet_jax import ranges
from safenet_jax.crypto import ring
from safenet_jax.fixed_point import pooling, products
from safenet_jax.fixed_point.formats import ActivationFormat, Precision, RangeReport
from safenet_jax.models import layers as records

# The class of an image that `PublicModel.classes` distrusts.
OUT_OF_RANGE = -1

_LIMIT = 1 << (ring.FIXED_POINT_BITS - 1)


@dataclasses.dataclass(frozen=True)
class PublicModel:
  """What both parties know of a served network: everything except the weights.

  layers: the records of the network, without pruned channels.
  input_shape: (H, W, C) of an image.
  mean, std: per channel, what images are normalised with.
  precision: the bits that were aimed for; `precision.ring` is the greatest width of shares.
  activations: the format of each activation layer, and of each max pool that is no part of
    one, by name.
  absorbed: names of pools that are part of the activation before them.
  input_fraction, output_fraction: fraction bits of the image and of the logits. The latter need
    not be whole, where the logits are means.
  logit_bits: k; where the client gets the class alone, logits are compared modulo 2^k.
    None where nothing is known of their size. Then they are compared in the whole ring.
  truncation_bits: an inference has at most 2^-truncation_bits expected failures of local
    truncation, as calibration images show. A local truncation is one in which each party
    drops low bits of its own share. Networks without polynomials and `Truncate` have none.
  rings: the width in bits of the shares of each linear layer that is computed in a narrower
    ring than `precision.ring` (`fixed_point.rings`).
  """

  layers: tuple[records.Layer, ...]
  input_shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  precision: Precision
  activations: dict[str, ActivationFormat]
  absorbed: frozenset[str]
  input_fraction: int
  output_fraction: float
  logit_bits: int | None = None
  truncation_bits: int = 0
  rings: dict[str, int] = dataclasses.field(default_factory=dict)

  @property
  def truncation_failure(self) -> float:
    """Expected failures of local truncation per inference, rounded up to a power of two."""
    shapes = records.shapes(self.layers, self.input_shape)
    truncated = any(isinstance(shape.layer, records.Truncate) for shape in shapes)
    truncated |= any(form.polynomial for form in self.activations.values())
    return 2.0**-self.truncation_bits if truncated else 0.0

  def normalise(self, images: np.ndarray) -> np.ndarray:
    """Images uint8 [B, H, W, C] in the scale that the network was trained in, float64."""
    return normalise(images, self.mean, self.std)

  def encode(self, images: np.ndarray, report: RangeReport | None = None) -> np.ndarray:
    """The client's input in fixed point, int64 [B, H, W, C].

    Args:
      images: uint8 [B, H, W, C].
      report: if given, counts the images and the values that had to be clipped.

    Raises:
      ValueError: anything but uint8 [B, H, W, C] of the model's shape.
    """
    images = np.asarray(images)
    if images.shape[1:] != self.input_shape or images.dtype != np.uint8:
      height, width, channels = self.input_shape
      raise ValueError(
        f'images {images.dtype} {images.shape}, want uint8 [B, {height}, {width}, {channels}]'
      )
    values, saturated = ring.encode(np, self.normalise(images), self.input_fraction)
    if report is not None:
      report.images += len(images)
      report.count('input', saturated=int(saturated))
    return values

  def decode(self, integers: np.ndarray) -> np.ndarray:
    """Logits float64 of the integers that a fixed-point network gives."""
    return integers / 2.0**self.output_fraction

  def classes(self, logits: np.ndarray) -> np.ndarray:
    """The classes of logits, int64 [B]; OUT_OF_RANGE where one is not in -2^(k-1) <= y < 2^(k-1).

    k is `logit_bits`, which calibration chose with a margin over the logits that it saw. An image
    whose values left their formats in some layer has arbitrary logits. They are nearly uniform
    in their ring, so that this finds nearly all such images (docs/measurements.md).

    Args:
      logits: float64 [B, classes], as from `decode`.
    """
    limit = 2.0 ** ((self.logit_bits or self.precision.ring) - 1 - self.output_fraction)
    outside = (logits < -limit) | (logits >= limit)
    return np.where(outside.any(-1), OUT_OF_RANGE, logits.argmax(-1))


# Every class that a `PublicModel` is made of, for whoever writes or reads one.
RECORDS = (
  PublicModel,
  Precision,
  ActivationFormat,
  records.Conv,
  records.Dense,
  records.Activation,
  records.AveragePool,
  records.MaxPool,
  records.Flatten,
  records.PadShortcut,
  records.Residual,
  records.Concat,
  records.Gather,
  records.Truncate,
  records.Constant,
)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearWeights:
  """The server's integers of one linear layer.

  kernel: int64 [side, side, I / groups, O] or [I, O], pruned channels removed.
  bias: int64 [O], at the fraction bits of the output.
  limb: bits of a limb in `ring.multiply`, such that products in float64 are exact.
  """

  kernel: np.ndarray
  bias: np.ndarray
  limb: int


@dataclasses.dataclass(frozen=True, eq=False)
class FixedPointModel:
  """A planned network in integers: what is public of it, and what only the server has.

  public: what clients know too.
  linear: the weights of each linear layer, by name.
  polynomials: by activation name, the coefficients int64 [degree + 1, polynomial
    channels], constant term first.
  constants: the values int64 of each `Constant`, by name.
  """

  public: PublicModel
  linear: dict[str, LinearWeights]
  polynomials: dict[str, np.ndarray]
  constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def run(self, images: np.ndarray, report: RangeReport | None = None) -> np.ndarray:
    """Logits int64 [B, classes] of uint8 images, in plain integers.

    The protocol computes the same, except for roundings. Here every truncation rounds to
    the nearest integer. The protocol rounds at random to one of the two neighbours. Now and
    then it also takes a ReLU's input that is smaller than one unit of the output for zero,
    and a pool can turn this into one more unit of difference.

    Args:
      images: uint8 [B, H, W, C]; a few at a time are in memory as integers.
      report: if given, counts these images and how their values fit.

    Raises:
      ValueError: no images, or images of another shape or type.
    """
    if not len(images):
      raise ValueError('no images, want at least one')
    report = report or RangeReport()
    public = self.public
    plain = Plain(self, report)
    logits = np.concatenate(
      [
        records.run(public.layers, plain, public.encode(images[part], report))
        for part in products.batches(public.layers, public.input_shape, len(images))
      ]
    )
    if public.logit_bits is not None:
      outside = np.sum(np.abs(logits) >= 1 << (public.logit_bits - 1))
      report.count('logits', exceeded=int(outside))
    return logits

  def logits(self, images: np.ndarray, report: RangeReport | None = None) -> np.ndarray:
    """The logits of `run` as numbers, float64 [B, classes]: what a client gets from a server."""
    return self.public.decode(self.run(images, report))


def check(model: object) -> None:
  """ValueError unless it is a fixed-point model."""
  ranges.check_type('model', model, FixedPointModel)


def normalise(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
  """(images / 255 - mean) / std for each channel, float64, of images uint8 [B, H, W, C]."""
  return (images / 255.0 - np.asarray(mean)) / np.asarray(std)


class Plain:
  """Operations on int64 values [B, ..., C]; see `FixedPointModel.run`."""

  def __init__(self, model: FixedPointModel, report: RangeReport):
    self.model, self.report = model, report

  def conv(self, name, layer, x):
    weights = self.model.linear[name]
    kernel = weights.kernel.astype(np.float64)
    product = products.exactly(lambda v: products.convolve(v, kernel, layer), x, weights.limb)
    return product + weights.bias

  def dense(self, name, layer, x):
    del layer
    weights = self.model.linear[name]
    kernel = weights.kernel.astype(np.float64)
    return products.exactly(lambda v: v @ kernel, x, weights.limb) + weights.bias

  def activation(self, name, layer, y):
    del layer
    form = self.model.public.activations[name]
    garbled = y[..., : form.relu]
    outside = np.sum(np.abs(garbled) >= (1 << (form.sign_bits - 1)) - (1 << form.dropped))
    if isinstance(form.pool, records.MaxPool):
      garbled = np.maximum(garbled, 0) if form.rectified else garbled
      x = _round(pooling.maxima(garbled, form.pool), form.dropped)
    else:
      pooled = _sum(form.exact(garbled), form)
      outside += np.sum(np.abs(pooled) >= 1 << (form.select_bits - 2))
      x = _round(pooled, form.relu_shift)
    if form.polynomial:
      value, more = self._polynomial(name, y[..., form.relu :], form)
      x, outside = np.concatenate([x, value], axis=-1), outside + more
    saturated = np.sum((x < -_LIMIT) | (x >= _LIMIT))
    self.report.count(name, saturated=int(saturated), exceeded=int(outside))
    return x

  def _polynomial(self, name, y, form):
    bits = self.model.public.precision.ring
    outside = self._count_truncated(y)
    t = _round(y, form.shift)
    value = np.zeros_like(t)
    for coefficient in self.model.polynomials[name][::-1]:
      value = value * t + coefficient
    value = _sum(value, form)
    outside += np.sum(np.abs(value) >= form.rescales(bits)[-1].offset)
    return _round(value, form.polynomial_shift), outside

  def average_pool(self, name, layer, x):
    if name in self.model.public.absorbed:
      return x
    return pooling.sums(np, x, layer)

  def max_pool(self, name, layer, x):
    return x if name in self.model.public.absorbed else self.activation(name, layer, x)

  def flatten(self, name, layer, x):
    del name, layer
    return x.reshape(x.shape[0], -1)

  def gather(self, name, layer, x):
    del name
    return ring.gather(np, x, layer.channels, layer.stride) * layer.factor << layer.shift

  def truncate(self, name, layer, x):
    del name
    self._count_truncated(x)
    return _round(x, layer.shift)

  def _count_truncated(self, x: np.ndarray) -> int:
    """Counts the failures of a local truncation to expect; gives how many do not fit the ring."""
    magnitudes, bits = np.abs(x), self.model.public.precision.ring
    self.report.failures += ring.truncation_failure(float(magnitudes.sum()), bits)
    return int(np.sum(magnitudes >= 1 << (bits - 1)))

  def constant(self, name, layer, x):
    del layer
    values = self.model.constants[name]
    return np.broadcast_to(values, (len(x), *values.shape))

  def add(self, branch, shortcut):
    return branch + shortcut

  def concat(self, values):
    return np.concatenate(values, axis=-1)


def _round(x: np.ndarray, shift: int) -> np.ndarray:
  return (x + ((1 << shift) >> 1)) >> shift


def _sum(x: np.ndarray, form: ActivationFormat) -> np.ndarray:
  return x if form.summed is None else pooling.sums(np, x, form.summed)

"""The fixed-point model: what both parties know, and what only the server has.

A value with f fraction bits is the integer round(x 2^f). Public formats say for
every activation layer which channels are garbled or polynomial, and how many
bits everything has; kernels, biases and coefficients are the server's.
"""

import dataclasses

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.models import layers as records
from safenet_jax.protocol import integer_model
from safenet_jax.protocol.truncation import Rescale


@dataclasses.dataclass(frozen=True)
class Precision:
  """Bits to aim for; a layer whose values need more room gets fewer of them.

  ring: l, width of the shares of linear layers.
  select_ring: least width of the ring in which ReLUs select.
  activation, weight: fraction bits of activations and weights.
  square, cubic: fraction bits of the input of degree 2 and of degree 3.
  margin: headroom over the largest value seen in calibration.
  """

  ring: int = 56
  select_ring: int = 28
  activation: int = 7
  weight: int = 8
  square: int = 10
  cubic: int = 8
  margin: float = 2.5


@dataclasses.dataclass(frozen=True)
class ActivationFormat:
  """Public format of one activation layer with a pool absorbed into it.

  Channels come in two blocks: first those that are garbled, then polynomials.

  relu, polynomial: channels in each block.
  degree: of the polynomial block, 2 or 3; 0 where it is empty.
  map_shape: (H, W) or () of the input.
  window: of the pool that follows, else 1.
  input_fraction: fraction bits of the input's garbled block.
  sign_bits: k, the sign is that of the input mod 2^k.
  select_bits: width of the ring in which the ReLU selects.
  shift: g, bits that local truncation drops from the polynomial block's input.
  modulus: of the field in which the polynomial is computed.
  value_fraction: fraction bits of the polynomial's value in that field.
  output_fraction: fraction bits of the output of both blocks.
  general: degree 2 with all of its coefficients, as degree 3 has them: no one
    layer alone makes the input, into which it could be folded.
  maximum: the pool takes the largest of a window, inside the circuits. Then
    there are no polynomials, and select_bits = sign_bits - dropped + 1.
  """

  relu: int
  polynomial: int
  degree: int
  map_shape: tuple[int, ...]
  window: int
  input_fraction: int
  sign_bits: int
  select_bits: int
  shift: int
  modulus: int
  value_fraction: int
  output_fraction: int
  general: bool = False
  maximum: bool = False

  @property
  def pooled_shape(self) -> tuple[int, ...]:
    """(H, W) or () of the output."""
    return tuple(n // self.window for n in self.map_shape)

  @property
  def dropped(self) -> int:
    """Low bits that the sign test ignores: those the output does not have."""
    return self.input_fraction - self.output_fraction

  @property
  def relu_shift(self) -> int:
    """Bits that the exact truncation drops after a garbled block and its pool."""
    return 0 if self.maximum else self.dropped + ring.window_bits(self.window)

  @property
  def summed(self) -> int:
    """Window of the sums that both parties take of their shares after the activation."""
    return 1 if self.maximum else self.window

  @property
  def polynomial_shift(self) -> int:
    """Bits that the exact truncation drops after a polynomial block and its pool."""
    return self.value_fraction - self.output_fraction + ring.window_bits(self.window)

  def rescales(self, bits: int) -> list[Rescale]:
    """Truncations to Z_2^bits of the garbled and of the polynomial block, those that exist."""
    found = []
    if self.relu:
      found.append(Rescale(1 << self.select_bits, self.relu_shift, bits))
    if self.polynomial:
      found.append(Rescale(self.modulus, self.polynomial_shift, bits))
    return found

  @property
  def monic(self) -> bool:
    """Degree 2 is folded into a square plus a constant: its leading coefficient is 1."""
    return self.degree == 2 and not self.general


@dataclasses.dataclass
class RangeReport:
  """How images fit the formats; every `FixedPointModel.run` adds its own.

  saturated: values that 15 bits do not hold, by name: those of 'input' are
    clipped, outputs of activations are not.
  exceeded: values outside the formats, per activation layer; the protocol would
    compute garbage from those, silently.
  failures: expected failures of local truncation, of all images together.
  images: how many there were.
  """

  saturated: dict[str, int] = dataclasses.field(default_factory=dict)
  exceeded: dict[str, int] = dataclasses.field(default_factory=dict)
  failures: float = 0.0
  images: int = 0

  @property
  def truncation_failure(self) -> float:
    """Expected failures of local truncation per inference."""
    return self.failures / max(self.images, 1)

  def count(self, name: str, *, saturated: int = 0, exceeded: int = 0) -> None:
    """Adds a layer's values."""
    self.saturated[name] = self.saturated.get(name, 0) + saturated
    if name != 'input':
      self.exceeded[name] = self.exceeded.get(name, 0) + exceeded


@dataclasses.dataclass(frozen=True, eq=False)
class LinearWeights:
  """The server's integers of one linear layer.

  kernel: int64 [k, k, I, O] or [I, O], pruned channels removed.
  bias: int64 [O], at the fraction bits of the output.
  stride: of a convolution.
  limb: width of exact float64 limbs, see `ring.multiply`.
  """

  kernel: np.ndarray
  bias: np.ndarray
  stride: int
  limb: int


@dataclasses.dataclass(frozen=True, eq=False)
class FixedPointModel:
  """A planned network in integers; `layers` are the records without pruned channels.

  activations: public format per activation name.
  linear: the server's weights per linear name.
  polynomials: the server's coefficients per activation name, int64
    [degree + 1, polynomial channels], constant term first.
  absorbed: names of pools that are part of the activation before them; every
    max pool is.
  input_fraction, output_fraction: fraction bits of the image and the logits.
  logit_bits: k, logits are compared mod 2^k where the client gets the class alone;
    None where nothing is known of their size, and the whole ring is compared.
  truncation_bits: public; calibration images expect at most 2^-truncation_bits failures
    of local truncation each, and none where there are no polynomials.
  """

  layers: tuple[records.Layer, ...]
  input_shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  precision: Precision
  activations: dict[str, ActivationFormat]
  linear: dict[str, LinearWeights]
  polynomials: dict[str, np.ndarray]
  absorbed: frozenset[str]
  input_fraction: int
  output_fraction: int
  logit_bits: int | None = None
  truncation_bits: int = 0

  @property
  def truncation_failure(self) -> float:
    """Expected failures of local truncation per inference, rounded up to a power of two."""
    polynomials = any(form.polynomial for form in self.activations.values())
    return 2.0**-self.truncation_bits if polynomials else 0.0

  def encode(self, images: np.ndarray, report: RangeReport | None = None) -> np.ndarray:
    """The client's input: uint8 [B, H, W, C] to int64 fixed point; `report` counts saturation.

    Raises:
      ValueError: anything but uint8 [B, H, W, C] of the model's shape.
    """
    if images.shape[1:] != self.input_shape or images.dtype != np.uint8:
      raise ValueError(
          f'images {images.dtype} {images.shape}, want uint8 [B, {self.input_shape}]'
      )
    normal = (images / 255.0 - np.asarray(self.mean)) / np.asarray(self.std)
    values, saturated = ring.encode(np, normal, self.input_fraction)
    if report is not None:
      report.images += len(images)
      report.count('input', saturated=int(saturated))
    return values

  def run(self, images: np.ndarray, report: RangeReport | None = None) -> np.ndarray:
    """Logits int64 [B, classes] of uint8 images, in plain integers.

    This is the functionality that the protocol computes, with every truncation
    rounded to the nearest. The protocol rounds at random to one of the two
    neighbours, and takes inputs of a ReLU below one unit of its output for zero
    now and then, which a pool can make one unit more.

    Args:
      images: uint8 [B, H, W, C].
      report: if given, is added to.
    """
    report = report or RangeReport()
    operations = integer_model.Plain(self, report)
    logits = records.run(self.layers, operations, self.encode(images, report))
    if self.logit_bits is not None:
      outside = np.sum(np.abs(logits) >= 1 << (self.logit_bits - 1))
      report.count('logits', exceeded=int(outside))
    return logits

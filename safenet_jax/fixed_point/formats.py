"""The fixed-point model: what both parties know, and what only the server has.

A value with f fraction bits is the integer round(x 2^f). Public formats say for
every activation layer which channels are garbled or polynomial, and how many
bits everything has; kernels, biases and coefficients are the server's.
"""

import dataclasses

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.ring import Array


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
class Rescale:
  """Public constants of one block's truncation.

  modulus: M.
  shift: f, bits to drop.
  bits: l, width of the linear ring.
  """

  modulus: int
  shift: int
  bits: int

  def __post_init__(self):
    if not 1 <= self.bits <= 64 or self.shift < 0 or self.offset == 0 or self.wrap_bits < 1:
      raise ValueError(f'{self} leaves no room, want a smaller shift or a larger ring')
    # A wrap is worth M / 2^f, of which `carry` is the floor.
    if self.modulus % 2 and (self.modulus - 1) % (1 << self.shift):
      raise ValueError(f'shift {self.shift} of {self.modulus}, want M = 1 mod 2^shift')

  @property
  def offset(self) -> int:
    """A multiple of 2^f near M / 4: what |z| has to stay below."""
    return (self.modulus // 4 >> self.shift) << self.shift

  @property
  def carry(self) -> int:
    """M >> f: what a wrap is worth after the shift."""
    return self.modulus >> self.shift

  @property
  def wrap_bits(self) -> int:
    """Width of E and K: the rest is lost in the product with `carry` mod 2^l."""
    zeros = (self.carry & -self.carry).bit_length() - 1
    return self.bits - zeros

  def upper(self, x: Array) -> Array:
    """1 where a share is in the upper half of [0, M), else 0."""
    return (x >= np.uint64((self.modulus + 1) // 2)).astype(np.uint64)

  def add_offset(self, v: Array) -> Array:
    """The client's share, moved so that the shared value is not negative."""
    return (v + np.uint64(self.offset)) % np.uint64(self.modulus)


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

"""Public number formats: what both parties know of every layer's integers.

With f fraction bits, the integer round(x 2^f) stands for a number x. The format of an
activation layer says which channels are garbled (a ReLU in a garbled circuit) and which are
polynomials, and how many bits everything has. Kernels, biases and coefficients are not
here: only the server has them.
"""

import dataclasses

import numpy as np

from safenet_jax.crypto.ring import Array
from safenet_jax.fixed_point import pooling
from safenet_jax.models import layers as records
from safenet_jax.models import windows
from safenet_jax.models.windows import Windows


@dataclasses.dataclass(frozen=True)
class Precision:
  """Bits to aim for; a layer whose values need more room gets fewer of them.

  ring: l, the width in bits of the shares of linear layers: integers modulo 2^l.
  select_ring: the least width in bits of the ring in which a ReLU's output is selected.
  activation: fraction bits of activations.
  weight: the fewest fraction bits of weights. Small weights get more (`weight_bits`).
  square, cubic: fraction bits of the input of degree 2 and of degree 3.
  margin: formats have room for values so many times the largest one seen in calibration.
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
  """Public constants of the exact truncation of one block of channels.

  The two parties' shares of a value z add up to z modulo M. From them the truncation makes
  shares of z / 2^f modulo 2^l; `protocol.layers.truncation` says how.

  modulus: M.
  shift: f, how many low bits are dropped.
  bits: l, the width of the ring of linear layers.
  """

  modulus: int
  shift: int
  bits: int

  def __post_init__(self):
    if not 1 <= self.bits <= 64 or self.shift < 0 or self.offset == 0 or self.wrap_bits < 1:
      raise ValueError(f'{self} leaves no room, want a smaller shift or a larger ring')
    # Where the shares' sum wraps around M, the result is off by M / 2^f, and `carry` takes that
    # back. It is the floor of M / 2^f. If M = 1 modulo 2^f, only 2^-f is missing.
    if self.modulus % 2 and (self.modulus - 1) % (1 << self.shift):
      raise ValueError(f'shift {self.shift} of {self.modulus}, want M = 1 mod 2^shift')

  @property
  def offset(self) -> int:
    """The bound that |z| has to stay below: a multiple of 2^f near M / 4."""
    return (self.modulus // 4 >> self.shift) << self.shift

  @property
  def carry(self) -> int:
    """M >> f: what is taken off after the shift if the shares' sum has wrapped around M."""
    return self.modulus >> self.shift

  @property
  def wrap_bits(self) -> int:
    """Bits of the truncation's message E and of its one-time pads K.

    They are multiplied by `carry` modulo 2^l. If `carry` is a multiple of 2^n, the product
    loses their bits from l - n up, so that these need not be sent.
    """
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
  """Public format of one activation layer with a pool absorbed into it, or of a max pool alone.

  Channels come in two blocks: first those that are garbled, then polynomials.

  relu, polynomial: how many channels each block has.
  degree: of the polynomial block, 2 or 3; 0 where it is empty.
  map_shape: (H, W) or () of the input.
  input_fraction: fraction bits of the input's garbled block.
  sign_bits: k, the bits of the sign test: a ReLU takes the sign of its input modulo 2^k.
  select_bits: width in bits of the ring in which the ReLU's output is selected.
  shift: g, the low bits that are dropped from the polynomial block's input by local
    truncation, in which each party shifts its own share.
  modulus: of the field in which the polynomial is computed.
  value_fraction: fraction bits of the polynomial's value in that field.
  output_fraction: fraction bits of the output of both blocks. Behind a mean of n values they
    are what is left of log2(n) more: see `pool_bits`.
  general: the polynomial is of degree 2 and keeps all of its coefficients, as degree 3
    does. This is so where it cannot be folded into a linear layer, since the input is not
    made by one such layer for this activation alone.
  pool: that follows, and is part of this layer. Maxima are taken inside the circuits. Then
    there are no polynomials, and select_bits = sign_bits - dropped + 1.
  rectified: whether a ReLU is taken of a maximum; it is not in a max pool alone.
  limit: the largest value of garbled channels, as an integer of the input; 0 is none.
  slope, slope_bits: garbled channels that are negative are multiplied by slope / 2^slope_bits.
  """

  relu: int
  polynomial: int
  degree: int
  map_shape: tuple[int, ...]
  input_fraction: int
  sign_bits: int
  select_bits: int
  shift: int
  modulus: int
  value_fraction: int
  output_fraction: int
  general: bool = False
  pool: records.AveragePool | records.MaxPool | None = None
  rectified: bool = True
  limit: int = 0
  slope: int = 0
  slope_bits: int = 0

  @property
  def maximum(self) -> bool:
    """Whether the pool takes the largest value of a window."""
    return isinstance(self.pool, records.MaxPool)

  @property
  def windows(self) -> Windows | None:
    """Of the pool, if there is one."""
    return None if self.pool is None else windows.of(self.pool, *self.map_shape)

  def exact(self, y: np.ndarray) -> np.ndarray:
    """Garbled channels in integers, int64: their fraction bits are those of y and `slope_bits`."""
    value = np.where(y < 0, self.slope * y, y << self.slope_bits)
    return np.minimum(value, self.limit << self.slope_bits) if self.limit else value

  @property
  def pooled_shape(self) -> tuple[int, ...]:
    """(H, W) or () of the output."""
    return self.map_shape if self.windows is None else self.windows.shape

  @property
  def dropped(self) -> int:
    """How many low bits the sign test leaves out: those that the output does not have."""
    return self.input_fraction - self.output_fraction

  @property
  def relu_shift(self) -> int:
    """Bits that the exact truncation drops after a garbled block and its pool."""
    return 0 if self.maximum else self.dropped + self.slope_bits + self.pool_bits

  @property
  def summed(self) -> records.AveragePool | None:
    """The pool over which each party sums its shares after the activation, if there is one."""
    return self.pool if isinstance(self.pool, records.AveragePool) else None

  @property
  def pool_bits(self) -> int:
    """Bits that the truncation drops for a mean of n values: log2(n), rounded down.

    The output stands for the mean times n / 2^pool_bits.
    """
    if self.summed is None or self.windows is None:
      return 0
    return pooling.divisor(self.summed, self.windows).bit_length() - 1

  @property
  def polynomial_shift(self) -> int:
    """Bits that the exact truncation drops after a polynomial block and its pool."""
    return self.value_fraction - self.output_fraction + self.pool_bits

  def rescales(self, bits: int) -> list[Rescale]:
    """The exact truncations to integers modulo 2^bits: of the garbled block, then the polynomial.

    A block without channels has none. ValueError if one leaves no room.
    """
    found = []
    if self.relu:
      found.append(Rescale(1 << self.select_bits, self.relu_shift, bits))
    if self.polynomial:
      found.append(Rescale(self.modulus, self.polynomial_shift, bits))
    return found

  @property
  def monic(self) -> bool:
    """Whether the polynomial is a folded square plus a constant: its leading coefficient is 1."""
    return self.degree == 2 and not self.general


@dataclasses.dataclass
class RangeReport:
  """How images fit the formats; every `FixedPointModel.run` adds the images that it is given.

  saturated: by layer, how many values do not fit 15 bits. The image's ('input') are
    clipped; the outputs of activations are not.
  exceeded: by activation layer, or for 'logits', how many values are outside the
    formats. From those the protocol would compute garbage without noticing.
  failures: expected failures of local truncation, over all images.
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
    """Adds the counts of one layer."""
    self.saturated[name] = self.saturated.get(name, 0) + saturated
    if name != 'input':
      self.exceeded[name] = self.exceeded.get(name, 0) + exceeded

"""How many bits an activation layer gets: enough for values above all that calibration saw."""

import dataclasses
import math

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.fixed_point import pooling
from safenet_jax.fixed_point.formats import ActivationFormat, Precision
from safenet_jax.models import layers as records
from safenet_jax.models import windows
from safenet_jax.quantization.channel_order import Pool
from safenet_jax.quantization.folding import Split

# Fraction bits to aim for in a leading coefficient that is not folded into weights.
# Leading coefficients are small, so that they need many.
_LEAD_BITS = 16
# How many times the usual margin values have to fit the smallest field before it is taken. Squares
# of unusual images grow from layer to layer, and the next field has room for them.
_ROOM = 8.0
# The most fraction bits of the slope of a leaky ReLU. They make the select ring wider.
_SLOPE_BITS = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
  """What an activation layer's format is chosen from.

  name: of the activation layer.
  precision: the bits to aim for.
  split: which channels are garbled, and which are polynomials.
  largest: magnitude of the garbled channels' input.
  values: the largest magnitude of the polynomial channels behind the activation.
  map_shape: (H, W) or () of the input.
  fraction: fraction bits of the garbled channels' input.
  output: fraction bits of the output of activation and pool (`ActivationFormat`).
  pool: the pool that is part of this activation, if there is one.
  folded: whether a square (a y + b)^2 + K has its a and b in the weights of the layer
    before. Then the integers of the polynomial channels are those of a y + b.
  layer: what the garbled channels are; None for a max pool alone.
  """

  name: str
  precision: Precision
  split: Split
  largest: float
  values: float
  map_shape: tuple[int, ...]
  fraction: int
  output: int
  pool: Pool | None
  folded: bool
  layer: records.Activation | None

  @property
  def divisor(self) -> int:
    """By what the sums of a pool are divided to be means, 1 without one."""
    if self.pool is None or isinstance(self.pool.layer, records.MaxPool):
      return 1
    found = windows.of(self.pool.layer, *self.map_shape)
    return pooling.divisor(self.pool.layer, found)

  def formats(self) -> tuple[ActivationFormat, np.ndarray | None]:
    """The public format, and the polynomials' coefficients.

    Raises:
      ValueError: the values do not fit the rings or fields.
    """
    bits = self.precision.ring
    form, integers = self._garbled(), None
    if self.split.degree:
      form, integers = self._polynomial(form)
    form.rescales(bits)  # raises where they do not fit
    if max(form.sign_bits, form.select_bits) >= bits:
      raise ValueError(
        f'{self.name}: values up to 2^{form.sign_bits} do not fit the ring of {bits} bits'
      )
    return form, integers

  def _garbled(self) -> ActivationFormat:
    """The format without its polynomials."""
    split, margin = self.split, self.precision.margin
    largest = max(self.largest * 2.0**self.fraction, 1.0)
    dropped = self.fraction - self.output
    layer = self.layer or records.Activation()
    limit = 0 if layer.limit is None else max(1 << dropped, round(layer.limit * 2.0**self.fraction))
    slope, slope_bits = slope_of(layer.slope)
    sign = math.ceil(math.log2(margin * largest + limit + 2.0**dropped)) + 1
    if self.pool is not None and isinstance(self.pool.layer, records.MaxPool):
      # One bit more than the circuit's values have: the exact truncation adds an offset.
      select = sign - dropped + 1
    else:
      most = margin * largest * self.divisor * 2.0**slope_bits
      select = math.ceil(math.log2(most + 1)) + 2
      select = max(select, sign, self.precision.select_ring)
    return ActivationFormat(
      relu=split.relu.size,
      polynomial=split.polynomial.size,
      degree=split.degree,
      map_shape=self.map_shape,
      input_fraction=self.fraction,
      sign_bits=sign,
      select_bits=select,
      shift=0,
      modulus=0,
      value_fraction=0,
      output_fraction=self.output,
      pool=self.pool.layer if self.pool else None,
      rectified=self.layer is not None,
      limit=limit,
      slope=slope,
      slope_bits=slope_bits,
    )

  def _polynomial(self, form: ActivationFormat) -> tuple[ActivationFormat, np.ndarray]:
    """The format with its polynomials, and their coefficients."""
    split, folded = self.split, self.folded
    square = split.degree == 2
    fraction = self.fraction + (split.extra if folded else 0)
    wanted = min(self.precision.square if square else self.precision.cubic, fraction)
    bound = self.precision.margin * self.values * self.divisor

    # For each field F_p: p, the largest shift that the exact truncation takes (p is 1 modulo
    # 2^shift), and the fewest fraction bits of a leading coefficient.
    fields = [(ring.PRIME_41, 37, _LEAD_BITS - 4)] if square else []
    if not folded:
      fields.append((ring.PRIME_50, 32, _LEAD_BITS // 2))
    elif bound * _ROOM * 2.0 ** split.integers(wanted, 0, folded=True)[1] < ring.PRIME_35 / 4:
      fields.insert(0, (ring.PRIME_35, 29, 0))
    for modulus, exact, least in fields:
      inputs, lead = wanted, 0
      if not folded:
        room = exact + self.output - form.pool_bits - split.degree * inputs
        lead = min(_LEAD_BITS, room)
      integers, bits = split.integers(inputs, lead, folded=folded)
      while bound * 2.0**bits >= modulus / 4 and inputs >= 0:
        if lead > least:
          lead -= 1
        else:
          inputs -= 1
        integers, bits = split.integers(inputs, lead, folded=folded)
      if inputs == wanted:
        break
    if inputs < 0:
      raise ValueError(
        f'{self.name}: polynomial values up to {self.values:.3g} do not fit {modulus}'
      )
    form = dataclasses.replace(
      form,
      shift=fraction - inputs,
      modulus=modulus,
      value_fraction=bits,
      general=square and not folded,
    )
    return form, integers


def slope_of(slope: float) -> tuple[int, int]:
  """A slope as an integer and its fraction bits, the fewest with which it is about as exact as
  a weight."""
  for bits in range(_SLOPE_BITS):
    if abs(round(slope * 2.0**bits) - slope * 2.0**bits) <= abs(slope) * 2.0 ** (bits - 7):
      return round(slope * 2.0**bits), bits
  return round(slope * 2.0**_SLOPE_BITS), _SLOPE_BITS

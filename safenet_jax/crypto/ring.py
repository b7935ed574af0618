"""Arithmetic of secret shares: Z_2^l on uint64 arrays, and F_p for p < 2^50.

Z_2^l are the integers modulo 2^l, and F_p those modulo a prime p.

The two parties compute with numpy and the jitted simulator with jax.numpy. Both use
this code: where it matters, a function takes the array namespace `xp` first. Under
JAX, callers are inside `jax.enable_x64`, because uint64 would silently be uint32
otherwise; `_check` refuses that.

Ring elements are uint64 in [0, 2^l). Images and shares are [B, H, W, C] or
[B, features].
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import numpy as np

Array = Any  # np.ndarray or jax.Array

# 45*2^29 + 1, for squares whose values are small. It is 1 mod 2 * 8192, as the next one.
PRIME_35 = 24159191041
# 15*2^37 + 1. It is 1 mod 2 * 8192, which BFV of degree 8192 wants for its slots. It is
# also 1 mod 2^37, so that for f <= 37 the quotient p / 2^f is an integer plus 2^-f.
PRIME_41 = 2061584302081
# Largest prime below 2^50 that is 1 mod 2^32.
PRIME_50 = 1125844072267777

FIXED_POINT_BITS = 15  # section 4, "Systems Setup"


def _check(*arrays: Array) -> None:
  for array in arrays:
    if array.dtype != np.uint64:
      raise ValueError(f'ring elements of dtype {array.dtype}, want uint64 (inside jax.enable_x64)')


def mask(bits: int) -> np.uint64:
  """2^bits - 1."""
  return np.uint64((1 << bits) - 1)


def reduce(x: Array, bits: int) -> Array:
  """x mod 2^bits; shares of a ring element become shares in the smaller ring."""
  _check(x)
  return x & mask(bits)


def from_signed(x: Array, bits: int) -> Array:
  """int64 to its residue mod 2^bits."""
  return x.astype(np.int64).astype(np.uint64) & mask(bits)


def to_signed(x: Array, bits: int) -> Array:
  """Residues mod 2^bits to int64 in [-2^(bits-1), 2^(bits-1))."""
  _check(x)
  return (x << np.uint64(64 - bits)).astype(np.int64) >> np.int64(64 - bits)


def encode(xp: ModuleType, values: Array, fraction_bits: int) -> tuple[Array, Array]:
  """Floats to 15-bit fixed point: int64 with `fraction_bits`, and how many saturated."""
  limit = 1 << (FIXED_POINT_BITS - 1)
  scaled = xp.round(values * 2.0**fraction_bits)
  clipped = xp.clip(scaled, -limit, limit - 1)
  return clipped.astype(np.int64), xp.sum(scaled != clipped)


def reconstruct(a: Array, b: Array, bits: int) -> Array:
  """The shared value, int64 in [-2^(bits-1), 2^(bits-1))."""
  return to_signed(reduce(a + b, bits), bits)


def truncate(x: Array, bits: int, shift: int, *, server: bool) -> Array:
  """One party's local truncation of a share of y: an int64, no message.

  The sum of both parties' results is y >> shift or one more. It is so over the
  integers, and therefore in every ring that the results are reduced to.

  Each party rounds down, which loses half a unit on average. The server adds one to
  make up for both halves; a bias of 2^-shift of a unit is left. The sum is wrong (by
  2^(bits - shift)) with probability `truncation_failure(y, bits)`.
  """
  return (to_signed(x, bits) >> np.int64(shift)) + np.int64(server and shift > 0)


def truncation_failure(magnitude: float, bits: int) -> float:
  """Probability that local truncation of |y| = magnitude wraps: |y| / 2^bits."""
  return abs(magnitude) / 2.0**bits


def to_residue(x: Array, modulus: int) -> Array:
  """int64 to [0, modulus)."""
  return (x.astype(np.int64) % np.int64(modulus)).astype(np.uint64)


def multiply_mod(xp: ModuleType, a: Array, b: Array, modulus: int) -> Array:
  """a b mod p of residues, for p < 2^50, else ValueError.

  The quotient a b / p is computed in float64. It is below 2^50, so that three roundings
  move it by less than 3/8, and its integer part is off by at most one. The remainder,
  computed mod 2^64, is then in [-p, 2 p), and is corrected by adding or subtracting p.
  """
  _check(a, b)
  if modulus >= 1 << 50:
    raise ValueError(f'modulus {modulus}, want below 2^50')
  p = np.int64(modulus)
  quotient = (a.astype(np.float64) * b.astype(np.float64) / np.float64(modulus)).astype(np.int64)
  remainder = (a * b - quotient.astype(np.uint64) * np.uint64(modulus)).astype(np.int64)
  remainder = xp.where(remainder < 0, remainder + p, remainder)
  return xp.where(remainder >= p, remainder - p, remainder).astype(np.uint64)


def limb_bits(kernel: np.ndarray) -> int:
  """The most bits a limb may have for `multiply` by this kernel [..., O] to be exact.

  ValueError where the L1 norm of one of its outputs is 2^52 or more.
  """
  norm = int(np.abs(kernel.astype(np.int64)).reshape(-1, kernel.shape[-1]).sum(0).max())
  bits = 53 - max(norm, 1).bit_length()
  if bits < 1:
    raise ValueError(f'kernel with L1 norm {norm}, want below 2^52')
  return bits


def multiply(xp: ModuleType, x: Array, kernel: Array, bits: int, limb: int | None) -> Array:
  """Ring elements [..., I] times small integers int64 [..., I, O], mod 2^bits.

  x is cut into limbs of `limb` bits, and each limb is multiplied in float64. A limb is
  below 2^limb, and the sum of a kernel column's absolute values is below 2^(53 - limb)
  (`limb_bits`). So every partial sum, in every order of summation, is an integer below
  2^53, which float64 holds exactly. With `limb` None the product is taken in uint64,
  where wrapping makes it exact.
  """
  _check(x)
  if limb is None:
    return (x @ kernel.astype(np.uint64)) & mask(bits)
  weights = kernel.astype(np.float64)
  total = xp.zeros((*x.shape[:-1], kernel.shape[-1]), np.uint64)
  for low in range(0, bits, limb):
    part = ((x >> np.uint64(low)) & mask(min(limb, bits - low))).astype(np.float64)
    total = total + ((part @ weights).astype(np.int64).astype(np.uint64) << np.uint64(low))
  return total & mask(bits)


class _Geometry(Protocol):
  """How a convolution moves over a map; `models.layers.Conv` is one.

  stride: of both axes.
  groups: of neighbouring channels, of inputs and of outputs.
  dilation: distance of neighbouring taps.
  around: zeros around the map, ((top, bottom), (left, right)).
  """

  @property
  def stride(self) -> int: ...
  @property
  def groups(self) -> int: ...
  @property
  def dilation(self) -> int: ...
  @property
  def around(self) -> tuple[tuple[int, int], tuple[int, int]]: ...


def patches(xp: ModuleType, x: Array, kernel: int, layer: _Geometry) -> Array:
  """Patches of [B, H, W, C] for a kernel of side k: [B, H', W', k k C]."""
  stride, step = layer.stride, layer.dilation
  padded = xp.pad(x, ((0, 0), *layer.around, (0, 0))) if np.any(layer.around) else x
  if kernel == 1:
    return padded[:, ::stride, ::stride]
  spans = [(n - (kernel - 1) * step - 1) // stride * stride + 1 for n in padded.shape[1:3]]
  return xp.concatenate(
    [
      padded[:, i : i + spans[0] : stride, j : j + spans[1] : stride]
      for i in range(0, kernel * step, step)
      for j in range(0, kernel * step, step)
    ],
    axis=-1,
  )


def convolve_by(
  product: Callable[[Array, Array], Array],
  xp: ModuleType,
  x: Array,
  kernel: Array,
  layer: _Geometry,
) -> Array:
  """A convolution of [B, H, W, I] with [k, k, I / groups, O], by `patches`.

  `product` multiplies [..., rows, n] with [..., n, O / groups], one matrix for each group.
  """
  found, groups, outputs = patches(xp, x, kernel.shape[0], layer), layer.groups, kernel.shape[-1]
  if groups == 1:
    return product(found, kernel.reshape(-1, outputs))
  taps, shape = kernel.shape[0] ** 2, found.shape[:-1]
  rows = found.reshape(-1, taps, groups, x.shape[-1] // groups).transpose(2, 0, 1, 3)
  matrices = kernel.reshape(taps, -1, groups, outputs // groups).transpose(2, 0, 1, 3)
  result = product(
    rows.reshape(groups, rows.shape[1], -1), matrices.reshape(groups, rows[0, 0].size, -1)
  )
  return result.transpose(1, 0, 2).reshape(*shape, outputs)


def convolve(
  xp: ModuleType, x: Array, kernel: Array, layer: _Geometry, bits: int, limb: int | None
) -> Array:
  """Convolution mod 2^bits: uint64 [B, H, W, I] with int64 [k, k, I / groups, O]."""
  return convolve_by(lambda a, b: multiply(xp, a, b, bits, limb), xp, x, kernel, layer)


def gather(xp: ModuleType, x: Array, channels: tuple[int, ...], stride: int = 1) -> Array:
  """Channels of [..., C] by index, zeros for -1; every stride-th row and column of a map.

  Each party can do this to its own share: two zeros are shares of zero.
  """
  if stride > 1:
    x = x[:, ::stride, ::stride]
  index = np.asarray(channels)
  return xp.where(index >= 0, x[..., np.maximum(index, 0)], np.zeros((), x.dtype))

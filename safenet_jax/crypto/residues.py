"""Polynomials modulo several primes: uniform ones, seeds, and wire bytes.

Residues are uint64 [..., moduli, n]; `moduli` is a uint64 vector of primes. On
the wire they are bit-packed, modulus after modulus, at the modulus's width.
"""

import functools
import math

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np

from safenet_jax.crypto.randomness import Randomness

SEED_BYTES = 16


class Expansion(Randomness):
  """The public stream of a 16-byte seed: AES-128-CTR, as in FrodoKEM.

  Both parties draw the same from it; it holds no secret.
  """

  def __init__(self, seed: bytes):
    self._stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()

  def fill(self, out: np.ndarray) -> None:
    target = out.reshape(-1).view(np.uint8)
    target[:] = np.frombuffer(self._stream.update(bytes(target.size)), np.uint8)


def uniform(randomness: Randomness, moduli: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Exactly uniform residues [..., moduli, n] for the shape [..., n]."""
  return np.stack([randomness.residues(int(q), shape) for q in moduli], axis=-2)


def from_signed(values: np.ndarray, moduli: np.ndarray) -> np.ndarray:
  """Residues [moduli, n] of int64 [n], each smaller than every modulus."""
  signed = moduli.astype(np.int64)[:, None]
  return np.where(values < 0, values + signed, values).astype(np.uint64)


def subtract(a: np.ndarray, b: np.ndarray, moduli: np.ndarray) -> np.ndarray:
  """a - b modulo each prime, [..., moduli, n]."""
  return a - b + (a < b) * moduli[:, None]


def size(moduli: np.ndarray, count: int) -> int:
  """Bytes of `count` polynomial coefficients."""
  return sum(packed_size(count, int(q).bit_length()) for q in moduli)


def pack(residues: np.ndarray, moduli: np.ndarray) -> bytes:
  """Residues [..., moduli, n] as bytes."""
  return b''.join(pack_bits(residues[..., k, :], int(q).bit_length()) for k, q in enumerate(moduli))


def unpack(data: bytes, moduli: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """A peer's residues [..., moduli, n] for the shape [..., n].

  Raises:
    ValueError: the length is wrong or a residue is not below its modulus.
  """
  count = math.prod(shape)
  if len(data) != size(moduli, count):
    raise ValueError(f'{len(data)} bytes, want {size(moduli, count)}')
  rows, start = [], 0
  for q in moduli:
    bits = int(q).bit_length()
    end = start + packed_size(count, bits)
    rows.append(unpack_bits(data[start:end], count, bits).reshape(shape))
    if rows[-1].size and rows[-1].max() >= q:
      raise ValueError(f'a residue of {rows[-1].max()}, want below {q}')
    start = end
  return np.stack(rows, axis=-2)


def packed_size(count: int, bits: int) -> int:
  """Bytes that `count` values of `bits` bits take, in lots of eight values."""
  return count * (bits // 8) + -(-count // 8) * (bits % 8)


def _columns(values: np.ndarray, bits: int) -> list[np.ndarray]:
  """Views of the whole bytes of [n] values of `bits` bits, 8, 4, 2, 1 at a time."""
  columns, start = [], 0
  for width in (8, 4, 2, 1):
    if bits // 8 & width:
      columns.append(values.view(f'<u{width}')[start // width :: 8 // width])
      start += width
  return columns


@functools.cache
def _fields(bits: int) -> list[tuple[int, int, int]]:
  """Masks and shift of each halving that closes the gaps between 8 fields."""
  steps = []
  for fields in (1, 2, 4):
    width, span = bits * fields, 8 * fields
    low = sum((1 << width) - 1 << 2 * span * k for k in range(4 // fields))
    steps.append((low, low << width, span - width))
  return steps


def pack_bits(values: np.ndarray, bits: int) -> bytes:
  """uint64 values below 2^bits as bytes: whole bytes, then all bits left over."""
  flat = np.ascontiguousarray(values, '<u8').reshape(-1)
  packed = b''.join(column.tobytes() for column in _columns(flat, bits))
  whole, rest = divmod(bits, 8)
  if not rest:
    return packed
  lots = np.zeros(-(-flat.size // 8), '<u8')
  lots.view(np.uint8)[: flat.size] = flat.view(np.uint8)[whole::8]
  for low, high, shift in _fields(rest):
    lots = (lots & low) | (lots >> shift & high)
  return packed + lots.view(np.uint8).reshape(-1, 8)[:, :rest].tobytes()


def unpack_bits(data: bytes, count: int, bits: int) -> np.ndarray:
  """The inverse of `pack_bits`: `count` uint64 values.

  Raises:
    ValueError: the length of `data` is not `packed_size(count, bits)`.
  """
  if len(data) != packed_size(count, bits):
    raise ValueError(f'{len(data)} bytes, want {packed_size(count, bits)}')
  values = np.zeros(count, '<u8')
  start = 0
  for column in _columns(values, bits):
    column[:] = np.frombuffer(data, column.dtype, count, start)
    start += column.itemsize * count
  whole, rest = divmod(bits, 8)
  if rest:
    lots = np.zeros(-(-count // 8), '<u8')
    octets = np.frombuffer(data, np.uint8, offset=start)
    lots.view(np.uint8).reshape(-1, 8)[:, :rest] = octets.reshape(-1, rest)
    for low, high, shift in reversed(_fields(rest)):
      lots = (lots & low) | ((lots & high) << shift)
    values.view(np.uint8)[whole::8] = lots.view(np.uint8)[:count]
  return values

"""Polynomials modulo several primes: uniform ones, seeds, and their bytes in messages.

A coefficient is held as its residues modulo several primes. Residues are uint64
[..., moduli, n] for n coefficients, and `moduli` is a uint64 vector of the primes. In a
message, the residues modulo the first prime come first, then those of the next, each
packed at as many bits as its prime has.
"""

import math

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np

from safenet_jax.crypto import bit_packing
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
  return sum(bit_packing.size(count, int(q).bit_length()) for q in moduli)


def pack(residues: np.ndarray, moduli: np.ndarray) -> bytes:
  """Residues [..., moduli, n] as bytes."""
  return b''.join(
    bit_packing.pack(residues[..., k, :], int(q).bit_length()) for k, q in enumerate(moduli)
  )


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
    end = start + bit_packing.size(count, bits)
    rows.append(bit_packing.unpack(data[start:end], count, bits).reshape(shape))
    if rows[-1].size and rows[-1].max() >= q:
      raise ValueError(f'a residue of {rows[-1].max()}, want below {q}')
    start = end
  return np.stack(rows, axis=-2)

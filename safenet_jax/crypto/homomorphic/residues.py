"""Polynomials modulo several primes: uniform ones, seeds, and their bytes in messages.

A coefficient is held as its residues modulo several primes. Residues are uint64
[..., moduli, n] for n coefficients, and `moduli` is a uint64 vector of the primes. In a
message, the residues modulo the first prime come first, then those of the next, each
packed at as many bits as its prime has.

A message may also leave out the low bits of a coefficient x in [0, q), for the product q of
the primes q_0, q_1, ... Then it holds the digits z of

    x = z_0 + q_0 (z_1 + q_1 (z_2 + ...)),  0 <= z_k < q_k

without the low bits of z_0. Who reads it takes the middle of what these can be.
"""

import math

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np

from safenet_jax.crypto import bit_packing, ring
from safenet_jax.crypto.randomness import Randomness

SEED_BYTES = 16

_COINS = np.uint64((1 << 21) - 1)


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


def binomial(randomness: Randomness, count: int) -> np.ndarray:
  """Centred binomial noise, int64 [count]: heads of 21 coins minus heads of 21 others."""
  words = randomness.words(count)
  heads = np.bitwise_count(words & _COINS).astype(np.int64)
  return heads - np.bitwise_count(words >> np.uint64(43)).astype(np.int64)


def from_signed(values: np.ndarray, moduli: np.ndarray) -> np.ndarray:
  """Residues [moduli, n] of int64 [n], each smaller than every modulus."""
  signed = moduli.astype(np.int64)[:, None]
  return np.where(values < 0, values + signed, values).astype(np.uint64)


def subtract(a: np.ndarray, b: np.ndarray, moduli: np.ndarray) -> np.ndarray:
  """a - b modulo each prime, [..., moduli, n]."""
  return a - b + (a < b) * moduli[:, None]


def size(moduli: np.ndarray, count: int, dropped: int = 0) -> int:
  """Bytes of `count` polynomial coefficients, without so many low bits of each."""
  widths = [int(q).bit_length() for q in moduli]
  return sum(bit_packing.size(count, bits) for bits in (widths[0] - dropped, *widths[1:]))


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


def nearest(residues: np.ndarray, moduli: np.ndarray, plain_modulus: int) -> np.ndarray:
  """round(x t / q) mod t for residues [moduli, n] of x, and t a power of two; uint64 [n].

  Of one prime, or of two below 2^50. It may be off by one where x t / q is next to a half: by
  2^-20 of a unit, or by 2^-16 for one prime and t = 2^36.
  """
  bits = plain_modulus.bit_length() - 1
  top = np.uint64(plain_modulus - 1)
  if moduli.size == 1:
    return np.rint(residues[0] * (plain_modulus / int(moduli[0]))).astype(np.uint64) & top
  low, high = _digits(residues, moduli)
  first, second = moduli
  # x t / q = (high + low / first) t / second. A few bits of high t / second at a time:
  whole, step = np.zeros_like(high), 64 - int(second).bit_length()
  while bits:
    step = min(step, bits)
    high = high << np.uint64(step)
    quotient = high // second
    high -= quotient * second
    whole = (whole << np.uint64(step)) + quotient
    bits -= step
  rest = (high + low * (plain_modulus / int(first))) / int(second)
  return (whole + np.rint(rest).astype(np.uint64)) & top


def _digits(residues: np.ndarray, moduli: np.ndarray) -> list[np.ndarray]:
  """The digits z of residues [..., moduli, n]; primes as for `pack_high`."""
  rest = [residues[..., k, :] for k in range(moduli.size)]
  for k, q in enumerate(moduli):
    for j in range(k + 1, moduli.size):
      digit = rest[k] - (rest[k] >= moduli[j]) * moduli[j]
      difference = rest[j] - digit + (rest[j] < digit) * moduli[j]
      inverse = np.uint64(pow(int(q), -1, int(moduli[j])))
      rest[j] = ring.multiply_mod(np, difference, inverse, int(moduli[j]))
  return rest


def pack_high(residues: np.ndarray, moduli: np.ndarray, dropped: int) -> bytes:
  """Residues [..., moduli, n] as bytes, without the low `dropped` bits of each coefficient.

  `dropped` is at most the bits of the first prime. Where there are several primes, they are
  below 2^50, and all of the same number of bits.
  """
  rest = _digits(residues, moduli)
  widths = [int(q).bit_length() for q in moduli]
  high = bit_packing.pack(rest[0] >> np.uint64(dropped), widths[0] - dropped)
  return high + b''.join(map(bit_packing.pack, rest[1:], widths[1:]))


def unpack_high(
  data: bytes, moduli: np.ndarray, shape: tuple[int, ...], dropped: int
) -> np.ndarray:
  """A peer's residues [..., moduli, n] for the shape [..., n], up to 2^(dropped - 1) away.

  Raises:
    ValueError: the length is wrong or a digit is not below its modulus.
  """
  count = math.prod(shape)
  if len(data) != size(moduli, count, dropped):
    raise ValueError(f'{len(data)} bytes, want {size(moduli, count, dropped)}')
  digits, start = [], 0
  for k, q in enumerate(moduli):
    low = 0 if k else dropped
    bits = int(q).bit_length() - low
    end = start + bit_packing.size(count, bits)
    digit = bit_packing.unpack(data[start:end], count, bits).reshape(shape)
    if digit.size and digit.max() > (int(q) - 1) >> low:
      raise ValueError(f'a digit of {digit.max()}, want at most {(int(q) - 1) >> low}')
    digits.append(digit << np.uint64(low))
    start = end
  if dropped:
    # The largest first digit may have no middle below its prime.
    middle = digits[0] + np.uint64(1 << dropped - 1)
    digits[0] = np.minimum(middle, moduli[0] - np.uint64(1))
  rows = []
  for q in moduli:
    total = digits[-1] - (digits[-1] >= q) * q
    for digit, below in zip(digits[-2::-1], moduli[-2::-1]):
      if below == q:  # what is above is a multiple of q
        total = digit
        continue
      total = ring.multiply_mod(np, total, below % q, int(q)) + digit
      for _ in range(2):
        total -= (total >= q) * q
    rows.append(total)
  return np.stack(rows, axis=-2)

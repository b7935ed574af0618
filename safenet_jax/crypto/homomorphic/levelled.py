"""Layers on encrypted slots without interaction: sums, squares, and what the reply shows.

A value is a ciphertext's polynomials in coefficient form, uint64 [size, moduli, N], and stands for
N slots, one for each image. A sum with public integers as weights is that of the polynomials'
residues, so that a linear layer is a matrix product of floats. A square has more polynomials than
its operand: 2, 3, 5. There are two squares at most, so that nothing brings the number down again:
that would take keys of the client, and more time than it saves.

The reply. The client knows its own ciphertexts and its secret key s. So of a bare result it could
read polynomials in the weights. `hidden` adds s^j times an encryption of 0 for j = 0, ..., 3. Each
is (pk0 u_j + e_j, pk1 u_j + e'_j) with fresh u_j; b_j is its second half. The client sees

    c_4 = C_4 + b_3,   c_j = C_j + (first half)_j + b_(j - 1) for j = 1, 2, 3,   c_0

for a result C. pk1 is not of its choice (`bfv`), so that b_0, ..., b_3 are uniform to it by
ring-LWE, and c_1, ..., c_4 with them. c_0 follows from these, from the plaintext, and from the
noise, which is c_0 + c_1 s + ... less the scaled plaintext. A uniform number as large as
correctness allows is added to c_0. For the networks here it is 2^40 times and more as large as all
other noise, which so says nothing. This is for a client that encrypts as it should: one that
chooses more noise would see more.
"""

import math

import numpy as np

from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.crypto.randomness import Randomness

DEGREE = 8192
# Bits of the plaintext moduli.
PRIME_BITS = 25
# 218 bits in all, the most for N = 8192 at 128 bits of security. Residues have 40 bits at most, so
# that floats hold a sum of many. The special prime, which nothing here uses, is small.
_MODULUS_BITS = 40, 40, 40, 39, 39, 20
_EXACT = 1 << 53
_LIMB = np.uint64(20)
# How many bits of the noise's room are left free by `hidden`.
_MARGIN = 3


def plain_moduli(bound: int) -> list[int]:
  """Primes that are 1 mod 2 N, as many as integers of at most `bound` in size need (CRT)."""
  found: list[int] = []
  candidate = (1 << PRIME_BITS) + 1
  while math.prod(found) <= 2 * bound:
    candidate -= 2 * DEGREE
    if all(candidate % divisor for divisor in range(3, math.isqrt(candidate) + 1, 2)):
      found.append(candidate)
  return found


def parameters(modulus: int, seed: bytes) -> bfv.Parameters:
  """For one of `plain_moduli`; the seed is the server's (`bfv.Parameters`)."""
  return bfv.Parameters(DEGREE, _MODULUS_BITS, modulus, seed=seed)


def signed(values: np.ndarray, moduli: np.ndarray) -> np.ndarray:
  """Residues uint64 [..., moduli, n] as floats of both signs, nearest to 0."""
  floats, q = values.astype(np.float64), moduli.astype(np.float64)[:, None]
  floats -= (floats > q / 2) * q
  return floats


def reduced(totals: np.ndarray, moduli: np.ndarray) -> np.ndarray:
  """Sums of signed residues, floats [..., moduli, n] below 2^53 in size, as residues uint64."""
  q = moduli.astype(np.float64)[:, None]
  rest = totals - np.floor(totals / q) * q  # exact, but the quotient may be one off
  rest += (rest < 0) * q
  rest -= (rest >= q) * q
  return rest.astype(np.uint64)


def check(weights: np.ndarray, moduli: np.ndarray) -> None:
  """ValueError if sums with weights, int64 [outputs, inputs], are not exact as floats."""
  most = int(np.abs(weights).sum(axis=1).max()) * (int(moduli.max()) // 2 + 1)
  if most >= _EXACT:
    raise ValueError(f'sums of up to {most}, want less than 2^53: smaller weights')


def linear(weights: np.ndarray, values: np.ndarray, moduli: np.ndarray) -> np.ndarray:
  """Sums of values with integer weights.

  Args:
    weights: int64 [outputs, inputs].
    values: uint64 [inputs, size, moduli, n], in either form.
    moduli: of the residues.

  Returns:
    uint64 [outputs, size, moduli, n].

  Raises:
    ValueError: weights so large that floats would round.
  """
  check(weights, moduli)
  return reduced(np.tensordot(weights.astype(np.float64), signed(values, moduli), 1), moduli)


def add_constant(context: bfv.Context, value: np.ndarray, constant: int) -> np.ndarray:
  """A value with a public integer added to every slot."""
  plain = np.zeros(context.degree, np.uint64)
  plain[0] = constant % context.parameters.plain_modulus
  return np.concatenate([context.add_scaled(value[0], plain)[None], value[1:]])


def square(context: bfv.Context, value: np.ndarray) -> np.ndarray:
  """Every slot times itself; sizes 2 and 3 become 3 and 5."""
  return context.polynomials(context.evaluator.square(context.ciphertext(value, ntt=False)))


def hidden(public: bfv.PublicKey, value: np.ndarray, randomness: Randomness) -> np.ndarray:
  """The same slots in a ciphertext that shows nothing else; used for one reply."""
  context = public.context
  moduli = context.moduli[:, None]
  total = value.copy()
  for place in range(len(value) - 1):
    zero = context.polynomials(public.fresh_zero(randomness))
    total[place : place + 2] = (total[place : place + 2] + zero) % moduli
  room = (context.modulus // (2 * context.parameters.plain_modulus)).bit_length() - 1
  flood = _uniform(randomness, room - _MARGIN, context)
  total[0] = (total[0] + flood) % moduli
  return total


def _uniform(randomness: Randomness, bits: int, context: bfv.Context) -> np.ndarray:
  """A polynomial with coefficients uniform in [0, 2^bits), residues [moduli, N]."""
  whole, rest = divmod(bits, int(_LIMB))
  total = np.zeros((context.moduli.size, context.degree), np.uint64)
  for width in [rest] * bool(rest) + [int(_LIMB)] * whole:
    limb = randomness.ring(width, context.degree)
    total = ((total << _LIMB) + limb) % context.moduli[:, None]
  return total


def combine(residues: np.ndarray, moduli: list[int]) -> np.ndarray:
  """The signed integers of residues [moduli, ...] by the Chinese remainder theorem, as objects."""
  product = math.prod(moduli)
  total = sum(
    part.astype(object) * (product // t * pow(product // t, -1, t))
    for part, t in zip(residues, moduli)
  )
  total = total % product
  return np.where(total > product // 2, total - product, total)

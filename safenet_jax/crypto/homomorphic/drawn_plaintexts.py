"""Encryptions of random plaintexts, in a third of the bytes of others.

    client: SecretKey                            server: Context

    draw: r, and its ciphertext
      seed, offsets, other c0  --------------->  load: Enc(r)

For a secret key s, Enc(r) is (c0, c1) with c1 = a uniform and c0 = e + round(q r / t) - a s,
as in `bfv`. Where r may be any uniform value, most of c0 may be chosen first. The seed
gives a and, for each such coefficient, a value h in [0, t). The client takes the r for
which c0 is next to round(q h / t), and sends how far it is from there:

    x = round(q h / t) + a s - e,  r = round(x t / q)
    offset = c0 - round(q h / t) = round(q r / t) - x

An offset is in an interval of B = floor(q / t) - 4 numbers around 0. In the ring of 56 bits
it takes 27 bits, where c0 has 83. Coefficients whose plaintext is given, such as zeros between
the rows of a map, are sent whole.

What the server sees. By ring-LWE (a, e - a s) is as a uniform pair (a, b). Then c0 is uniform
in the coefficients that are sent whole. For the others, any two of the points round(q r / t)
are B + 4 or more apart, so that x is nearest to the r of its offset, by more than rounding
can change. So each pair of r and offset belongs to one b, and a b to one pair or none: given
h and a, r is uniform over [0, t), and independent of the offset. The few b that belong to none
(about 5 in q / t) make the client draw a new seed for the whole polynomial. Which seed is sent
says that its b all belong to pairs, and nothing else.
"""

import numpy as np

from safenet_jax.crypto import bit_packing
from safenet_jax.crypto.homomorphic import bfv, residues
from safenet_jax.crypto.randomness import Randomness


def _room(context: bfv.Context) -> int:
  """B, the number of offsets."""
  return context.modulus // context.parameters.plain_modulus - 4


def width(context: bfv.Context) -> int:
  """Bits of an offset."""
  return (_room(context) - 1).bit_length()


def size(context: bfv.Context, free: np.ndarray) -> int:
  """Bytes of polynomials whose random coefficients are `free`, bool [n, degree]."""
  return sum(sum(_sizes(context, int(count))) for count in np.count_nonzero(free, axis=1))


def _sizes(context: bfv.Context, count: int) -> tuple[int, int, int]:
  """Bytes of the parts of one polynomial with so many random coefficients."""
  offsets = bit_packing.size(count, width(context))
  others = residues.size(context.moduli, context.degree - count)
  return residues.SEED_BYTES, offsets, others


def _expand(context: bfv.Context, seed: bytes, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """a in NTT form [moduli, degree], and h [degree], zero where it is not free."""
  stream = residues.Expansion(seed)
  a = residues.uniform(stream, context.moduli, (context.degree,))
  h = np.zeros(context.degree, np.uint64)
  h[free] = stream.residues(context.parameters.plain_modulus, int(np.count_nonzero(free)))
  return a, h


def draw(
  secret: bfv.SecretKey, plain: np.ndarray, free: np.ndarray, randomness: Randomness
) -> tuple[bytes, np.ndarray]:
  """Client: the message of polynomials, and their plaintexts, uint64 [n, degree].

  Args:
    secret: the key.
    plain: uint64 [n, degree] below t, the plaintexts where they are given.
    free: bool [n, degree], where they are drawn.
    randomness: of the seeds and the noise.
  """
  parts: list[bytes] = [b''] * len(plain)
  found = plain.copy()
  left = list(range(len(plain)))
  while left:
    failed = []
    for pair in (left[start : start + 2] for start in range(0, len(left), 2)):
      seeds = [randomness.bytes(residues.SEED_BYTES) for _ in pair]
      expanded = [_expand(secret.context, seed, free[k]) for seed, k in zip(seeds, pair)]
      products = secret.multiply([a for a, _ in expanded])
      for seed, k, (_, h), product in zip(seeds, pair, expanded, products):
        part = _offsets(secret.context, found[k], free[k], h, product, randomness)
        if part is None:
          failed.append(k)
        else:
          parts[k] = seed + part
    left = failed
  return b''.join(parts), found


def _offsets(
  context: bfv.Context,
  plain: np.ndarray,
  free: np.ndarray,
  h: np.ndarray,
  product: np.ndarray,
  randomness: Randomness,
) -> bytes | None:
  """The message behind the seed, and the free plaintexts; None if an offset is too large.

  `product` is a s.
  """
  moduli, room = context.moduli, _room(context)
  noise = residues.from_signed(bfv.binomial(randomness, context.degree), moduli)
  noise = residues.subtract(noise, product, moduli)
  start = context.add_scaled(np.zeros_like(noise), h)
  x = residues.subtract(start, noise, moduli)
  plain[free] = residues.nearest(x, moduli, context.parameters.plain_modulus)[free]
  c0 = context.add_scaled(noise, plain)
  # An offset is small, so that its residue modulo one prime tells all of it.
  offsets = residues.subtract(c0[:1], start[:1], moduli[:1])[0][free]
  offsets = (offsets + np.uint64(room // 2 % int(moduli[0]))) % moduli[0]
  if offsets.size and offsets.max() >= room:
    return None
  rest = np.ascontiguousarray(c0[:, ~free])
  return bit_packing.pack(offsets, width(context)) + residues.pack(rest, moduli)


def load(context: bfv.Context, upload: bytes, free: np.ndarray) -> list:
  """Server: the ciphertexts, in NTT form, of polynomials whose coefficients are `free`.

  Raises:
    ValueError: the length is wrong, or an offset or a residue is too large.
  """
  if len(upload) != size(context, free):
    raise ValueError(f'upload of {len(upload)} bytes, want {size(context, free)}')
  room, start = _room(context), 0
  firsts, seconds = [], []
  for each in free:
    count = int(np.count_nonzero(each))
    parts = []
    for length in _sizes(context, count):
      parts.append(upload[start : start + length])
      start += length
    offsets = bit_packing.unpack(parts[1], count, width(context))
    if count and offsets.max() >= room:
      raise ValueError(f'an offset of {offsets.max()}, want below {room}')
    a, h = _expand(context, parts[0], each)
    c0 = np.empty((context.moduli.size, context.degree), np.uint64)
    signed = residues.from_signed(offsets.astype(np.int64) - room // 2, context.moduli)
    rest = residues.unpack(parts[2], context.moduli, (context.degree - count,))
    for row, drawn, given in zip(c0, signed, rest):
      row[each], row[~each] = drawn, given
    firsts.append(context.add_scaled(c0, h))
    seconds.append(a)
  return [
    context.ciphertext(np.stack(halves), ntt=True)
    for halves in zip(context.to_ntt(firsts), seconds)
  ]

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
  """Client: one polynomial's message, and its plaintext, uint64 [degree].

  Args:
    secret: the key.
    plain: uint64 [degree] below t, the plaintext where it is given.
    free: bool [degree], where it is drawn.
    randomness: of the seed and the noise.
  """
  context, room = secret.context, _room(secret.context)
  first = context.moduli[0]
  while True:
    seed = randomness.bytes(residues.SEED_BYTES)
    a, h = _expand(context, seed, free)
    noise = residues.subtract(
      residues.from_signed(bfv.binomial(randomness, context.degree), context.moduli),
      secret.multiply(a),
      context.moduli,
    )
    zeros = np.zeros_like(noise)
    start = context.add_scaled(zeros, h)
    drawn = context.round(residues.subtract(start, noise, context.moduli))
    found = np.where(free, drawn, plain)
    c0 = context.add_scaled(noise, found)
    # An offset is small, so that its residue modulo one prime tells all of it.
    offsets = residues.subtract(c0, start, context.moduli)[0][free]
    offsets = (offsets + np.uint64(room // 2 % int(first))) % first
    if not offsets.size or offsets.max() < room:
      break
  parts = bit_packing.pack(offsets, width(context)), residues.pack(c0[:, ~free], context.moduli)
  return seed + b''.join(parts), found


def load(context: bfv.Context, upload: bytes, free: np.ndarray) -> list:
  """Server: the ciphertexts, in NTT form, of polynomials whose coefficients are `free`.

  Raises:
    ValueError: the length is wrong, or an offset or a residue is too large.
  """
  if len(upload) != size(context, free):
    raise ValueError(f'upload of {len(upload)} bytes, want {size(context, free)}')
  room, found, start = _room(context), [], 0
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
    c0[:, each] = residues.from_signed(offsets.astype(np.int64) - room // 2, context.moduli)
    rest = context.degree - count
    c0[:, ~each] = residues.unpack(parts[2], context.moduli, (rest,))
    found.append(context.with_second(context.add_scaled(c0, h), a))
  return found

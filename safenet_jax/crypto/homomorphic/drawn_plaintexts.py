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
are B + 4 or more apart, so that x is nearest to the r of its offset. The client finds that r
also where floats round to its neighbour. So each pair of r and offset belongs to one b, and a
b to one pair or none: given h and a, r is uniform over [0, t), and independent of the offset.
The few b that belong to none (about 5 in q / t) make the client draw a new seed for the whole
polynomial. Which seed is sent says that its b all belong to pairs, and nothing else.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

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


def size(context: bfv.Context, polynomials: int, free: int) -> int:
  """Bytes of `encode` of so many polynomials, in all of which so many coefficients are drawn."""
  return sum(_sizes(context, polynomials, free))


def _sizes(context: bfv.Context, polynomials: int, free: int) -> tuple[int, int, int]:
  """Bytes of the seeds, of the offsets, and of the other coefficients."""
  return (
    polynomials * residues.SEED_BYTES,
    bit_packing.size(free, width(context)),
    residues.size(context.moduli, polynomials * context.degree - free),
  )


class Part(NamedTuple):
  """What `draw` makes of some polynomials.

  seeds: of each polynomial.
  offsets: uint64, less their least value, one after another.
  others: c0 of the coefficients that are given, residues [moduli, n].
  """

  seeds: bytes
  offsets: np.ndarray
  others: np.ndarray


def encode(context: bfv.Context, parts: Sequence[Part]) -> bytes:
  """The message of all polynomials of a map."""
  seeds, offsets, others = zip(*parts)
  packed = bit_packing.pack(np.concatenate(offsets), width(context))
  return b''.join(seeds) + packed + residues.pack(np.concatenate(others, axis=1), context.moduli)


def _expand(context: bfv.Context, seed: bytes, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """a in NTT form [moduli, degree], and h [degree], zero where it is not free."""
  stream = residues.Expansion(seed)
  a = residues.uniform(stream, context.moduli, (context.degree,))
  h = np.zeros(context.degree, np.uint64)
  h[free] = stream.residues(context.parameters.plain_modulus, int(np.count_nonzero(free)))
  return a, h


def draw(
  secret: bfv.SecretKey, plain: np.ndarray, free: np.ndarray, randomness: Randomness
) -> tuple[Part, np.ndarray]:
  """Client: polynomials for `encode`, and their plaintexts, uint64 [n, degree].

  Args:
    secret: the key.
    plain: uint64 [n, degree] below t, the plaintexts where they are given.
    free: bool [n, degree], where they are drawn.
    randomness: of the seeds and the noise.
  """
  found = plain.copy()
  parts: dict[int, Part] = {}
  while left := [k for k in range(len(plain)) if k not in parts]:
    for pair in (left[start : start + 2] for start in range(0, len(left), 2)):
      seeds = [randomness.bytes(residues.SEED_BYTES) for _ in pair]
      expanded = [_expand(secret.context, seed, free[k]) for seed, k in zip(seeds, pair)]
      products = secret.multiply([a for a, _ in expanded])
      for seed, k, (_, h), product in zip(seeds, pair, expanded, products):
        halves = _offsets(secret.context, found[k], free[k], h, product, randomness)
        if halves is not None:
          parts[k] = Part(seed, *halves)
  ordered = [parts[k] for k in range(len(plain))]
  seeds_, offsets, others = zip(*ordered)
  return Part(b''.join(seeds_), np.concatenate(offsets), np.concatenate(others, axis=1)), found


def _offsets(
  context: bfv.Context,
  plain: np.ndarray,
  free: np.ndarray,
  h: np.ndarray,
  product: np.ndarray,
  randomness: Randomness,
) -> tuple[np.ndarray, np.ndarray] | None:
  """Offsets and other coefficients of a polynomial; None if an offset is too large.

  Fills in the free plaintexts. `product` is a s.
  """
  moduli, room = context.moduli, _room(context)
  noise = residues.from_signed(residues.binomial(randomness, context.degree), moduli)
  noise = residues.subtract(noise, product, moduli)
  start = context.add_scaled(np.zeros_like(noise), h)
  x = residues.subtract(start, noise, moduli)
  top = np.uint64(context.parameters.plain_modulus - 1)
  plain[free] = residues.nearest(x, moduli, top.item() + 1)[free]
  for _ in range(2):
    c0 = context.add_scaled(noise, plain)
    # An offset is small, so that its residue modulo one prime tells all of it.
    offsets = residues.subtract(c0[:1], start[:1], moduli[:1])[0][free]
    offsets = (offsets + np.uint64(room // 2 % int(moduli[0]))) % moduli[0]
    outside = offsets >= room
    if not outside.any():
      return offsets, c0[:, ~free]
    # Floats may have rounded to a neighbour of r, and whether they do depends on r. So the pair
    # is looked for there too; only what belongs to none is refused.
    above = outside & (offsets < moduli[0] // np.uint64(2))
    plain[free] = (plain[free] + (outside & ~above) - above) & top
  return None


def load(context: bfv.Context, upload: bytes, free: np.ndarray) -> list[Any]:
  """Server: the ciphertexts, in NTT form, of polynomials whose coefficients are `free`.

  Raises:
    ValueError: the length is wrong, or an offset or a residue is too large.
  """
  total, room = int(np.count_nonzero(free)), _room(context)
  sizes = _sizes(context, len(free), total)
  if len(upload) != sum(sizes):
    raise ValueError(f'upload of {len(upload)} bytes, want {sum(sizes)}')
  end = sizes[0] + sizes[1]
  offsets = bit_packing.unpack(upload[sizes[0] : end], total, width(context))
  if total and offsets.max() >= room:
    raise ValueError(f'an offset of {offsets.max()}, want below {room}')
  drawn = residues.from_signed(offsets.astype(np.int64) - room // 2, context.moduli)
  given = residues.unpack(upload[end:], context.moduli, (free.size - total,))
  c0 = np.empty((context.moduli.size, *free.shape), np.uint64)
  for row, ours, theirs in zip(c0, drawn, given):
    row[free], row[~free] = ours, theirs
  found: list[Any] = []
  for start in range(0, len(free), 2):
    firsts, seconds = [], []
    for k in range(start, min(start + 2, len(free))):
      seed = upload[residues.SEED_BYTES * k : residues.SEED_BYTES * (k + 1)]
      a, h = _expand(context, seed, free[k])
      firsts.append(context.add_scaled(c0[:, k], h))
      seconds.append(a)
    halves = zip(context.to_ntt(firsts), seconds)
    found += [context.ciphertext(np.stack(pair), ntt=True) for pair in halves]
  return found

"""Replies that tell the client its additive share of a plaintext, and no more.

    server: c0, c1 of a result                   client

    z uniform over Z_q         ---- z, c1 ---->  alpha = round((z + c1 s) t / q)
    beta = round((c0 - z) t / q)

(c0, c1) is a BFV ciphertext modulo q of a plaintext modulo t, and s is the client's
secret key. alpha + beta is the plaintext mod t, unless the noise carries over in the
rounding: a coefficient is off by one with probability E|noise| t / q.

The mask of c0 is v = c0 - z. It is not drawn: z is, from a fresh seed of the server, and
the seed is all that is sent of it.

c1 is sent without its low d bits (`residues.pack_high`). What is missing adds to the noise:
up to 2^(d-1) for each coefficient, times the coefficients of s, which are -1, 0 and 1. So
E|noise| grows by less than 2^d sqrt(N / 18), for the N coefficients of a polynomial.

What the client sees: z = c0 - v is uniform, whatever the plaintext and its noise are,
because it is drawn without them. v is then uniform as well, and known to the server alone.
So alpha is independent of the server's inputs. The seed may be public, as that of c1 of a
fresh ciphertext may. It is the server's choice, as v was.

c1 = a W + pk1 u + e1. Here a is the c1 of what the client sent, W stands for the server's
inputs, and pk1 u + e1 is the second half of a fresh Enc(0): pk1 is the second half of the
public key, and u and e1 are fresh and small. (pk1, pk1 u + e1) is a sample of ring-LWE with
the secret u, so that pk1 u + e1 is uniform to the client, and c1 with it, if two things
hold:

- pk1 is uniform, and not of the client's choice. Both parties expand it from a seed that
  the server drew before (`bfv`). A client that chose pk1 = 0 or 1 would read a W + small
  noise, for an a that it knows: no test of pk1 finds all the keys that do this.
- The client sees no other equation in u. There is one in c0, pk0 u + e0, and v hides it, except
  in the last layer, whose sum of both shares the client is to have. A client that follows the
  protocol gets the logits with it. One that sends another pk0 gets log2(t) bits of pk0 u at each
  logit instead, some 17 coefficients of u at most. With 10 classes these are 170 of 2048; with
  1,000, of which one polynomial holds some hundred, they may be all. Where they are all, c1
  still hides W as ring-LWE does, because a is expanded from a seed, and low bits of c1 are
  missing; but it is not uniform then.

What is sent of c1 is computed from c1 alone. Nothing is assumed of pk0, a and c0, which the
client chooses. A client that deviates in them gets other results, but z and c1 stay uniform
to it. Replies are many samples
under one pk1, each with its own u, which is as hard as one of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from safenet_jax.crypto.homomorphic import bfv, residues
from safenet_jax.crypto.randomness import Randomness


def size(context: bfv.Context, ciphertexts: int) -> int:
  """Bytes of a reply of so many ciphertexts."""
  count, dropped = ciphertexts * context.degree, context.parameters.dropped
  return residues.SEED_BYTES + residues.size(context.moduli, count, dropped)


def mask(
  context: bfv.Context,
  ciphertexts: Sequence[Any],
  places: np.ndarray,
  randomness: Randomness,
) -> tuple[bytes, np.ndarray]:
  """Server: a message, and the mask v.

  Args:
    context: of the ciphertexts.
    ciphertexts: from `PublicKey.combine`.
    places: int [n], the indices of [ciphertexts, degree], flattened, that hold results.
    randomness: the seed's source.

  Returns:
    The message, and v [moduli, n], of which `Context.round` makes beta.
  """
  moduli = context.moduli
  pairs = np.stack([context.polynomials(c) for c in ciphertexts], axis=2)
  seed = randomness.bytes(residues.SEED_BYTES)
  useful = pairs[0].reshape(moduli.size, -1)[:, places]
  hidden = residues.subtract(useful, _drawn(context, seed, places), moduli)
  second = residues.pack_high(pairs[1].swapaxes(0, 1), moduli, context.parameters.dropped)
  return seed + second, hidden


def _drawn(context: bfv.Context, seed: bytes, places: np.ndarray) -> np.ndarray:
  """z [moduli, n] of n places."""
  return residues.uniform(residues.Expansion(seed), context.moduli, (places.size,))


def unmask(
  secret: bfv.SecretKey, message: bytes, ciphertexts: int, places: np.ndarray
) -> np.ndarray:
  """Client: alpha, uint64 [n] below t, for the same n places.

  Raises:
    ValueError: the length is wrong or a digit of c1 is too large.
  """
  context = secret.context
  moduli, want = context.moduli, size(context, ciphertexts)
  if len(message) != want:
    raise ValueError(f'reply of {len(message)} bytes, want {want}')
  seed, second = message[: residues.SEED_BYTES], message[residues.SEED_BYTES :]
  pairs = np.zeros((2, moduli.size, ciphertexts, context.degree), np.uint64)
  pairs[0].reshape(moduli.size, -1)[:, places] = _drawn(context, seed, places)
  shape = ciphertexts, context.degree
  pairs[1] = residues.unpack_high(second, moduli, shape, context.parameters.dropped).swapaxes(0, 1)
  decrypted = [secret.decrypt(pairs[:, :, k]) for k in range(ciphertexts)]
  return np.concatenate(decrypted)[places]

"""Replies that tell the client its additive share of a plaintext, and no more.

    server: c0, c1 of a result                   client

    mask v uniform over Z_q    -- c0 - v, c1 ->  alpha = round((c0 - v + c1 s) t / q)
    beta = round(v t / q)

(c0, c1) is a BFV ciphertext modulo q of a plaintext modulo t, and s is the client's
secret key. alpha + beta is the plaintext mod t, unless the noise carries over in the
rounding: a coefficient is off by one with probability E|noise| t / q.

What the client sees: c0 - v is exactly uniform, whatever the plaintext and its
noise are, because v is uniform over Z_q, fresh and used once. So alpha is independent
of the server's inputs. Coefficients of c0 that hold no result are not sent.

c1 = a W + pk1 u + e1. Here a is the c1 of what the client sent, W stands for the server's
inputs, and pk1 u + e1 is the second half of a fresh Enc(0): pk1 is the second half of the
public key, and u and e1 are fresh and small. (pk1, pk1 u + e1) is a sample of ring-LWE with
the secret u, so that pk1 u + e1 is uniform to the client, and c1 with it, if two things
hold:

- pk1 is uniform, and not of the client's choice. Both parties expand it from a seed that
  the server drew before (`bfv`). A client that chose pk1 = 0 or 1 would read a W + small
  noise, and divide by a: no test of pk1 finds all the keys that do this.
- The client sees no other equation in u. There is one in c0, pk0 u + e0, and v hides it.

Nothing is assumed of pk0, a and c0, which the client chooses. A client that deviates in
them gets other results, but c0 - v and c1 stay uniform to it. Replies are many samples
under one pk1, each with its own u, which is as hard as one of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from safenet_jax.crypto.homomorphic import bfv, residues
from safenet_jax.crypto.randomness import Randomness


def size(context: bfv.Context, ciphertexts: int, places: int) -> int:
  """Bytes of a reply of so many ciphertexts and places."""
  first = residues.size(context.moduli, places)
  return first + residues.size(context.moduli, ciphertexts * context.degree)


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
    randomness: the mask's source.

  Returns:
    The message, and v [moduli, n], of which `Context.round` makes beta.
  """
  moduli = context.moduli
  pairs = np.stack([context.polynomials(c) for c in ciphertexts], axis=2)
  useful = pairs[0].reshape(moduli.size, -1)[:, places]
  drawn = residues.uniform(randomness, moduli, (places.size,))
  hidden = residues.subtract(useful, drawn, moduli)
  second = pairs[1].swapaxes(0, 1)
  return residues.pack(hidden, moduli) + residues.pack(second, moduli), drawn


def unmask(
  secret: bfv.SecretKey, message: bytes, ciphertexts: int, places: np.ndarray
) -> np.ndarray:
  """Client: alpha, uint64 [n] below t, for the same n places.

  Raises:
    ValueError: the length is wrong or a residue is not below its modulus.
  """
  context = secret.context
  moduli, want = context.moduli, size(context, ciphertexts, places.size)
  if len(message) != want:
    raise ValueError(f'reply of {len(message)} bytes, want {want}')
  split = residues.size(moduli, places.size)
  pairs = np.zeros((2, moduli.size, ciphertexts, context.degree), np.uint64)
  useful = residues.unpack(message[:split], moduli, (places.size,))
  pairs[0].reshape(moduli.size, -1)[:, places] = useful
  second = residues.unpack(message[split:], moduli, (ciphertexts, context.degree))
  pairs[1] = second.swapaxes(0, 1)
  decrypted = [secret.decrypt(pairs[:, :, k]) for k in range(ciphertexts)]
  return np.concatenate(decrypted)[places]

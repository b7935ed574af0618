"""Products of two parties' secret vectors: oblivious linear evaluation.

    client (a_1 .. a_K)                          server (b_1 .. b_K)

    request                  -- Enc(a_j) --->    reply
    finish: alpha            <-- masked -----      beta

    alpha + beta = sum over j of a_j * b_j mod p, elementwise

alpha and beta are the parties' shares of the result. Elements lie in the N = 8192
slots of BFV ciphertexts with plaintext modulus p. So one reply ciphertext serves N
elements, however many products K it sums. alpha is uniform, and independent of every
b (`replies`).

The request and each block of the reply carry an identifier (`messages`) of the key,
the parameters, the step and the caller's tag; a tag is used once with a key.
"""

import numpy as np

from safenet_jax.crypto import messages
from safenet_jax.crypto.homomorphic import bfv, replies
from safenet_jax.crypto.randomness import Randomness


def request_size(context: bfv.Context, products: int, count: int) -> int:
  """Bytes of `request`."""
  return messages.BYTES + context.upload_size(products * _blocks(context, count))


def reply_size(context: bfv.Context, count: int) -> int:
  """Bytes of `reply`, which do not depend on the number of products."""
  return _blocks(context, count) * _block_size(context)


def _block_size(context: bfv.Context) -> int:
  return messages.BYTES + replies.size(context, 1)


def request(secret: bfv.SecretKey, a: np.ndarray, randomness: Randomness, tag: bytes) -> bytes:
  """Client: encrypts a, uint64 [products, n] below p.

  `tag` tells requests under one key apart; `reply` and `finish` get the same.

  Raises:
    ValueError: a is not such an array.
  """
  blocks = _split(secret.context, a)
  values = blocks.reshape(-1, secret.context.degree)
  coefficients = [secret.context.to_coefficients(block) for block in values]
  header = _request_identifier(secret.fingerprint, tag)
  return header + secret.encrypt(np.stack(coefficients), randomness)


def reply(
  public: bfv.PublicKey,
  message: bytes,
  b: np.ndarray,
  randomness: Randomness,
  tag: bytes,
) -> tuple[bytes, np.ndarray]:
  """Server: multiplies by b, uint64 [products, n] below p.

  A block of 8192 zeros in b is skipped, which takes less time and could be noticed. So
  b should be uniform, as it is in the protocol, or the same for all clients.

  Returns:
    The message and beta [n].

  Raises:
    ValueError: b is not such an array, or the request's length does not fit it, or
      the request is of another key or tag.
  """
  context, key = public.context, public.fingerprint
  blocks = _split(context, b)
  products, count, _ = blocks.shape
  want = request_size(context, products, b.shape[1])
  if len(message) != want:
    raise ValueError(f'request of {len(message)} bytes, want {want}')
  body = messages.read('request', message, _request_identifier(key, tag))
  with context.reply_lock:
    parts, shares = _reply(public, body, blocks, randomness, tag)
  return b''.join(parts), np.concatenate(shares)[: b.shape[1]]


def _reply(
  public: bfv.PublicKey, body: bytes, blocks: np.ndarray, randomness: Randomness, tag: bytes
) -> tuple[list[bytes], list[np.ndarray]]:
  """Parts of the message, and beta, of each of the blocks [products, count, degree]."""
  context = public.context
  products, count, _ = blocks.shape
  encrypted = context.load(body, products * count)
  parts, shares = [], []
  places = np.arange(context.degree)
  for block in range(count):
    used = [j for j in range(products) if blocks[j, block].any()]
    multipliers = [[context.multiplier(context.to_coefficients(blocks[j, block]))] for j in used]
    chosen = [encrypted[j * count + block] for j in used]
    totals = public.combine(chosen, multipliers, randomness)
    totals = totals or [public.fresh_zero(randomness)]
    masked, mask = replies.mask(context, totals, places, randomness)
    parts += [_reply_identifier(public.fingerprint, tag, block), masked]
    shares.append(context.to_slots(context.round(mask)))
  return parts, shares


def finish(secret: bfv.SecretKey, message: bytes, count: int, tag: bytes) -> np.ndarray:
  """Client: alpha, uint64 [count].

  Raises:
    ValueError: the length of the reply is wrong or a residue not below its modulus, or
      the reply is of another key or tag.
  """
  context = secret.context
  if len(message) != reply_size(context, count):
    raise ValueError(f'reply of {len(message)} bytes, want {reply_size(context, count)}')
  size = _block_size(context)
  places = np.arange(context.degree)
  shares = []
  for block in range(_blocks(context, count)):
    want = _reply_identifier(secret.fingerprint, tag, block)
    body = messages.read('reply', message[block * size : (block + 1) * size], want)
    shares.append(context.to_slots(replies.unmask(secret, body, 1, places)))
  return np.concatenate(shares)[:count]


def _request_identifier(key: bytes, tag: bytes) -> bytes:
  return messages.identifier(b'request', key, tag)


def _reply_identifier(key: bytes, tag: bytes, block: int) -> bytes:
  return messages.identifier(b'share', key, tag, b'%d' % block)


def _blocks(context: bfv.Context, count: int) -> int:
  return -(-count // context.degree)


def _split(context: bfv.Context, values: np.ndarray) -> np.ndarray:
  """[products, n] as [products, blocks, degree], zeros at the end."""
  modulus = context.parameters.plain_modulus
  if values.ndim != 2 or not values.size or values.dtype != np.uint64:
    raise ValueError(f'{values.dtype} {values.shape}, want uint64 [products, n]')
  if values.max() >= modulus:
    raise ValueError(f'a value of {values.max()}, want below {modulus}')
  blocks = _blocks(context, values.shape[1])
  padding = blocks * context.degree - values.shape[1]
  padded = np.pad(values, ((0, 0), (0, padding)))
  return padded.reshape(len(values), blocks, context.degree)

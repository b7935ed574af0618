"""Random and chosen transfers and products of words, from correlated labels.

The labels q and t = q xor r * delta of `oblivious_transfer` are hashed:

    pads of the sender      w_0 = H(q), w_1 = H(q xor delta)
    pad of the receiver     w_r = H(t)

which is a random transfer. H is keyed (`hashing`), with a fresh public key for
every 2^14 rows, drawn by either party with `hash_keys` and sent to the other.
The pad w_{1-r} is uniform to the receiver as long as delta is secret, and r has
no influence on what the sender computes.

    chosen       sender -> receiver   m_c xor w_c for both c
    products     sender -> receiver   e = factor + w_0 - w_1 mod 2^bits
                 shares               -w_0 and w_r + r * e: sum to r * factor

Either message holds the receiver's unknown pad in each word, so it is uniform
but for the chosen word, which the receiver is to learn. A pad hides one message:
use the labels of a tag for one transfer or one product, once.

The labels of a garbled output serve as well: with q = `Encoding.output_labels`,
t = `Outputs.labels` and r the colour, a chosen transfer encrypts a word under
each of them. Constant outputs have no secret label.
"""

from collections.abc import Iterator

import numpy as np

from safenet_jax.crypto import hashing
from safenet_jax.crypto import randomness as randomness_lib


def hash_keys(
    count: int, randomness: randomness_lib.Randomness
) -> np.ndarray:
  """Fresh public keys for `count` labels, uint8 [ceil(count / 2^14), 32]."""
  blocks = -(-count // hashing.MAX_ROWS)
  keys = randomness.bytes(blocks * hashing.KEY_BYTES)
  return np.frombuffer(keys, np.uint8).reshape(blocks, hashing.KEY_BYTES)


def receiver_pads(labels: np.ndarray, keys: np.ndarray) -> np.ndarray:
  """The chosen pads, uint64 [n], from labels t, uint64 [n, 2]."""
  pads = np.empty(len(labels), np.uint64)
  for rows, key in _blocks(len(labels), keys):
    pads[rows] = hashing.hash_labels(labels[rows], key)
  return pads


def sender_pads(
    labels: np.ndarray, delta: np.ndarray, keys: np.ndarray
) -> np.ndarray:
  """Both pads of every transfer, uint64 [2, n], from labels q, uint64 [n, 2]."""
  pads = np.empty((2, len(labels)), np.uint64)
  for rows, key in _blocks(len(labels), keys):
    pads[0, rows] = hashing.hash_labels(labels[rows], key)
    pads[1, rows] = hashing.hash_labels(labels[rows] ^ delta, key)
  return pads


def send_chosen(
    words: np.ndarray, pads: np.ndarray, *, bits: int
) -> np.ndarray:
  """The message that offers words[0] and words[1].

  Args:
    words: uint64 [2, n], below 2^bits.
    pads: `sender_pads`, uint64 [2, n].
    bits: width of the words, 1 to 64.

  Returns:
    uint64 [2, n], below 2^bits.
  """
  _check_words(words, pads.shape, bits, 'words')
  return words ^ (pads & _mask(bits))


def receive_chosen(
    message: np.ndarray, choices: np.ndarray, pads: np.ndarray, *, bits: int
) -> np.ndarray:
  """The chosen words, uint64 [n].

  Args:
    message: from `send_chosen`.
    choices: packed as for the labels, uint8 [ceil(n / 8)].
    pads: `receiver_pads`, uint64 [n].
    bits: width of the words.
  """
  _check_words(message, (2, len(pads)), bits, 'message')
  chosen = _select(choices, len(pads))
  # Selected by mask, so that no branch depends on the choice.
  picked = message[0] ^ ((message[0] ^ message[1]) & chosen)
  return picked ^ (pads & _mask(bits))


def send_products(
    factors: np.ndarray, pads: np.ndarray, *, bits: int
) -> tuple[np.ndarray, np.ndarray]:
  """The message and the sender's shares of choice * factor mod 2^bits.

  Args:
    factors: uint64 [n], below 2^bits.
    pads: `sender_pads`, uint64 [2, n].
    bits: width of the ring, 1 to 64.

  Returns:
    message and shares, uint64 [n], below 2^bits.
  """
  _check_words(factors, pads.shape[1:], bits, 'factors')
  mask = _mask(bits)
  message = (factors + pads[0] - pads[1]) & mask
  return message, (np.uint64(0) - pads[0]) & mask


def receive_products(
    message: np.ndarray, choices: np.ndarray, pads: np.ndarray, *, bits: int
) -> np.ndarray:
  """The receiver's shares of choice * factor, uint64 [n], below 2^bits.

  Args:
    message: from `send_products`.
    choices: packed as for the labels, uint8 [ceil(n / 8)].
    pads: `receiver_pads`, uint64 [n].
    bits: width of the ring.
  """
  _check_words(message, pads.shape, bits, 'message')
  chosen = _select(choices, len(pads))
  return (pads + (message & chosen)) & _mask(bits)


def _blocks(count: int, keys: np.ndarray) -> Iterator[tuple[slice, bytes]]:
  want = (-(-count // hashing.MAX_ROWS), hashing.KEY_BYTES)
  if keys.dtype != np.uint8 or keys.shape != want:
    raise ValueError(f'keys are {keys.dtype} {keys.shape}, want uint8 {want}')
  for block, key in enumerate(keys):
    start = block * hashing.MAX_ROWS
    yield slice(start, start + hashing.MAX_ROWS), key.tobytes()


def _select(choices: np.ndarray, count: int) -> np.ndarray:
  """All ones where the choice bit is set, else zero, uint64 [count]."""
  want = ((count + 7) // 8,)
  if choices.dtype != np.uint8 or choices.shape != want:
    raise ValueError(
        f'choices are {choices.dtype} {choices.shape}, want uint8 {want}'
    )
  flags = np.unpackbits(choices, count=count, bitorder='little')
  return np.uint64(0) - flags.astype(np.uint64)


def _mask(bits: int) -> np.uint64:
  if not 1 <= bits <= 64:
    raise ValueError(f'words of {bits} bits, want 1 to 64')
  return np.uint64((1 << bits) - 1)


def _check_words(
    words: np.ndarray, shape: tuple[int, ...], bits: int, name: str
) -> None:
  if words.dtype != np.uint64 or words.shape != shape:
    raise ValueError(
        f'{name} are {words.dtype} {words.shape}, want uint64 {shape}'
    )
  if np.any(words > _mask(bits)):
    raise ValueError(f'{name} hold {words.max()}, want below 2^{bits}')

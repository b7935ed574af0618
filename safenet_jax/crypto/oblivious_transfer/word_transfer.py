"""Random words and products of two parties' secrets, from correlated transfers.

A correlated transfer (`correlated_transfer`) leaves the sender with a label q, and with
delta, which is the same for all transfers. The receiver, who chose a bit r, gets the label
t = q xor r * delta. Both hash their labels to words:

    pads of the sender      w_0 = H(q), w_1 = H(q xor delta)
    pad of the receiver     w_r = H(t)

Those pads are random words, of which the receiver knows the one that it chose. H is keyed
(`hashing`), with a fresh public key for every 2^14 labels, which either party draws with
`hash_keys` and sends to the other. The other pad, w_{1-r}, is uniform to the receiver as
long as delta is secret, and what the sender computes does not depend on r.

One message turns the pads into shares of r * factor, for a factor that the sender knows:

    sender -> receiver   e = factor + w_0 - w_1 mod 2^bits
    sender's share       -w_0
    receiver's share     w_r + r * e
    their sum            r * factor mod 2^bits

Each word of the message holds the pad that the receiver does not know, so the message is
uniform to it. A pad hides one message only, so `Pads` serve once: use the labels of a tag
either as random words or for one product. A message carries an identifier of the pads' keys
(`messages`), so that pads under other keys do not open it.

The labels of a garbled output serve as well, with q = `Encoding.output_labels`,
t = `Outputs.labels` and the colour as r. Constant outputs have no secret label.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from safenet_jax.crypto import hashing, messages
from safenet_jax.crypto.randomness import Randomness


@dataclasses.dataclass
class Pads:
  """One party's pads for one message, uint64 [n] or [2, n], under an identifier."""

  words: np.ndarray
  identifier: bytes
  used: bool = dataclasses.field(default=False, init=False)

  def spend(self) -> None:
    """Raises ValueError when called again: a second message would open the first."""
    if self.used:
      raise ValueError('pads were used before, want fresh ones for every message')
    self.used = True


def hash_keys(count: int, randomness: Randomness) -> np.ndarray:
  """Fresh public keys for `count` labels, uint8 [ceil(count / 2^14), 32]."""
  blocks = -(-count // hashing.MAX_ROWS)
  keys = randomness.bytes(blocks * hashing.KEY_BYTES)
  return np.frombuffer(keys, np.uint8).reshape(blocks, hashing.KEY_BYTES)


def receiver_pads(labels: np.ndarray, keys: np.ndarray) -> Pads:
  """The chosen pads, uint64 [n], from labels t, uint64 [n, 2]."""
  pads = np.empty(len(labels), np.uint64)
  for rows, key in _blocks(len(labels), keys):
    pads[rows] = hashing.hash_labels(labels[rows], key)
  return Pads(pads, messages.identifier(keys.tobytes()))


def sender_pads(labels: np.ndarray, delta: np.ndarray, keys: np.ndarray) -> Pads:
  """Both pads of every transfer, uint64 [2, n], from labels q, uint64 [n, 2]."""
  pads = np.empty((2, len(labels)), np.uint64)
  for rows, key in _blocks(len(labels), keys):
    pads[0, rows] = hashing.hash_labels(labels[rows], key)
    pads[1, rows] = hashing.hash_labels(labels[rows] ^ delta, key)
  return Pads(pads, messages.identifier(keys.tobytes()))


def random_words(pads: Pads, *, bits: int) -> np.ndarray:
  """Pads as they are, for transfers of random words: uint64 of their shape, below 2^bits."""
  pads.spend()
  return pads.words & _mask(bits)


def send_products(
  factors: np.ndarray, pads: Pads, *, bits: int
) -> tuple[messages.Words, np.ndarray]:
  """The message and the sender's shares of choice * factor mod 2^bits.

  Args:
    factors: uint64 [n], below 2^bits.
    pads: `sender_pads`, uint64 [2, n].
    bits: width of the ring, 1 to 64.

  Returns:
    The message's words and the shares, uint64 [n], below 2^bits.
  """
  first, second = pads.words
  _check_words(factors, first.shape, bits, 'factors')
  pads.spend()
  mask = _mask(bits)
  words = (factors + first - second) & mask
  return messages.Words(_identifier(pads, bits), words), (np.uint64(0) - first) & mask


def receive_products(
  message: messages.Words, choices: np.ndarray, pads: Pads, *, bits: int
) -> np.ndarray:
  """The receiver's shares of choice * factor, uint64 [n], below 2^bits.

  Args:
    message: from `send_products`.
    choices: packed as for the labels, uint8 [ceil(n / 8)].
    pads: `receiver_pads`, uint64 [n].
    bits: width of the ring.

  Raises:
    ValueError: the message has another shape or range or is for other pads, which
      can still be used, or the pads were used before.
  """
  _check_words(message.words, pads.words.shape, bits, 'message')
  messages.check('products', message.identifier, _identifier(pads, bits))
  chosen = _select(choices, len(pads.words))
  pads.spend()
  return (pads.words + (message.words & chosen)) & _mask(bits)


def _identifier(pads: Pads, bits: int) -> bytes:
  return messages.identifier(b'products', bytes([bits]), pads.identifier)


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
    raise ValueError(f'choices are {choices.dtype} {choices.shape}, want uint8 {want}')
  flags = np.unpackbits(choices, count=count, bitorder='little')
  return np.uint64(0) - flags.astype(np.uint64)


def _mask(bits: int) -> np.uint64:
  if not 1 <= bits <= 64:
    raise ValueError(f'words of {bits} bits, want 1 to 64')
  return np.uint64((1 << bits) - 1)


def _check_words(words: np.ndarray, shape: tuple[int, ...], bits: int, name: str) -> None:
  if words.dtype != np.uint64 or words.shape != shape:
    raise ValueError(f'{name} are {words.dtype} {words.shape}, want uint64 {shape}')
  if np.any(words > _mask(bits)):
    raise ValueError(f'{name} hold {words.max()}, want below 2^{bits}')

"""Oblivious transfer extension: millions of transfers from 128 base OTs.

The sender holds a 128-bit delta, the receiver choice bits r_j. They end with
labels q (sender) and t (receiver) such that

    t_j = q_j xor r_j * delta

Let the sender be the garbler of a circuit, and delta the difference between the two
labels of its wires. Then q_j is the label of value 0 of one of the evaluator's input
wires, and t_j the label of the evaluator's bit r_j. `word_transfer` makes random words
and products of them.

    CorrelatedReceiver                          CorrelatedSender
      announcement             --- 32 B --->
                               <-- 4096 B ---     choose(announcement, ...)
      correct(points)          --- 3072 B -->     finish(corrections)
    and for each tag:
      extend(tag, choices, n)  -- message -->     extend(tag, message, n)

Both extensions are one protocol, SoftSpoken OT (eprint 2022/192). It cuts the 128 bits
of delta into groups of k bits; k = 1 is IKNP in the form of eprint 2013/552. A group
has 2^k pseudorandom streams s_x, where x is a number of k bits. The receiver has all of
them. The sender has all but the one whose index x is the group's part of delta
(`base_transfer.grow_trees`).

For n transfers, every stream gives n bits, and r is the vector of the n choice bits.
Below, x and delta stand for the k bits of a group. x * s is k rows: row i is s where
bit i of x is 1, and zeros elsewhere.

    u = xor_x s_x
    v = xor_x x * s_x                the receiver's k rows of t
    w = xor_x (x xor delta) * s_x    = v xor delta * u
    d = u xor r                      the message
    w xor delta * d                  = v xor delta * r: the sender's rows of q

The sender can compute w although it lacks one stream: the weight x xor delta of that
stream is 0.

A group sends n bits for k bits of delta. This makes 128 / k bits per transfer: 16 bytes
for 'iknp' and 4 bytes for 'softspoken' (k = 4), at 2 and 4 AES blocks per transfer. (Where
the choices are random, they could be the first group's u, and for k = 4 one bit in 32
need not be sent. This is not done.)

Security, semi-honest and static, assumes CDH on Ed25519 and a random oracle for
the base OTs, AES as a pseudorandom function for the trees' leaves, and the
correlation robustness of `hashing` for what is made of the labels.
 - d is uniform to the sender: u contains the one stream that it cannot compute.
 - The receiver sees nothing that depends on delta. It cannot compute the hash of
   t_j xor delta, under which `word_transfer` sends.
 - delta is the caller's. It must be uniform except for its low bit, which is 1, fresh
   for every session, and used nowhere else but in that session's circuits.
 - A tag names a part of the streams. Two messages for one tag would reveal the
   sum of their choices, so a session takes a tag once. A tag must hold all that
   makes it unique: the session's nonce, the number of the image
   (no attempt takes one again), and the place: layer and step. The protocol chooses
   its tags in `protocol.delphi.message_shapes.Tag`.
 - A message carries an identifier (`messages`) of its tag, its count and all that
   the session's base transfers sent: a mix-up raises before anything is used.
 - Fork rule: parent and child would send messages for the same tags, so a session
   works only in the process that made it. Fork first, then make sessions.
"""

import os
import threading

import numpy as np

from safenet_jax.crypto import messages
from safenet_jax.crypto.oblivious_transfer import base_transfer, bit_planes
from safenet_jax.crypto.randomness import Randomness

# Bits of delta per group of streams.
GROUP_BITS = {'iknp': 1, 'softspoken': 4}

_BITS = 128


class _Party:
  """What both parties share: a session belongs to one process, and serves one thread at a time."""

  def __init__(self, extension: str):
    self._group_bits = _group_bits(extension)
    self._streams: bit_planes.Streams | None = None
    self._session = b''
    self._process = os.getpid()
    self._lock = threading.Lock()

  def _check_process(self) -> None:
    if os.getpid() != self._process:
      raise ValueError(
        f'session of process {self._process} used in process {os.getpid()}, '
        'want one made after the fork'
      )

  def _name_session(self, announcement: bytes, points: bytes, corrections: np.ndarray) -> None:
    self._session = messages.identifier(announcement, points, corrections.tobytes())

  def _identifier(self, tag: bytes, count: int) -> bytes:
    return messages.identifier(self._session, tag, count.to_bytes(8, 'little'))

  def _labels(self, streams: bit_planes.Streams, *arguments) -> np.ndarray:
    self._check_process()
    with self._lock:
      return streams.labels(*arguments)


class CorrelatedSender(_Party):
  """Holds delta and ends with q."""

  def __init__(self, delta: np.ndarray, *, extension: str = 'softspoken'):
    """Takes delta as uint64 [2], low word first, its lowest bit 1."""
    if delta.dtype != np.uint64 or delta.shape != (2,) or not delta[0] & 1:
      raise ValueError(f'delta is {delta.dtype} {delta.shape}, want uint64 (2,), lowest bit 1')
    super().__init__(extension)
    self._delta_bits = np.unpackbits(np.ascontiguousarray(delta).view(np.uint8), bitorder='little')
    self._keys: np.ndarray | None = None
    self._sent = b'', b''

  def choose(self, announcement: bytes, randomness: Randomness) -> bytes:
    """The points of the base OTs, 4096 bytes; the choices are the bits of delta.

    ValueError the second time.
    """
    self._check_process()
    if self._keys is not None:
      raise ValueError('choose was called before, want once per session')
    points, self._keys = base_transfer.choose(self._delta_bits, announcement, randomness)
    self._sent = announcement, points
    return points

  def finish(self, corrections: np.ndarray) -> None:
    """Takes the trees' corrections, uint8 [128 / k, k - 1, 2, 16].

    ValueError the second time, or before `choose`.
    """
    self._check_process()
    if self._keys is None:
      raise ValueError('finish before choose')
    if self._streams is not None:
      raise ValueError('finish was called before, want once per session')
    bits = self._group_bits
    leaves = base_transfer.grow_punctured_trees(self._keys, self._delta_bits, bits, corrections)
    missing = self._delta_bits.reshape(-1, bits) @ (1 << np.arange(bits))
    weights = bit_planes.gray_order(bits)
    seeds = [
      [group[index ^ weight].tobytes() for weight in weights[:-1]]
      for group, index in zip(leaves, missing)
    ]
    # The message joins in with leaf 0, whose weight is delta: so it adds delta * d.
    positions = [1 + weights.index(index) for index in missing]
    self._name_session(*self._sent, corrections)
    self._streams = bit_planes.Streams(seeds, positions, bits)

  def extend(self, tag: bytes, message: messages.Words, count: int) -> np.ndarray:
    """Labels q, uint64 [count, 2], from the receiver's message for `tag`.

    Raises:
      ValueError: the message has another shape, or is of another session, tag or
        count; the tag can still be used.
    """
    if self._streams is None:
      raise ValueError('extend before finish')
    words = _padded_words(count)
    want = (_BITS // self._group_bits, words)
    rows = message.words
    if rows.dtype != np.uint64 or rows.shape != want:
      raise ValueError(f'message is {rows.dtype} {rows.shape}, want uint64 {want}')
    messages.check('transfers', message.identifier, self._identifier(tag, count))
    return self._labels(self._streams, tag, rows)[:count]


class CorrelatedReceiver(_Party):
  """Chooses r and ends with t."""

  def __init__(
    self,
    randomness: Randomness,
    *,
    extension: str = 'softspoken',
  ):
    """Makes the first message, `announcement`, 32 bytes."""
    super().__init__(extension)
    self._secret, self.announcement = base_transfer.announce(randomness)

  def correct(self, points: bytes) -> np.ndarray:
    """The trees' corrections, uint8 [128 / k, k - 1, 2, 16], empty for k = 1.

    ValueError the second time.
    """
    self._check_process()
    if self._streams is not None:
      raise ValueError('correct was called before, want once per session')
    keys = base_transfer.sender_keys(self._secret, self.announcement, points, _BITS)
    leaves, corrections = base_transfer.grow_trees(keys, self._group_bits)
    weights = bit_planes.gray_order(self._group_bits)
    seeds = [[group[weight].tobytes() for weight in weights] for group in leaves]
    # The choices join in with leaf 0, whose weight is 0: so they enter only the message.
    positions = [len(weights)] * len(leaves)
    self._name_session(self.announcement, points, corrections)
    self._streams = bit_planes.Streams(seeds, positions, self._group_bits)
    return corrections

  def extend(
    self, tag: bytes, choices: np.ndarray, count: int
  ) -> tuple[messages.Words, np.ndarray]:
    """`count` transfers.

    One call for many is faster than many calls: each restarts all streams, which
    takes about 0.3 ms.

    Args:
      tag: never used before in this session; the sender's call gets the same.
      choices: uint8 [ceil(count / 8)], r_j is bit j % 8 of byte j // 8.
      count: transfers, at most 2^32; padded to a multiple of 128 on the wire.

    Returns:
      message: its words are uint64 [128 / k, 2 ceil(count / 128)], for the sender.
      labels: t, uint64 [count, 2].

    Raises:
      ValueError: before `correct`, or choices of another type or shape.
    """
    if self._streams is None:
      raise ValueError('extend before correct')
    words = _padded_words(count)
    want = ((count + 7) // 8,)
    if choices.dtype != np.uint8 or choices.shape != want:
      raise ValueError(f'choices are {choices.dtype} {choices.shape}, want uint8 {want}')
    padded = np.zeros(8 * words, np.uint8)
    padded[: len(choices)] = choices
    rows = np.empty((_BITS // self._group_bits, words), np.uint64)
    addends = np.broadcast_to(padded.view(np.uint64), rows.shape)
    labels = self._labels(self._streams, tag, addends, rows)
    return messages.Words(self._identifier(tag, count), rows), labels[:count]


def _group_bits(extension: str) -> int:
  if extension not in GROUP_BITS:
    raise ValueError(f'extension {extension!r}, want one of {list(GROUP_BITS)}')
  return GROUP_BITS[extension]


def _padded_words(count: int) -> int:
  if not 1 <= count <= 1 << 32:
    raise ValueError(f'{count} transfers, want 1 to 2^32')
  return -(-count // _BITS) * 2

"""Pseudorandom bit planes from many seeds, and their transposition to labels.

A group has 2^k streams of bits, each with a weight of k bits. `correlated_transfer`
needs the k bit planes of sum_x weight(x) * stream_x, where sums are XORs: plane b is
the sum of all streams whose weight has bit b set.

The streams are taken in Gray order of their weights (..., 2, 3, 1, 0), in which one bit
of the weight flips from a stream to the next. Bit b flips after the streams number
2^b, 3 * 2^b, 5 * 2^b and so on, counted from 1. So plane b is the sum of the partial
sums of the streams up to these places, and no other work is needed for it.

A partial sum is the one before it plus a stream. AES in counter mode computes this by
itself: it encrypts one partial sum, which adds its key stream, and the result is the
next.
"""

from collections.abc import Iterator, Sequence
import hashlib
import itertools

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np

ROWS = 128

# Planes of 2^16 columns and the partial sums, 1 MiB each, stay in the L2 cache.
_CHUNK_WORDS = 1 << 10
_SUM_WORDS = 1 << 17
# Rows a power of two apart would share a few cache sets.
_PAD_WORDS = 8

# A tile of 64x64 bits is transposed by exchanging its halves, then the quarters in them,
# and so on. A level is the distance of the two rows of a pair, and the bits of a word
# that lie in a low half.
_LEVELS = tuple(
  (np.uint64(distance), np.uint64(low_bits))
  for distance, low_bits in (
    (32, 0x00000000FFFFFFFF),
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
  )
)


def gray_order(bits: int) -> list[int]:
  """All numbers of `bits` bits, one bit flipping at each step, 0 the last."""
  return [i ^ i >> 1 for i in reversed(range(1 << bits))]


class Streams:
  """One party's streams: AES-128-CTR, keyed once and restarted by each tag.

  A tag's nonce is the first 96 bits of its SHA-256, which leaves 2^32 blocks to
  a stream. Restarting a stream takes a tenth of the time of keying a new one.
  """

  def __init__(
    self,
    seeds: Sequence[Sequence[bytes]],
    positions: Sequence[int],
    bits: int,
  ):
    """Keys the streams.

    Args:
      seeds: for each of the 128 / bits groups, the 16-byte seeds in Gray order
        of their weights. They are 2^bits, or one less if the stream of weight 0 is
        missing.
      positions: for each group, the partial sum (1 to 2^bits) from which on its
        addend (see `labels`) takes part.
      bits: planes of a group.
    """
    contexts = [
      [Cipher(algorithms.AES(s), modes.CTR(bytes(16))).encryptor() for s in g] for g in seeds
    ]
    self._bits = bits
    self._positions = list(positions)
    self._updates = [[c.update_into for c in group] for group in contexts]
    self._restarts = [c.reset_nonce for group in contexts for c in group]
    self._nonces: set[bytes] = set()
    self._sums = np.empty((0, 0, 0), np.uint64)

  def labels(self, tag: bytes, addends: np.ndarray, totals: np.ndarray | None = None) -> np.ndarray:
    """Labels of the streams' weighted sums, with an addend in every group.

    Args:
      tag: where the streams start; never used before.
      addends: uint64 [groups, w]. A group's addend joins the sum like one more stream,
        with the weight of the stream at the group's position. At position 2^bits the
        weight is zero.
      totals: uint64 [groups, w], filled with the last partial sums if given.

    Returns:
      uint64 [64 w, 2].
    """
    self._restart(tag)
    words = addends.shape[1]
    labels = np.empty((64 * words, 2), np.uint64)
    width = min(words, _CHUNK_WORDS)
    buffer = np.empty(ROWS * (width + _PAD_WORDS), np.uint64)
    for start in range(0, words, width):
      columns = slice(start, min(start + width, words))
      count = columns.stop - start
      planes = buffer[: ROWS * (count + _PAD_WORDS)].reshape(ROWS, -1)
      grouped = planes.reshape(-1, self._bits, count + _PAD_WORDS)[..., :count]
      for groups, sums in self._partial_sums(addends[:, columns]):
        _weigh(sums, grouped[groups])
        if totals is not None:
          totals[groups, columns] = sums[:, -1]
      transpose(planes, labels[64 * start : 64 * columns.stop])
    return labels

  def _restart(self, tag: bytes) -> None:
    nonce = hashlib.sha256(tag).digest()[:12]
    if nonce in self._nonces:
      raise ValueError(f'tag {tag!r} was used before, want a fresh one')
    self._nonces.add(nonce)
    counter = nonce + bytes(4)
    for restart in self._restarts:
      restart(counter)

  def _partial_sums(self, addends: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the next columns' partial sums, a few groups at a time.

    They are uint64 [groups, 2^bits + 1, w]. Row m is the sum of a group's first
    m streams. From the group's position on, it also contains the group's addend.
    Where the last stream is missing, row 2^bits is of no use.
    """
    words = addends.shape[1]
    if self._sums.shape[-1] != words + _PAD_WORDS:
      self._allocate(words)
    for start in range(0, len(self._updates), len(self._sums)):
      groups = self._updates[start : start + len(self._sums)]
      for slot, updates in enumerate(groups):
        position = self._positions[start + slot]
        steps = zip(updates, self._sources[slot], self._targets[slot])
        for update, source, target in itertools.islice(steps, position):
          update(source, target)
        joined = self._sums[slot, position, :words]
        np.bitwise_xor(joined, addends[start + slot], out=joined)
        for update, source, target in steps:
          update(source, target)
      stop = start + len(groups)
      yield slice(start, stop), self._sums[: len(groups), :, :words]

  def _allocate(self, words: int) -> None:
    rows = (1 << self._bits) + 1
    pitch = words + _PAD_WORDS
    step = max(1, min(len(self._updates), _SUM_WORDS // (rows * pitch)))
    # Row 0 is the empty sum and stays zero.
    self._sums = np.zeros((step, rows, pitch), np.uint64)
    octets = self._sums.view(np.uint8)
    # The cipher wants 15 spare bytes after its output.
    self._sources = [list(group) for group in octets[:, :-1, : 8 * words]]
    self._targets = [list(group) for group in octets[:, 1:, : 8 * words + 15]]


def _weigh(sums: np.ndarray, planes: np.ndarray) -> None:
  """Planes [groups, bits, w] of the weighted sums, from the partial sums."""
  bits = planes.shape[1]
  for bit in range(bits - 1):
    flips = sums[:, 1 << bit : 1 << bits : 2 << bit]
    np.bitwise_xor.reduce(flips, axis=1, out=planes[:, bit])
  planes[:, -1] = sums[:, 1 << bits - 1]


def transpose(planes: np.ndarray, labels: np.ndarray) -> None:
  """Turns 128 bit planes into 128-bit labels, overwriting the planes.

  Args:
    planes: uint64 [128, p], C-contiguous, p >= w; bit j of plane i is bit
      j % 64 of planes[i, j // 64]. Columns from w on are ignored.
    labels: uint64 [64 w, 2], the output; bit i of label j is bit i % 64 of
      labels[j, i // 64].

  Raises:
    ValueError: planes or labels of another type, shape or layout.
  """
  words = len(labels) // 64
  if planes.dtype != np.uint64 or planes.ndim != 2 or len(planes) != ROWS:
    raise ValueError(f'planes are {planes.dtype} {planes.shape}, want uint64 (128, p)')
  if labels.dtype != np.uint64 or labels.shape != (64 * words, 2):
    raise ValueError(f'labels are {labels.dtype} {labels.shape}, want uint64 (64 w, 2)')
  pitch = planes.shape[1]
  if pitch < words or not planes.flags.c_contiguous:
    raise ValueError(f'{pitch} words a plane, want {words} or more, contiguous')
  scratch = np.empty(ROWS // 2 * pitch, np.uint64)
  for distance, low_bits in _LEVELS:
    pairs = planes.reshape(-1, 2, int(distance), pitch)
    low, high = pairs[:, 0], pairs[:, 1]
    swap = scratch.reshape(low.shape)
    # Exchanges the high halves of `low` with the low halves of `high`.
    np.right_shift(low, distance, out=swap)
    np.bitwise_xor(swap, high, out=swap)
    np.bitwise_and(swap, low_bits, out=swap)
    np.bitwise_xor(high, swap, out=high)
    np.left_shift(swap, distance, out=swap)
    np.bitwise_xor(low, swap, out=low)
  tiles = labels.reshape(words, 64, 2)
  tiles[:, :, 0] = planes[:64, :words].T
  tiles[:, :, 1] = planes[64:, :words].T

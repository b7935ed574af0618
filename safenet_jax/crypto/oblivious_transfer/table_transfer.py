"""One entry of a table of short strings, from correlated transfers of the entry's number.

The receiver has a number C of m bits, and gets the entry C of a table of 2^m entries that the
sender makes later. Each entry has one or two bits, in the parts 0 and 1 of the table. This is
1-of-2^m transfer from m of 1-of-2 (Naor and Pinkas, STOC 1999). With a table of shares it is
the leaf of the comparison of CrypTFlow2 (eprint 2020/1002, section 3.1).

The receiver chose with the bits C_j of its number, so that correlated transfers
(`correlated_transfer`) left it with labels t_j = q_j xor C_j delta, and the sender with q_j.
H is a keyed hash of labels with 64 bits (`hashing`). A bit of the table has a position: y for
entry y of part 0, and 2^m + y for entry y of part 1, which must be below 64.

    sender     M = xor_j (H(q_j) where bit j of the position is 0, else H(q_j xor delta))
    receiver   N = xor_j H(t_j)

At the positions of entry C both are the same. At each other position M has a hash of a label
that the receiver has not, at a position of that hash which masks nothing else. So M hides all
entries but one, as a one-time pad. It hides one table only.

A table of shares need not send its entry 0: the sender takes as its own share what makes that
entry zero. Let f(y) be what entry y stands for, and g the sender's share, a bit for each part.
Then the entries are T[y] = f(y) xor g, and

    sender's share     g = f(0) xor M[0], so that T[0] is zero under its mask
    sent for y > 0     T[y] xor M[y] = f(y) xor f(0) xor M[0] xor M[y]
    receiver's share   f(C) xor g = (what was sent for C, zero for C = 0) xor N[C]

g is uniform to the receiver if C > 0, because of M[0]. If C = 0, then it knows M[0] = N[0],
which is its share; this one is uniform to the sender's peer as any pad is.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from safenet_jax.crypto import hashing

# For every j the positions whose bit j is 0.
_CLEAR = [np.uint64(sum(1 << p for p in range(64) if not p >> j & 1)) for j in range(6)]
_ONE = np.uint64(1)


@dataclasses.dataclass(frozen=True)
class Shape:
  """Of a table: bits m of an entry's number, and how many parts it has."""

  bits: int
  parts: int

  def __post_init__(self):
    if not (self.bits >= 1 and 1 <= self.parts <= 2 and self.parts << self.bits <= 64):
      raise ValueError(f'{self.parts} parts of 2^{self.bits} entries, want up to 64 bits in all')

  @property
  def width(self) -> int:
    """Bits of a table that are sent."""
    return self.parts * self._sent

  @property
  def _sent(self) -> int:
    """Entries that are sent."""
    return (1 << self.bits) - 1

  @property
  def _ones(self) -> np.uint64:
    """A bit for each entry that is sent."""
    return np.uint64((1 << self._sent) - 1)

  def _starts(self) -> list[tuple[np.uint64, np.uint64]]:
    """For each part where it starts among the positions, and among what is sent."""
    return [(np.uint64(i << self.bits), np.uint64(i * self._sent)) for i in range(self.parts)]

  def split(self, words: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Splits words that have a bit at each position, be they tables or masks of tables.

    Args:
      words: uint64 [n].

    Returns:
      Entry 0 of each part; and all other entries, each xor entry 0: uint64 [n] each.
    """
    firsts, rest, ones = [], np.zeros_like(words), self._ones
    for start, first in self._starts():
      part = words >> start
      firsts.append(part & _ONE)
      rest |= (part >> _ONE & ones ^ (np.uint64(0) - firsts[-1] & ones)) << first
    return firsts, rest

  def masks(
    self, labels: np.ndarray, delta: np.ndarray, keys: Sequence[bytes]
  ) -> tuple[list[np.ndarray], np.ndarray]:
    """The sender's masks.

    Args:
      labels: q of each bit of the entries' numbers, uint64 [m, n, 2].
      delta: the sender's, uint64 [2].
      keys: of the hashes, one for each bit; public, and used for nothing else.

    Returns:
      M[0] of each part, and the masks of what is sent: uint64 [n] each.
    """
    other, words = np.empty_like(labels[0]), np.zeros(labels.shape[1], np.uint64)
    for row, key, clear in zip(labels, keys, _CLEAR):
      np.bitwise_xor(row[:, 0], delta[0], out=other[:, 0])
      np.bitwise_xor(row[:, 1], delta[1], out=other[:, 1])
      zero, one = hashing.hash_labels(row, key), hashing.hash_labels(other, key)
      words ^= one ^ (zero ^ one) & clear
    return self.split(words)

  def pads(
    self, labels: np.ndarray, keys: Sequence[bytes], numbers: np.ndarray
  ) -> list[np.ndarray]:
    """The receiver's N[C] of each part, uint64 [n] in {0, 1}.

    Args:
      labels: t, uint64 [m, n, 2].
      keys: as the sender's.
      numbers: C, uint64 [n].
    """
    words = np.zeros(labels.shape[1], np.uint64)
    for row, key in zip(labels, keys):
      words ^= hashing.hash_labels(row, key)
    return [words >> start >> numbers & _ONE for start, _ in self._starts()]

  def chosen(self, sent: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """What was sent for entry C of each part, zero for C = 0: uint64 [n] in {0, 1}.

    Args:
      sent: the sender's words, uint64 [n].
      numbers: C, uint64 [n].
    """
    ones = self._ones
    return [((sent >> first & ones) << _ONE) >> numbers & _ONE for _, first in self._starts()]

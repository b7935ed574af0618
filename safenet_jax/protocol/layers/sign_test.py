"""The public shape of a sign test by transfers: digits, triples, and how many bits are sent.

`millionaires` defines the symbols and does the test.
"""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from safenet_jax.crypto.oblivious_transfer.table_transfer import Shape
from safenet_jax.fixed_point.formats import ActivationFormat

# The most bits that one, two, three and four digits take. Longer digits have larger tables, which
# are sent online. More digits take more triples, two transfers each. Near these limits both cost
# about the same. The last one is the most that tables can have.
_MOST = 5, 9, 16, 21


@dataclasses.dataclass(frozen=True)
class SignTest:
  """The public shape of a sign test on words of `width` bits, w."""

  width: int

  def __post_init__(self):
    if not 1 <= self.width <= 1 + _MOST[-1]:
      width, most = self.width, 1 + _MOST[-1]
      raise ValueError(f'sign tests of {width} bits in the mode ot, want 1 to {most}: use delphi')

  @property
  def digits(self) -> tuple[Shape, ...]:
    """The digits' tables, the top digit first; the lowest one has no eq, and is the longest."""
    bits = self.width - 1
    count = sum(bits > most for most in (0, *_MOST[:-1]))
    sizes = [(bits + i) // count for i in range(count)]
    return tuple(Shape(size, 2) for size in sizes[:-1]) + tuple(Shape(n, 1) for n in sizes[-1:])

  @property
  def first_triples(self) -> int:
    """Triples of level 1, for an instance."""
    return (0, 0, 0, 1, 3)[len(self.digits)]

  @property
  def last_triples(self) -> int:
    """Triples of level 2: one, unless there is nothing to put together."""
    return int(len(self.digits) > 1)

  @property
  def leaves(self) -> int:
    """Bits lt and eq of all digits together."""
    return sum(shape.parts for shape in self.digits)

  @property
  def drawn(self) -> int:
    """Uniform choices of the client, for an instance: x and y of triples, and a."""
    return 2 * (self.first_triples + self.last_triples) + 1

  @property
  def transfers(self) -> int:
    """Correlated transfers of an instance: for bits of C from the lowest, and drawn choices."""
    return self.width - 1 + self.drawn

  @property
  def opened(self) -> tuple[int, int, int]:
    """Bits of an instance that each of the three online messages has beside tables and word."""
    first, last = 2 * self.first_triples, 2 * self.last_triples
    return first, first + last + 1, last + 1

  @property
  def _kept_labels(self) -> int:
    """Labels that each party keeps of an instance: of a, and of x and y of level 2."""
    return 1 + 2 * self.last_triples

  def _kept(self, size: int) -> int:
    """Bytes that each party keeps of `size` instances: packed bits and labels."""
    bits = self.leaves + 3 * (self.first_triples + self.last_triples) + 1
    return size // 8 * bits + 16 * size * self._kept_labels

  def kept_by_client(self, size: int, count: int) -> int:
    """Bytes of a `ClientBlock` of `count` instances, `size` with padding, but for its key."""
    return self._kept(size) + 16 * count

  def kept_by_server(self, size: int, count: int) -> int:
    """Bytes of a `ServerBlock`, likewise."""
    return self._kept(size) + 8 * size * len(self.digits) + 8 * count

  def rows(self) -> Iterator[tuple[Shape, slice]]:
    """Every digit with the bits that it has, the top digit first."""
    end = self.width - 1
    for shape in self.digits:
      yield shape, slice(end - shape.bits, end)
      end -= shape.bits

  def numbers(self, words: np.ndarray) -> list[np.ndarray]:
    """The digits of words, uint64 [n] each, the top digit first."""
    return [
      words >> np.uint64(rows.start) & np.uint64((1 << shape.bits) - 1)
      for shape, rows in self.rows()
    ]

  def first_level(self, leaves: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pairs that level 1 ANDs."""
    if self.first_triples == 3:
      lt0, eq0, lt1, eq1, _, eq2, lt3 = leaves
      return [(eq2, lt3), (eq0, lt1), (eq0, eq1)]
    return [(leaves[3], leaves[4])] if self.first_triples else []

  def halves(
    self, leaves: Sequence[np.ndarray], ands: Sequence[np.ndarray]
  ) -> tuple[np.ndarray, ...]:
    """Shares of lt and eq of the upper half and of lt of the lower one, from those of leaves.

    Without level 2 these are lt alone; without digits it is zero.
    """
    match len(self.digits), list(ands):
      case 4, [low, high, equal]:
        return leaves[0] ^ high, equal, leaves[4] ^ low
      case 3, [low]:
        return leaves[0], leaves[1], leaves[2] ^ low
      case 2, []:
        return tuple(leaves)
    return (leaves[0] if leaves else np.zeros(1, np.uint8),)


def sign_test(form: ActivationFormat) -> SignTest:
  """The sign test of a layer; ValueError where its words are too long."""
  return SignTest(form.sign_bits - form.dropped)

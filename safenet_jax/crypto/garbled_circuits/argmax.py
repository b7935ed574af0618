"""The index of the largest of n shared words: a tournament of comparisons.

A word is c + s mod 2^k in two's complement, where c and s are the client's and the
server's share, and k is the number of bits. It is the shared value y as long as
-2^(k-1) <= y < 2^(k-1), and nothing is rounded. Outside of that range the index is
garbage.

First, one circuit adds the shares. Then come rounds, in which neighbours are compared.
The winner goes on with its value and the bits of its index; a last word without a
neighbour goes on as it is. Of equal words the first wins, as in numpy.argmax.

The pairs of a round are instances of one circuit, which run together. So for 100 words
of 24 bits, which take 7,123 ANDs, only 356 come one after another. `garbled_argmax`
garbles the tournament.

A tournament may also say whether all words are in that range. Then the shares have more
than k bits, and c + s mod 2^ring is the word. A word is in range if its bits from k - 1 on
are all equal. One more bit goes with each word from round to round: whether all words
that it has met are in range. If some word is not, the result is this bit alone, and no index.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing
from safenet_jax.crypto.garbled_circuits import circuits

# A stage's instances are padded to a multiple of this; the padding is not sent.
_MULTIPLE = 64


@dataclasses.dataclass(frozen=True)
class Tournament:
  """What is compared.

  count: of words.
  bits: k, the bits of a word that are compared.
  ring: bits of the words' shares where words are checked to be in range; None where they are
    taken mod 2^k as they are.
  """

  count: int
  bits: int
  ring: int | None = None

  @property
  def entering(self) -> int:
    """Bits of each share."""
    return self.bits if self.ring is None else self.ring

  @property
  def index_bits(self) -> int:
    """Bits of the index, and rounds."""
    return (self.count - 1).bit_length()

  @property
  def outputs(self) -> int:
    """Bits of the result: those of the index, then whether all words are in range if checked."""
    return self.index_bits + (self.ring is not None)


class Stage(NamedTuple):
  """Instances of a circuit with inputs 'left' and 'right' that run together."""

  number: int
  circuit: circuits.Circuit
  instances: int

  @property
  def size(self) -> int:
    """Instances with padding."""
    return -(-self.instances // _MULTIPLE) * _MULTIPLE

  @property
  def ands(self) -> int:
    """AND gates of all instances."""
    return self.circuit.and_count * self.instances


@functools.lru_cache(maxsize=64)
def stages(form: Tournament) -> tuple[Stage, ...]:
  """The sums of the words, then every round.

  ValueError for fewer than two words, or for more than a block holds.
  """
  count, bits, ring = form.count, form.bits, form.ring
  if not 2 <= count <= hashing.MAX_ROWS or not 1 <= bits <= 64:
    raise ValueError(f'{count} words of {bits} bits, want 2 to {hashing.MAX_ROWS} words of 1 to 64')
  if ring is not None and not bits < ring <= 64:
    raise ValueError(f'words of {bits} bits in shares of {ring}, want {bits + 1} to 64')
  found = [Stage(0, _sum(bits, ring), count)]
  for known in range(form.index_bits):
    circuit = _duel(bits, known, last=count == 2, checked=ring is not None)
    found.append(Stage(known + 1, circuit, count // 2))
    count -= count // 2
  return tuple(found)


def and_count(form: Tournament) -> int:
  """AND gates of a tournament of n words of k bits, all instances together.

  The sums take n (k - 1). Each of the n - 1 pairs takes 2 k, but the last one only k,
  because nobody needs the value of its winner. This makes n (3 k - 1) - 3 k. In round i,
  counted from 0, every pair selects i bits of indices besides: in all 7 ANDs for n = 10,
  and 95 for n = 100.

  With shares of l bits, of which words are checked, the sums take n (l - 1) instead, and the
  check another n (l - k - 1). Each pair takes one more, and the last as many more as an index
  has bits.
  """
  return sum(stage.ands for stage in stages(form))


def _sum(bits: int, ring: int | None) -> circuits.Circuit:
  """The words' low bits, and whether they are in range where that is checked."""
  builder = circuits.Builder()
  left, right = (builder.input(name, ring or bits) for name in ('left', 'right'))
  total = circuits.add(builder, left, right)
  if ring is None:
    return builder.build(total)
  sign, above = total[bits - 1], total[bits:]
  equal = [builder.not_(builder.xor(sign, bit)) for bit in above]
  return builder.build([*total[:bits], functools.reduce(builder.and_, equal)])


def _duel(bits: int, known: int, *, last: bool, checked: bool) -> circuits.Circuit:
  """Compares two words: gives the winner, and a further bit of its index, which one it was.

  A word is its value, lowest bit first; then whether all are in range, where that is checked;
  then the `known` bits of its index. The last winner is given as the result of the tournament.
  """
  builder = circuits.Builder()
  left, right = (builder.input(name, bits + checked + known) for name in ('left', 'right'))
  first = circuits.signed_greater_equal(builder, left[:bits], right[:bits])

  def winner(bits: slice) -> list[circuits.Bit]:
    # If there are only two words, the last round is the first: no bit of an index is known.
    return circuits.select(builder, first, left[bits], right[bits]) if left[bits] else []

  index = [*winner(slice(bits + checked, None)), builder.not_(first)]
  fit = [builder.and_(left[bits], right[bits])] if checked else []
  if not last:
    return builder.build([*winner(slice(bits)), *fit, *index])
  return builder.build([*(builder.and_(bit, *fit) for bit in index), *fit] if checked else index)


# Runs a stage on its instances' wires [width, instances, ...].
Run = Callable[[Stage, np.ndarray, np.ndarray], np.ndarray]


def play(form: Tournament, client: np.ndarray, server: np.ndarray, run: Run) -> np.ndarray:
  """The tournament, whatever stands for a wire: its value, or one of its labels.

  Args:
    form: of the tournament.
    client, server: the shares' wires [entering, count, ...].
    run: gives the outputs of a stage, [outputs, instances, ...].

  Returns:
    The result's wires, [outputs, ...]: the index, lowest bit first, then whether all words are
    in range.
  """
  sums, *rounds = stages(form)
  words = run(sums, client, server)
  for stage in rounds:
    end = 2 * stage.instances
    winners = run(stage, words[:, 0:end:2], words[:, 1:end:2])
    alone = words[:, end:]
    # Zeros stand for the value False, and are the label of it in `garbled_argmax`.
    alone = np.concatenate([alone, np.zeros_like(alone[:1])])
    words = np.concatenate([winners, alone], axis=1) if alone.shape[1] else winners
  return words[:, 0]

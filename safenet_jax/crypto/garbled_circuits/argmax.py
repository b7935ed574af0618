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
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing
from safenet_jax.crypto.garbled_circuits import circuits

# A stage's instances are padded to a multiple of this; the padding is not sent.
_MULTIPLE = 64


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


def index_bits(count: int) -> int:
  """Bits of an index below `count`, and rounds of the tournament."""
  return (count - 1).bit_length()


@functools.lru_cache(maxsize=64)
def stages(count: int, bits: int) -> tuple[Stage, ...]:
  """The sums of `count` words of so many bits, then every round.

  ValueError for fewer than two words, or for more than a block holds.
  """
  if not 2 <= count <= hashing.MAX_ROWS or not 1 <= bits <= 64:
    raise ValueError(f'{count} words of {bits} bits, want 2 to {hashing.MAX_ROWS} words of 1 to 64')
  found = [Stage(0, _sum(bits), count)]
  for known in range(index_bits(count)):
    found.append(Stage(known + 1, _duel(bits, known, last=count == 2), count // 2))
    count -= count // 2
  return tuple(found)


def and_count(count: int, bits: int) -> int:
  """AND gates of a tournament of n = `count` words of k = `bits` bits, all instances together.

  The sums take n (k - 1). Each of the n - 1 pairs takes 2 k, but the last one only k,
  because nobody needs the value of its winner. This makes n (3 k - 1) - 3 k. In round i,
  counted from 0, every pair selects i bits of indices besides: in all 7 ANDs for n = 10,
  and 95 for n = 100.
  """
  return sum(stage.ands for stage in stages(count, bits))


def _sum(bits: int) -> circuits.Circuit:
  builder = circuits.Builder()
  left, right = (builder.input(name, bits) for name in ('left', 'right'))
  return builder.build(circuits.add(builder, left, right))


def _duel(bits: int, known: int, *, last: bool) -> circuits.Circuit:
  """Compares two words: gives the winner, and a further bit of its index, which one it was.

  A word is its value, lowest bit first, followed by the `known` bits of its index. Of
  the last winner only the index is given.
  """
  builder = circuits.Builder()
  left, right = (builder.input(name, bits + known) for name in ('left', 'right'))
  first = circuits.signed_greater_equal(builder, left[:bits], right[:bits])
  kept = slice(bits if last else 0, None)
  # If there are only two words, the last round is the first: no bit of an index is known.
  winner = circuits.select(builder, first, left[kept], right[kept]) if left[kept] else []
  return builder.build([*winner, builder.not_(first)])


# Runs a stage on its instances' wires [width, instances, ...].
Run = Callable[[Stage, np.ndarray, np.ndarray], np.ndarray]


def play(count: int, bits: int, client: np.ndarray, server: np.ndarray, run: Run) -> np.ndarray:
  """The tournament, whatever stands for a wire: its value, or one of its labels.

  Args:
    count, bits: of the words.
    client, server: the shares' wires [bits, count, ...].
    run: gives the outputs of a stage, [outputs, instances, ...].

  Returns:
    The index's wires, lowest first, [index_bits, ...].
  """
  sums, *rounds = stages(count, bits)
  words = run(sums, client, server)
  for stage in rounds:
    end = 2 * stage.instances
    winners = run(stage, words[:, 0:end:2], words[:, 1:end:2])
    alone = words[:, end:]
    # Zeros stand for the value False, and are the label of it in `garbled_argmax`.
    alone = np.concatenate([alone, np.zeros_like(alone[:1])])
    words = np.concatenate([winners, alone], axis=1) if alone.shape[1] else winners
  return words[:, 0]

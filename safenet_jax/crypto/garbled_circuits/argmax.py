"""The index of the largest of n shared words: a tournament of comparisons.

A word is c + s mod 2^k in two's complement, which is the shared value y wherever
-2^(k-1) <= y < 2^(k-1): nothing is rounded, and outside of that the index is
garbage. One circuit adds the shares; then neighbours are compared, the winner
goes on with its value and the bits of its index, and a last word without a
neighbour goes on as it is. Of equal words the first wins, as in numpy.argmax.

The pairs of a round are instances of one circuit, so that 100 words of 24 bits take
some 400 gates one after the other and not 7,123. `garbled_argmax` garbles it.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing
from safenet_jax.crypto.garbled_circuits import circuits

# Of each stage's scratch; what fills it up is not sent.
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


@functools.cache
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
  """ANDs of all instances, n (3 k - 1) - 3 k and those that select bits of indices.

  n (k - 1) for the sums, 2 k for each of n - 1 pairs but k for the last, whose value
  nobody needs; and a pair of round i selects i bits of indices: 7 for n = 10, 95 for
  n = 100 in all.
  """
  return sum(stage.ands for stage in stages(count, bits))


def _sum(bits: int) -> circuits.Circuit:
  builder = circuits.Builder()
  left, right = (builder.input(name, bits) for name in ('left', 'right'))
  return builder.build(circuits.add(builder, left, right))


def _duel(bits: int, known: int, *, last: bool) -> circuits.Circuit:
  """The winner of two words with `known` bits of their indices, and which one it was.

  A word is its value, lowest bit first, and then the bits of its index. The last
  winner is its index alone.
  """
  builder = circuits.Builder()
  left, right = (builder.input(name, bits + known) for name in ('left', 'right'))
  first = circuits.signed_greater_equal(builder, left[:bits], right[:bits])
  kept = slice(bits if last else 0, None)
  # No word is left to select where there are two values only.
  winner = circuits.select(builder, first, left[kept], right[kept]) if left[kept] else []
  return builder.build([*winner, builder.not_(first)])


# Runs a stage on its instances' wires [width, instances, ...].
Run = Callable[[Stage, np.ndarray, np.ndarray], np.ndarray]


def play(count: int, bits: int, client: np.ndarray, server: np.ndarray, run: Run) -> np.ndarray:
  """The tournament on values, on labels of value 0, or on labels of values.

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
    # Zeros are False, and its label of `garbled_argmax`.
    alone = np.concatenate([alone, np.zeros_like(alone[:1])])
    words = np.concatenate([winners, alone], axis=1) if alone.shape[1] else winners
  return words[:, 0]

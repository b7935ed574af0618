"""Garbled circuits of one layer, cut into blocks that are garbled and evaluated together.

An instance is one circuit of the layer: a sign test, or the maximum of a window.
"""

import dataclasses

import numpy as np

from safenet_jax.crypto.garbled_circuits import wires

# Instances of a block are a multiple of this, so that their bits fill whole words.
_MULTIPLE = 64


@dataclasses.dataclass(frozen=True)
class Block:
  """Instances `first` to `end` of a layer's garbled channels, padded to `size`."""

  first: int
  end: int
  size: int

  @property
  def count(self) -> int:
    """Instances without the padding."""
    return self.end - self.first


def cut(instances: int, most: int) -> tuple[Block, ...]:
  """The blocks of at most `most` instances each that hold this many."""
  found = []
  for first in range(0, instances, most):
    end = min(first + most, instances)
    found.append(Block(first, end, -(-(end - first) // _MULTIPLE) * _MULTIPLE))
  return tuple(found)


def pack(words: np.ndarray, width: int, size: int) -> np.ndarray:
  """The low `width` bits of the words of one block, packed; bits of the padding are 0.

  Args:
    words: uint64 [m, n], the m words of each of n instances.
    width: bits of a word.
    size: instances of the block with its padding.

  Returns:
    uint8 [m width, size / 8].
  """
  padded = np.zeros((len(words), size), np.uint64)
  padded[:, : words.shape[1]] = words
  return np.concatenate([wires.pack(row, width) for row in padded])

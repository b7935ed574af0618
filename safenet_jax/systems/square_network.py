"""The network of CryptoNets on plaintext integers: linear layers with squares between them.

Pixels are their upper four bits, 0 to 15.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

SIDE = 28
# Of the convolution's map.
MAP = 13
KERNEL = 5
# The largest pixel.
PIXEL = 15
_STRIDE = 2


def _patches() -> np.ndarray:
  """Which pixels each window reads, int [169, 25]; 784 stands for the zeros before the image."""
  steps = _STRIDE * np.arange(MAP)[:, None] + np.arange(KERNEL) - 1
  rows, columns = steps[:, None, :, None], steps[None, :, None, :]
  found = np.where((rows < 0) | (columns < 0), SIDE**2, SIDE * rows + columns)
  return found.reshape(MAP**2, KERNEL**2)


PATCHES = _patches()


class Public(NamedTuple):
  """What the client knows of a network: `bound` is the largest size of a logit."""

  classes: int
  bound: int


class SquareNetwork(NamedTuple):
  """Integers: int64 weights [inputs, outputs], and biases [outputs], the last ones objects.

  The hidden layer reads the map position by position, all channels of one together.
  """

  conv: np.ndarray
  conv_bias: np.ndarray
  hidden: np.ndarray
  hidden_bias: np.ndarray
  output: np.ndarray
  output_bias: np.ndarray

  @classmethod
  def of(cls, arrays: Mapping[str, np.ndarray]) -> 'SquareNetwork':
    """The inverse of `arrays`."""
    found = dict(arrays)
    found['output_bias'] = np.array([int(value) for value in arrays['output_bias']], object)
    return cls(**found)

  def arrays(self) -> dict[str, np.ndarray]:
    """Arrays for a file. The last biases, which exceed 64 bits, are decimal numbers there."""
    return self._asdict() | {'output_bias': self.output_bias.astype(str)}

  @property
  def bound(self) -> int:
    """What no logit of any image exceeds in size; nor does a value before."""
    positive = PIXEL * np.maximum(self.conv, 0).sum(axis=0) + self.conv_bias
    negative = PIXEL * np.maximum(-self.conv, 0).sum(axis=0) - self.conv_bias
    most = int(np.maximum(positive, negative).max()) ** 2
    most = int(np.abs(self.hidden).sum(axis=0).max()) * most + int(np.abs(self.hidden_bias).max())
    most = most**2
    return int(np.abs(self.output).sum(axis=0).max()) * most + max(map(abs, self.output_bias))

  @property
  def public(self) -> Public:
    """What the client may know."""
    return Public(len(self.output_bias), self.bound)

  def run(self, images: np.ndarray) -> np.ndarray:
    """The logits, objects [B, 10]: integers of any size."""
    inputs = np.pad(pixels(images), ((0, 0), (0, 1)))
    conv = inputs[:, PATCHES] @ self.conv + self.conv_bias
    hidden = (conv**2).reshape(len(inputs), -1) @ self.hidden + self.hidden_bias
    return hidden.astype(object) ** 2 @ self.output.astype(object) + self.output_bias


def pixels(images: np.ndarray) -> np.ndarray:
  """int64 [B, 784] from images uint8 [B, 28, 28, 1]; ValueError for others."""
  if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 1) or not len(images):
    raise ValueError(
      f'images {images.dtype} {images.shape}, want uint8 [B, {SIDE}, {SIDE}, 1]: CryptoNets has '
      'one network'
    )
  return (images >> 4).reshape(len(images), -1).astype(np.int64)

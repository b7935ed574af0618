"""What both parties know of an activation layer, and the sizes of its messages."""

import functools

import numpy as np

from safenet_jax.protocol.layers import millionaires, structure
from safenet_jax.transport import packed_words


class ActivationStructure(structure.ActivationStructure):
  """One activation layer of one image; with a max pool it is as in Delphi's mode.

  The instances of others are sign tests by transfers (`layers.millionaires`).
  """

  @functools.cached_property
  def test(self) -> millionaires.Comparison | None:
    """The sign test of each instance; None without any, and with a max pool."""
    return millionaires.comparison(self.form) if self.selected else None

  @property
  def width(self) -> int:
    """Transfers of an instance in which the client chooses."""
    return self.test.transfers if self.test else super().width

  @property
  def label_words(self) -> int:
    return 0 if self.test else super().label_words

  @property
  def kept(self) -> int:
    if not self.test:
      return super().kept
    padded = sum(block.size for block in self.blocks)
    return self.test.kept_by_server(padded, self.instances)

  def entering(self, share: np.ndarray) -> list[np.ndarray]:
    """The client's bits that enter each block, packed; of sign tests without the top ones."""
    found = super().entering(share)
    return [bits[:-1] for bits in found] if self.test else found

  def tables(self, images: int) -> list[packed_words.Words]:
    """How the tables of each digit are sent, for so many images."""
    return [packed_words.Words((images, self.selected), d.width) for d in self.test.digits]

  def opened(self, step: int, images: int) -> tuple[type, tuple[int, ...]]:
    """The part with the bits of the online message `step`, 0 to 2: one image after another."""
    padded = sum(block.size for block in self.blocks)
    return np.uint8, (images, self.test.opened[step], padded // 8)

"""What both parties know of an activation layer, and the sizes of its messages."""

import dataclasses

import numpy as np

from safenet_jax.fixed_point.formats import ActivationFormat, Rescale
from safenet_jax.protocol.layers import maximum_tree, sign_test, structure
from safenet_jax.transport import packed_words


@dataclasses.dataclass(frozen=True)
class ActivationStructure(structure.ActivationStructure):
  """One activation layer of one image, or one level of a max pool.

  Its instances are sign tests by transfers (`layers.millionaires`).

  pool: format of the max pool that it is a level of (`layers.maximum_tree`); None elsewhere.
  level: counts the levels but the last, which has the outputs and is 0.
  """

  pool: ActivationFormat | None = None
  level: int = 0

  @classmethod
  def of(cls, name, form, bits, offset):
    if not form.maximum:
      return super().of(name, form, bits, offset)
    *first, last = maximum_tree.levels(form)
    found = []
    for level, each in enumerate(first, 1):
      found.append(cls(f'{name} level {level}', each, each.select_bits, offset, form, level))
      offset += found[-1].transfers
    return *found, cls(name, last, bits, offset, form)

  @property
  def owner(self) -> str:
    return self.name.removesuffix(f' level {self.level}')

  @property
  def outputs(self) -> list[tuple[tuple[int, ...], Rescale]]:
    return [] if self.level else super().outputs

  @property
  def tests(self) -> int:
    return 2 if self.form.limit else 1

  @property
  def words(self) -> int:
    return 1

  @property
  def width(self) -> int:
    """Transfers of an instance in which the client chooses."""
    return sign_test.sign_test(self.form).transfers if self.selected else 0

  @property
  def label_words(self) -> int:
    return 0

  @property
  def kept(self) -> int:
    if not self.selected:
      return 0
    return sign_test.sign_test(self.form).kept_by_server(_padded(self), self.instances)

  def entering(self, share: np.ndarray) -> list[np.ndarray]:
    """The client's bits that enter each block, packed, without the top ones."""
    return [bits[:-1] for bits in super().entering(share)]


def check(found: structure.Structure) -> None:
  """Raises ValueError for a network with sign tests that are too long."""
  for layer in found.activations:
    if layer.selected:
      sign_test.sign_test(layer.form)


def tables(layer: structure.ActivationStructure, images: int) -> list[packed_words.Words]:
  """How the tables of each digit are sent, for so many images."""
  test = sign_test.sign_test(layer.form)
  return [packed_words.Words((images, layer.selected), shape.width) for shape in test.digits]


def message(layer: structure.ActivationStructure, images: int, step: int) -> list[tuple]:
  """The parts of the online message `step`, 0 to 2: tables in the first one, and bits.

  Bits are packed, [images, rows, size / 8] with the sizes of all blocks together.
  """
  parts: list[tuple] = []
  if step == 0:
    parts = [(np.uint8, (part.size,)) for part in tables(layer, images)]
  rows = sign_test.sign_test(layer.form).opened[step]
  return [*parts, (np.uint8, (images, rows, _padded(layer) // 8))]


def _padded(layer: structure.ActivationStructure) -> int:
  """Instances with the padding of all blocks."""
  return sum(block.size for block in layer.blocks)

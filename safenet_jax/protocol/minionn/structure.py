"""Which part of an activation layer is made ready in which phase."""

from safenet_jax.protocol.layers import structure
from safenet_jax.protocol.layers.blocks import Block
from safenet_jax.protocol.layers.structure import Rescale


class _Prepared(structure.ActivationStructure):
  """A layer without its circuits: products of polynomials, and what truncations need."""

  blocks: tuple[Block, ...] = ()


class _MadeOnline(structure.ActivationStructure):
  """The circuits of a layer alone."""

  powers = 0
  outputs: list[tuple[tuple[int, ...], Rescale]] = []


class ActivationStructure(structure.ActivationStructure):
  """One activation layer of one image, whose circuits are garbled online."""

  @property
  def prepared(self) -> structure.ActivationStructure:
    return _Prepared(self.name, self.form, self.bits, self.offset)

  @property
  def made_online(self) -> structure.ActivationStructure | None:
    return _MadeOnline(self.name, self.form, self.bits, self.offset) if self.blocks else None

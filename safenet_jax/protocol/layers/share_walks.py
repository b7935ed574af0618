"""What each party does with its share alone, in either phase.

All of these operations are linear. So each party applies them to its own share, and gets
its share of the result; no message is sent. None stands for a share that is not known
yet, and stays None.
"""

import abc
from types import ModuleType
from typing import Any

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.fixed_point import pooling
from safenet_jax.fixed_point.model import FixedPointModel, PublicModel


class Local(abc.ABC):
  """Operations on one party's shares, uint64 [B, ..., C] in the linear ring.

  Each party adds its own `conv`, `dense` and `activation` for each phase. Of a constant the
  client's share is zero, and the server's is all of it.
  """

  server = False  # whose share it is

  def __init__(self, model: PublicModel, xp: ModuleType = np):
    self.model, self.bits, self.xp = model, model.precision.ring, xp

  def average_pool(self, name: str, layer, share: Any) -> Any:
    if name in self.model.absorbed or share is None:
      return share
    return ring.reduce(pooling.sums(self.xp, share, layer), self.bits)

  @abc.abstractmethod
  def activation(self, name: str, layer, share: Any) -> Any:
    """Each party's own."""

  def max_pool(self, name: str, layer, share: Any) -> Any:
    """As an activation, unless it is part of the one before it."""
    return share if name in self.model.absorbed else self.activation(name, layer, share)

  def flatten(self, name: str, layer, share: Any) -> Any:
    del name, layer
    return share if share is None else share.reshape(share.shape[0], -1)

  def gather(self, name: str, layer, share: Any) -> Any:
    del name
    if share is None:
      return None
    share = ring.gather(self.xp, share, layer.channels, layer.stride)
    return ring.reduce(share * np.uint64(layer.factor) << np.uint64(layer.shift), self.bits)

  def truncate(self, name: str, layer, share: Any) -> Any:
    del name
    if share is None:
      return None
    share = ring.truncate(share, self.bits, layer.shift, server=self.server)
    return ring.from_signed(share, self.bits)

  def constant(self, name: str, layer, share: Any) -> Any:
    del name
    return self.xp.zeros((1 if share is None else len(share), *layer.shape), np.uint64)

  def _constant(self, model: FixedPointModel, name: str, images: int) -> np.ndarray:
    """The server's share of a constant, [B, ...]."""
    values = ring.from_signed(model.constants[name], self.bits)
    return np.broadcast_to(values, (images, *values.shape))

  def add(self, branch: Any, shortcut: Any) -> Any:
    if branch is None or shortcut is None:
      return None
    return ring.reduce(branch + shortcut, self.bits)

  def concat(self, values: list[Any]) -> Any:
    known = all(value is not None for value in values)
    return self.xp.concatenate(values, axis=-1) if known else None


class Waves:
  """In which wave of the offline phase each linear layer is computed.

  In the first wave are those whose input the client masks afresh: the image, and sums of what
  activations give. A linear layer that reads another one's output has the client's share of
  that in the place of a fresh mask (`linear`), and so comes a wave later. Values are the wave
  in which they could be read. A client that reads a stranger's description walks here first,
  without any array.

  found: is filled with the wave of each linear layer, by name.
  """

  def __init__(self):
    self.found: dict[str, int] = {}

  def names(self) -> tuple[tuple[str, ...], ...]:
    """The linear layers of each wave, in the network's order."""
    count = max(self.found.values(), default=-1) + 1
    return tuple(
      tuple(name for name, wave in self.found.items() if wave == each) for each in range(count)
    )

  def conv(self, name: str, layer, wave: int) -> int:
    del layer
    self.found[name] = wave
    return wave + 1

  dense = conv

  def activation(self, name: str, layer, wave: int) -> int:
    del name, layer, wave
    return 0

  # If it is part of an activation, this is the one before it.
  max_pool = constant = activation

  def average_pool(self, name: str, layer, wave: int) -> int:
    del name, layer
    return wave

  flatten = gather = truncate = average_pool

  def add(self, branch: int, shortcut: int) -> int:
    return max(branch, shortcut)

  def concat(self, values: list[int]) -> int:
    return max(values)


class Drawn:
  """Which masks are drawn as they are encrypted (`crypto.homomorphic.drawn_plaintexts`).

  A linear layer draws the mask of its input if the input is that mask as it is, and no layer
  before has read it. Values are the names of the masks that are part of a value: activation
  layers, max pools alone, and 'input' for the image; and whether it is one of them as it is.

  found: is filled with the name of the mask, by that of the linear layer that draws it.
  """

  def __init__(self, model: PublicModel):
    self._absorbed = model.absorbed
    self._read: frozenset[str] = frozenset()
    self.found: dict[str, str] = {}

  def conv(self, name: str, layer, mask: tuple[frozenset[str], bool]) -> tuple:
    del layer
    parts, whole = mask
    if whole and not parts & self._read:
      (self.found[name],) = parts
    self._read |= parts
    return frozenset(), False

  dense = conv

  def activation(self, name: str, layer, mask) -> tuple[frozenset[str], bool]:
    del layer, mask
    return frozenset([name]), True

  def average_pool(self, name: str, layer, mask) -> tuple[frozenset[str], bool]:
    del layer
    parts, whole = mask
    return parts, whole and name in self._absorbed

  def max_pool(self, name: str, layer, mask) -> tuple[frozenset[str], bool]:
    return mask if name in self._absorbed else self.activation(name, layer, mask)

  def flatten(self, name: str, layer, mask) -> tuple[frozenset[str], bool]:
    del name, layer
    return mask

  def gather(self, name: str, layer, mask) -> tuple[frozenset[str], bool]:
    del name, layer
    return mask[0], False

  truncate = gather

  def constant(self, name: str, layer, mask) -> tuple[frozenset[str], bool]:
    del name, layer, mask
    return frozenset(), False

  def add(self, branch, shortcut) -> tuple[frozenset[str], bool]:
    return branch[0] | shortcut[0], False

  def concat(self, values) -> tuple[frozenset[str], bool]:
    return frozenset().union(*(parts for parts, _ in values)), False


class Masks(Local):
  """The client's first walk: the mask of every linear layer's input.

  After an activation comes a fresh mask, which does not depend on the activation's input.
  So the masks of all layers of the first wave are known before any linear layer is computed.
  Of a layer in a later wave the client's share of the input is the mask.

  masks: of what comes after each activation layer, by name.
  outputs: the client's share of each linear layer's output that is known by now, by name.
  inputs: is filled with the mask of each linear layer's input, by name; None where it is not
    known.
  """

  def __init__(self, model: PublicModel, masks: dict[str, Any], outputs: dict[str, Any]):
    super().__init__(model)
    self.masks, self.outputs = masks, outputs
    self.inputs: dict[str, Any] = {}

  def conv(self, name, layer, mask):
    del layer
    self.inputs[name] = mask
    return self.outputs.get(name)

  dense = conv

  def activation(self, name, layer, share):
    del layer, share
    return self.masks[name]


class Shares(Local):
  """The client's second walk: its share of every activation's input, and of the logits.

  masks: of what comes after each activation layer, by name.
  outputs: the client's share of each linear layer's output, by name.
  inputs: is filled with the share of each activation layer's input, by name.
  """

  def __init__(self, model: PublicModel, masks: dict[str, Any], outputs: dict[str, Any]):
    super().__init__(model)
    self.masks, self.outputs = masks, outputs
    self.inputs: dict[str, Any] = {}

  def conv(self, name, layer, mask):
    del layer, mask
    return self.outputs[name]

  dense = conv

  def activation(self, name, layer, share):
    del layer
    self.inputs[name] = share
    return self.masks[name]

"""What a party does with its share alone, in either phase: the same for both."""

from typing import Any

from safenet_jax.crypto import ring
from safenet_jax.protocol.formats import FixedPointModel


class Local:
  """Operations of `layers.run` on one party's share, uint64 [B, ..., C] in Z_2^l.

  None stands for a share that is not known yet, and stays None.
  """

  def __init__(self, model: FixedPointModel):
    self.model, self.bits = model, model.precision.ring

  def average_pool(self, name: str, layer, share: Any) -> Any:
    if name in self.model.absorbed or share is None:
      return share
    return ring.reduce(ring.sum_pool(share, layer.window), self.bits)

  def flatten(self, name: str, layer, share: Any) -> Any:
    del name, layer
    return share if share is None else share.reshape(share.shape[0], -1)


class Masks(Local):
  """The client's first walk: the mask that every linear layer is given.

  A mask of an activation does not depend on what comes in, so that all layers'
  masks are known before any linear layer is computed.
  """

  def __init__(self, model: FixedPointModel, masks: dict[str, Any]):
    super().__init__(model)
    self.masks = masks
    self.inputs: dict[str, Any] = {}

  def conv(self, name, layer, mask):
    del layer
    self.inputs[name] = mask
    return

  dense = conv

  def activation(self, name, layer, share):
    del layer, share
    return self.masks[name]


class Shares(Local):
  """The client's second walk: its share of every activation's input, and of the logits."""

  def __init__(self, model: FixedPointModel, masks: dict[str, Any], outputs: dict[str, Any]):
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

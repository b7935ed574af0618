"""What each party does with its share alone, in either phase.

All of it is linear, so that the shares of the result are the results of the
shares; no message is sent.
"""

from types import ModuleType

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.protocol.formats import FixedPointModel


class Local:
  """Operations on one party's shares, uint64 [B, ..., C] in the linear ring.

  A party or a phase adds `conv`, `dense` and `activation`.
  """

  def __init__(self, model: FixedPointModel, xp: ModuleType = np):
    self.model, self.bits, self.xp = model, model.precision.ring, xp

  def average_pool(self, name, layer, share):
    if name in self.model.absorbed:
      return share
    return ring.reduce(ring.sum_pool(share, layer.window), self.bits)

  def max_pool(self, name, layer, share):
    del name, layer  # always part of the activation before it
    return share

  def flatten(self, name, layer, share):
    del name, layer
    return share.reshape(share.shape[0], -1)

  def gather(self, name, layer, share):
    del name
    share = ring.gather(self.xp, share, layer.channels, layer.stride)
    return ring.reduce(share << np.uint64(layer.shift), self.bits)

  def add(self, branch, shortcut):
    return ring.reduce(branch + shortcut, self.bits)

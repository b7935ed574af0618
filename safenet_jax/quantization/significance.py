"""How many bits of a layer's values mean something, after its weights and inputs were rounded.

A rounded number is off by a variance of 1/12 of its last bit's square. So an output that is the sum
of weights w times inputs x is off by the sum of (x^2 + w^2) / 12. Compared with the variance of the
output, that says how many of its bits are more than noise of rounding. What earlier layers lost is
not counted again, so that a layer with few bits is the one to look at.
"""

import math

import numpy as np

from safenet_jax.fixed_point.formats import RangeReport
from safenet_jax.fixed_point.model import FixedPointModel, Plain
from safenet_jax.models import layers as records


class _Rounding(Plain):
  """The integer model, which notes the significant bits of each linear layer's outputs."""

  def __init__(self, model: FixedPointModel):
    super().__init__(model, RangeReport())
    self.bits: dict[str, np.ndarray] = {}

  def conv(self, name, layer, x):
    return self._noted(name, x, super().conv(name, layer, x), layer.groups)

  def dense(self, name, layer, x):
    return self._noted(name, x, super().dense(name, layer, x), 1)

  def _noted(self, name, x, y, groups):
    kernel = self.model.linear[name].kernel.astype(np.float64)
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    inputs = np.square(flat).mean(0).reshape(groups, -1).sum(-1) * math.prod(kernel.shape[:-2])
    weights = np.square(kernel).reshape(-1, kernel.shape[-1]).sum(0)
    noise = (np.repeat(inputs, weights.size // groups) + weights) / 12
    signal = y.reshape(-1, y.shape[-1]).astype(np.float64).var(0)
    self.bits[name] = np.log2(np.maximum(signal, 1e-9) / np.maximum(noise, 1e-9)) / 2
    return y


def of(model: FixedPointModel, images: np.ndarray) -> dict[str, np.ndarray]:
  """By linear layer, the significant bits of each of its outputs, float64 [O].

  Args:
    model: of which.
    images: uint8 [B, H, W, C]; a few are enough.
  """
  found = _Rounding(model)
  records.run(model.public.layers, found, model.public.encode(images))
  return found.bits

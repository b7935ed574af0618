"""What `calibration` carries from layer to layer: values, and the served layers behind them."""

import dataclasses

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.models import layers as records


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
  """A served layer, and the step before it.

  Two sides of an addition follow their steps back to find where they part.

  names: what the network calls the layer, or all layers of a block in walking order. What is in
    the served model only has a name of its own, or ''.
  """

  layer: records.Layer
  names: tuple[str, ...]
  before: 'Step | None'


def steps_since(step: Step | None, start: Step | None) -> list[Step]:
  """The steps after `start`, up to `step` itself, without those that a constant replaces.

  Args:
    step: the last step; None before the first layer.
    start: a step on the way to `step`; None for the network's input.
  """
  found: list[Step] = []
  while step is not start and step is not None:
    found.append(step)
    step = start if isinstance(step.layer, records.Constant) else step.before
  return found[::-1]


@dataclasses.dataclass(frozen=True)
class Value:
  """Calibration values float64 [B, ..., C] on their way through the layers.

  x: the values, in floats.
  channels: the original index of every channel that is there, in the new order. The
    channels that are not there are zero.
  total: how many channels the original network has here.
  fraction: fraction bits of the integers that stand for x. Behind a mean of n values they are
    log2(n) more, which need not be whole: the weights of who reads them make up for that.
  step: the last served layer.
  linear: whether a linear layer's output is in it, with no activation behind.
  constant: whether it does not depend on the image. Then all channels are there, in the
    original order.
  folded: whether a square (a y + b)^2 + K has its a and b in the weights of the layer
    before. Then the integers of the polynomial channels are those of a y + b.
  """

  x: np.ndarray
  channels: np.ndarray
  total: int
  fraction: float
  step: Step | None = None
  linear: bool = False
  constant: bool = False
  folded: bool = False

  def then(self, layer: records.Layer, name: str = '', **changes) -> 'Value':
    """This value after one more served layer; `name` is that of `Step`."""
    return dataclasses.replace(self, step=Step(layer, (name,), self.step), **changes)

  def arranged(self, channels: np.ndarray, fraction: float | None = None) -> 'Value':
    """This value with other channels, by original index, or with more fraction bits.

    If these are not whole bits more, it is multiplied by the nearest integer (`_common`).
    """
    more = 0 if fraction is None else fraction - self.fraction
    if not more and np.array_equal(channels, self.channels):
      return self
    index = places(self.channels, channels)
    shift = int(more) if more == int(more) else 0
    return self.then(
      records.Gather(index, shift=shift, factor=1 if shift == more else round(2.0**more)),
      x=ring.gather(np, self.x, index),
      channels=channels,
      fraction=self.fraction if fraction is None else fraction,
    )


def places(channels: np.ndarray, wanted: np.ndarray) -> tuple[int, ...]:
  """Where each wanted channel is among these; -1 for one that is not there."""
  place = {channel: i for i, channel in enumerate(channels.tolist())}
  return tuple(place.get(channel, -1) for channel in wanted.tolist())


def parting(branch: Step | None, shortcut: Step | None) -> Step | None:
  """The last step that both sides of an addition have in common."""
  behind = set()
  while branch is not None:
    behind.add(id(branch))
    branch = branch.before
  while shortcut is not None and id(shortcut) not in behind:
    shortcut = shortcut.before
  return shortcut

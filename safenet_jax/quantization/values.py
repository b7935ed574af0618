"""What calibration knows of a value on its way through the layers, and the layers it came by."""

import dataclasses
import math

import numpy as np

from safenet_jax.models import layers as records

# Fraction bits that a value gets at least, where a factor of a mean is rounded.
_FACTOR_BITS = 8


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
  """What is known of a value on its way through the layers.

  channels: the original index of every channel that is there, in the new order. The
    channels that are not there are zero.
  total: how many channels the original network has here.
  largest: its largest magnitude.
  fraction: fraction bits of the integers that stand for it. Behind a mean of n values they are
    log2(n) more, which need not be whole: the weights of who reads them make up for that.
  step: the last served layer.
  linear: whether a linear layer's output is in it, with no activation behind.
  constant: where it does not depend on the image, what it is, float64 [1, ..., C]. Then all
    channels are there, in the original order, and there is no layer for it yet.
  folded: whether a square (a y + b)^2 + K has its a and b in the weights of the layer
    before. Then the integers of the polynomial channels are those of a y + b.
  """

  channels: np.ndarray
  total: int
  largest: float
  fraction: float
  step: Step | None = None
  linear: bool = False
  constant: np.ndarray | None = None
  folded: bool = False

  def then(self, layer: records.Layer, name: str = '', **changes) -> 'Value':
    """This value after one more served layer; `name` is that of `Step`."""
    return dataclasses.replace(self, step=Step(layer, (name,), self.step), **changes)

  def arranged(self, channels: np.ndarray, fraction: float | None = None) -> 'Value':
    """This value with other channels, by original index, or with more fraction bits.

    If these are not whole bits more, it is multiplied by the nearest integer (`common`).
    """
    more = 0 if fraction is None else fraction - self.fraction
    if not more and np.array_equal(channels, self.channels):
      return self
    shift = int(more) if more == int(more) else 0
    factor = 1 if shift == more else round(2.0**more)
    return self.then(
      records.Gather(places(self.channels, channels), shift=shift, factor=factor),
      channels=channels,
      fraction=self.fraction if fraction is None else fraction,
    )

  def always(self, x: np.ndarray) -> 'Value':
    """This value, where it is x [1, ..., C] for all images."""
    total = x.shape[-1]
    largest = float(np.abs(x).max(initial=0.0))
    return dataclasses.replace(
      self, constant=x, channels=np.arange(total), total=total, largest=largest
    )


def places(channels: np.ndarray, wanted: np.ndarray) -> tuple[int, ...]:
  """Where each wanted channel is among these; -1 for one that is not there."""
  place = {channel: i for i, channel in enumerate(channels.tolist())}
  return tuple(place.get(channel, -1) for channel in wanted.tolist())


def names_of(steps: list[list[Step]]) -> tuple[str, ...]:
  """What the network calls the layers of all sides of a block."""
  return tuple(name for side in steps for step in side for name in step.names)


def common(fractions: list[float]) -> float:
  """Fraction bits that all of these values can have: the most of them, if all are whole.

  Others differ by a factor of a mean. They are multiplied by an integer near a power of two of
  that factor, which has eight bits or more, as weights have.
  """
  most = max(fractions)
  if all(most - fraction == int(most - fraction) for fraction in fractions):
    return most
  return math.ceil(most) + _FACTOR_BITS


def parting(branch: Step | None, shortcut: Step | None) -> Step | None:
  """The last step that both sides of an addition have in common."""
  behind = set()
  while branch is not None:
    behind.add(id(branch))
    branch = branch.before
  while shortcut is not None and id(shortcut) not in behind:
    shortcut = shortcut.before
  return shortcut

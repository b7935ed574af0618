"""Where the windows of a pool lie on a map."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Axis:
  """The windows along one axis.

  length: of the map.
  size: of a window.
  stride: from one window to the next.
  before, behind: of the padding.
  """

  length: int
  size: int
  stride: int
  before: int = 0
  behind: int = 0

  @property
  def count(self) -> int:
    """How many windows there are; what is left behind the last one is dropped."""
    return (self.before + self.length + self.behind - self.size) // self.stride + 1

  @property
  def plain(self) -> bool:
    """Whether the windows lie side by side and cover the map."""
    return self.size == self.stride and self.count * self.size == self.length and not self.before

  @property
  def places(self) -> np.ndarray:
    """Where the values of each window are, int [count, size]; in the padding below 0 or too high.

    Every window has at least one value on the map.
    """
    return self.stride * np.arange(self.count)[:, None] + np.arange(self.size) - self.before

  @property
  def inside(self) -> np.ndarray:
    """How many values of each window are on the map, int [count]."""
    first = self.stride * np.arange(self.count) - self.before
    return np.minimum(first + self.size, self.length) - np.maximum(first, 0)


class Windows(NamedTuple):
  """The windows on a map."""

  rows: Axis
  columns: Axis

  @property
  def shape(self) -> tuple[int, int]:
    """(H, W) of what a pool makes."""
    return self.rows.count, self.columns.count

  @property
  def plain(self) -> bool:
    """Whether the windows lie side by side and cover the map."""
    return self.rows.plain and self.columns.plain

  @property
  def values(self) -> int:
    """Values of a window."""
    return self.rows.size * self.columns.size

  @property
  def counts(self) -> np.ndarray:
    """How many values of the map each window has, int [H', W']."""
    return self.rows.inside[:, None] * self.columns.inside


def of(layer: Any, height: int, width: int) -> Windows:
  """The windows of a pool's record on a map.

  ValueError where they do not fit, or leave values out although the record has neither a stride
  nor padding.
  """
  padding = layer.padding
  if layer.window is None:
    return Windows(Axis(height, height, height), Axis(width, width, width))
  size, stride = layer.window, layer.stride or layer.window
  found = Windows(*(Axis(n, size, stride, *pad) for n, pad in zip((height, width), padding)))
  if layer.stride is None and not any(map(any, padding)) and not found.plain:
    raise ValueError(
      f'a pool of window {size} does not divide a {height} x {width} map: '
      'with a stride it drops what is left'
    )
  if min(found.shape) < 1:
    raise ValueError(f'a pool of window {size} on a {height} x {width} map, want a larger map')
  return found

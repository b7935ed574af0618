"""The shape of a linear layer, and how the rows and columns of its map are cut: numpy only.

`packing` says what planes, places and taps are.
"""

from collections.abc import Iterator
import dataclasses
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Convolution:
  """The public shape of a linear layer.

  A dense layer is a 1x1 kernel on a 1x1 map.

  groups: of neighbouring channels, of inputs and of outputs.
  dilation: distance of neighbouring taps; the kernel's span is (kernel - 1) dilation + 1.
  padding: zeros around the map, ((top, bottom), (left, right)). None puts (span - 1) // 2
    before and span // 2 behind each axis.
  """

  height: int
  width: int
  channels_in: int
  channels_out: int
  kernel: int
  stride: int = 1
  groups: int = 1
  dilation: int = 1
  padding: tuple[tuple[int, int], tuple[int, int]] | None = None

  def __post_init__(self) -> None:
    if min(dataclasses.astuple(self)[:-1]) < 1 or min(self.output_shape) < 1:
      raise ValueError(f'{self}: want natural numbers from 1, and an output')
    if self.channels_in % self.groups or self.channels_out % self.groups:
      raise ValueError(f'{self}: want channels in equal groups')

  @property
  def _span(self) -> int:
    return (self.kernel - 1) * self.dilation + 1

  @property
  def around(self) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding, also where it is None."""
    each = (self._span - 1) // 2, self._span // 2
    return (each, each) if self.padding is None else self.padding

  @property
  def input_shape(self) -> tuple[int, int, int]:
    """[height, width, channels_in]."""
    return self.height, self.width, self.channels_in

  @property
  def kernel_shape(self) -> tuple[int, int, int, int]:
    """[kernel, kernel, channels_in / groups, channels_out]."""
    return self.kernel, self.kernel, self.channels_in // self.groups, self.channels_out

  @property
  def output_shape(self) -> tuple[int, int, int]:
    """[height', width', channels_out]; without padding ceil(height / stride) rows."""
    rows, columns = (
      (size + sum(zeros) - self._span) // self.stride + 1
      for size, zeros in zip(self.input_shape[:2], self.around)
    )
    return rows, columns, self.channels_out


class Axis(NamedTuple):
  """Rows (or columns) of one layer and how they are cut into tiles."""

  size: int  # of the input
  length: int  # of the output
  stride: int
  phases: np.ndarray  # residues modulo the stride that some tap reads
  first: int  # the smallest tap offset, <= 0
  taps: np.ndarray  # [phases, offsets]: the kernel's index, or the kernel's size for no tap
  tiles: int
  tile: int  # outputs of a tile
  pitch: int  # places that a tile takes
  origin: int  # the place of a tile's first output
  read: int  # places that some output reads, counted from the map's start

  def source(self) -> np.ndarray:
    """The input's index at each place, or -1: [tiles, phases, pitch]."""
    places = np.arange(self.tiles)[:, None] * self.tile - self.origin
    places = places + np.arange(self.pitch)
    index = places[:, None] * self.stride + self.phases[:, None]
    inside = (index >= 0) & (index < self.size) & (places < self.read)[:, None]
    return np.where(inside, index, -1)

  @property
  def pixels(self) -> int:
    """How many of the input's rows (or columns) are at some place."""
    return sum(min(-(-(self.size - int(p)) // self.stride), self.read) for p in self.phases)


def parts(whole: int, most: int) -> list[int]:
  """The sizes, up to `most`, of the largest part where a whole is cut evenly; ascending."""
  parts = np.arange(1, min(whole, most) + 1)
  return parts[-(-whole // -(-whole // parts)) == parts].tolist()


def axes(layer: Convolution, axis: int) -> Iterator[Axis]:
  """Every way to cut one axis into equal tiles; uncut comes first."""
  size, length = layer.input_shape[axis], layer.output_shape[axis]
  kernel, stride = layer.kernel, layer.stride
  index = np.arange(kernel)
  reach = index * layer.dilation - layer.around[axis][0]
  # The first output whose tap is not above the map, and the pixel that it reads.
  output = np.maximum(-(reach // stride), 0)
  # A tap that meets nothing but padding takes no place: the outer ones of 3x3 on a 1x1 map.
  meets = (output < length) & (output * stride + reach < size)
  if not meets.any():
    meets[0], reach[0] = True, 0  # it reads a pixel with a weight of zero
    index[0] = kernel
  index, reach = index[meets], reach[meets]
  offsets, residues = np.divmod(reach, stride)
  phases = np.unique(residues)
  first, last = min(int(offsets.min()), 0), max(int(offsets.max()), 0)
  taps = np.full((phases.size, last - first + 1), kernel)
  taps[np.searchsorted(phases, residues), offsets - first] = index
  # Behind the last place that is read come zeros, for the taps that reach before the next row.
  read = min(-(-(size - int(phases[0])) // stride), length + last)
  for tile in reversed(parts(length, length)):
    whole = tile == length
    pitch = max(length + max(-first, last), read - first) if whole else tile - first + last
    yield Axis(
      size,
      length,
      stride,
      phases,
      first,
      taps,
      tiles=-(-length // tile),
      tile=tile,
      pitch=pitch,
      origin=0 if whole else -first,
      read=read,
    )

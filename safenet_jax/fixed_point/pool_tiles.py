"""How the windows of a max pool are put into circuits: several neighbours together, as a tile.

Windows that overlap share values. A circuit of one window would read each of them again. A
circuit of a tile adds the shares of a value once, takes the maxima of its columns first, and
then those of rows. What a 3 x 3 window with stride 2 costs, on words of w bits:

    windows of a tile   values each   ANDs each
    1                   9             27 w - 10
    16                  5.1           20 w - 6
    all of a map        4             18 w - 5

The last row would take more than one layer of circuits.
"""

import functools
from typing import NamedTuple

import numpy as np

from safenet_jax.models.windows import Windows

# The most windows along each axis of a tile: larger circuits gain little.
_MOST = 4


class Tiles(NamedTuple):
  """The tiles of one map.

  windows: of the pool.
  side: how many windows a tile has along each axis.
  """

  windows: Windows
  side: int

  @property
  def spans(self) -> tuple[int, int]:
    """Rows and columns of values that a tile reads."""
    rows, columns = (axis.size + (self.side - 1) * axis.stride for axis in self.windows)
    return rows, columns

  @property
  def words(self) -> int:
    """Values that a tile reads."""
    return self.spans[0] * self.spans[1]

  @property
  def outputs(self) -> int:
    """Windows of a tile."""
    return self.side**2

  @property
  def shape(self) -> tuple[int, int]:
    """Rows and columns of tiles. The last ones may reach beyond the windows."""
    rows, columns = (-(-axis.count // self.side) for axis in self.windows)
    return rows, columns

  @property
  def kind(self) -> tuple[int, ...]:
    """What a circuit depends on: side of tile, windows and strides."""
    rows, columns = self.windows
    return self.side, rows.size, columns.size, rows.stride, columns.stride

  def cut(self, x: np.ndarray) -> np.ndarray:
    """The values of [B, H, W, C] that each tile reads: [words, tiles in order]."""
    for axis, (along, span) in enumerate(zip(self.windows, self.spans)):
      starts = np.arange(self.shape[axis]) * self.side * along.stride - along.before
      places = np.clip(starts[:, None] + np.arange(span), 0, along.length - 1)
      x = np.take(x, places, 1 + 2 * axis)
    return x.transpose(2, 4, 0, 1, 3, 5).reshape(self.words, -1)

  def joined(self, words: np.ndarray, channels: int) -> np.ndarray:
    """The inverse for what circuits give, [outputs, tiles in order]: [B, H', W', C]."""
    rows, columns = self.shape
    parts = words.reshape(self.side, self.side, -1, rows, columns, channels)
    whole = parts.transpose(2, 3, 0, 4, 1, 5)
    whole = whole.reshape(-1, rows * self.side, columns * self.side, channels)
    return np.ascontiguousarray(whole[:, : self.windows.rows.count, : self.windows.columns.count])


@functools.cache
def of(windows: Windows) -> Tiles:
  """The tiles that make a map's maxima cheapest."""
  overlap = any(axis.stride < axis.size for axis in windows)
  sides = range(1, _MOST + 1 if overlap else 2)
  return min((Tiles(windows, side) for side in sides), key=_cost)


def _cost(tiles: Tiles) -> float:
  """ANDs for each bit of a word, with the labels of a word as half of one."""
  (rows, _), (high, wide) = tiles.spans, (axis.size for axis in tiles.windows)
  maxima = rows * tiles.side * (wide - 1) + tiles.outputs * (high - 1)
  return tiles.shape[0] * tiles.shape[1] * (1.5 * tiles.words + 2 * maxima + 2 * tiles.outputs)

"""Where maps and kernels lie among the coefficients of polynomials: numpy only.

BFV of degree N computes with polynomials of Z[X] / (X^N + 1), which have N
coefficients. Multiplying two of them convolves their coefficients. So one product can
convolve several planes of a map at once, without rotations (Cheetah, eprint 2022/207,
section 4.1).

A plane is one channel of the map. For a convolution of stride s > 1, a channel is split
into several planes. Each has the pixels of one residue of the row, and one of the
column, modulo s. This makes it a convolution of stride 1 on the output's grid.

A polynomial of the input holds `planes` planes. A plane takes S coefficients: plane c
starts at coefficient c * S, and its rows lie `pitch` coefficients apart. Zeros between
rows stand for the padding, on the right of one row and on the left of the next; zeros
below a plane serve the next plane in the same way.

A tap is one entry of the kernel, which reads the pixel (dy, dx) away from the output's.
The tap (dy, dx) from plane c to output channel m lies at coefficient

  (m * planes + planes - 1 - c) * S - dy * pitch - dx,

so that pixel (i, j) of output channel m appears at coefficient

  (m * planes + planes - 1) * S + i * pitch + j.

A map whose planes would not fit in N coefficients is cut into tiles. These carry a
halo, the pixels of their neighbours that the kernel reads, instead of zeros.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

# What a polynomial to the server and one back cost both parties, counted in plaintext products.
# Measured on one core: 0.8 ms and 1.3 ms, where a product takes 0.05 ms to multiply and add (two
# primes); much the same ratios with one prime and with N = 2048.
_INPUT_COST = 16
_OUTPUT_COST = 28
# What a bit on the wire may cost, counted in products of one coefficient modulo one prime. Such a
# product takes 6 ns. A bit takes 4 ns on a link of 250 Mbit/s, which is between LAN and WAN.
_BIT_COST = 0.6


class Bits(NamedTuple):
  """What a coefficient takes on the wire, and in memory.

  drawn: bits of a pixel that is drawn as it is encrypted.
  given: bits of any other coefficient to the server.
  reply: bits of a coefficient back.
  moduli: words of 64 bits in memory.
  """

  drawn: int
  given: int
  reply: int
  moduli: int


@dataclasses.dataclass(frozen=True)
class Convolution:
  """The public shape of a linear layer.

  Zeros stand (kernel - 1) // 2 before and kernel // 2 behind each axis.
  A dense layer is a 1x1 kernel on a 1x1 map.
  """

  height: int
  width: int
  channels_in: int
  channels_out: int
  kernel: int
  stride: int = 1

  def __post_init__(self) -> None:
    if min(dataclasses.astuple(self)) < 1:
      raise ValueError(f'{self}: want natural numbers from 1')

  @property
  def input_shape(self) -> tuple[int, int, int]:
    """[height, width, channels_in]."""
    return self.height, self.width, self.channels_in

  @property
  def kernel_shape(self) -> tuple[int, int, int, int]:
    """[kernel, kernel, channels_in, channels_out]."""
    return self.kernel, self.kernel, self.channels_in, self.channels_out

  @property
  def output_shape(self) -> tuple[int, int, int]:
    """[ceil(height / stride), ceil(width / stride), channels_out]."""
    return (
      -(-self.height // self.stride),
      -(-self.width // self.stride),
      self.channels_out,
    )


class _Axis(NamedTuple):
  """Rows (or columns) of one layer and how they are cut into tiles."""

  size: int  # of the input
  length: int  # of the output, and of every plane
  stride: int
  phases: np.ndarray  # residues modulo the stride that some tap reads
  first: int  # the smallest tap offset, <= 0
  taps: np.ndarray  # [phases, offsets]: the kernel's index, or the kernel's size for no tap
  tiles: int
  tile: int  # outputs of a tile
  pitch: int  # places that a tile takes
  origin: int  # the place of a tile's first output

  def source(self) -> np.ndarray:
    """The input's index at each place, or -1: [tiles, phases, pitch]."""
    places = np.arange(self.tiles)[:, None] * self.tile - self.origin
    places = places + np.arange(self.pitch)
    index = places[:, None] * self.stride + self.phases[:, None]
    return np.where((index >= 0) & (index < self.size), index, -1)


def _parts(whole: int, most: int) -> list[int]:
  """The sizes, up to `most`, of the largest part where a whole is cut evenly; ascending."""
  parts = np.arange(1, min(whole, most) + 1)
  return parts[-(-whole // -(-whole // parts)) == parts].tolist()


def _axes(size: int, kernel: int, stride: int) -> Iterator[_Axis]:
  """Every way to cut one axis into equal tiles; uncut comes first."""
  length = -(-size // stride)
  before = (kernel - 1) // 2
  # A tap that meets nothing but padding takes no place: the outer ones of 3x3 on a 1x1 map.
  reach = np.arange(max(-before, 1 - size), min(kernel // 2, size - 1) + 1)
  # The first output whose tap is not above the map, and the pixel that it reads.
  output = np.maximum(-(reach // stride), 0)
  reach = reach[(output < length) & (output * stride + reach < size)]
  offsets, residues = np.divmod(reach, stride)
  phases = np.unique(residues)
  first, last = min(int(offsets.min()), 0), max(int(offsets.max()), 0)
  taps = np.full((phases.size, last - first + 1), kernel)
  taps[np.searchsorted(phases, residues), offsets - first] = reach + before
  for tile in reversed(_parts(length, length)):
    whole = tile == length
    yield _Axis(
      size,
      length,
      stride,
      phases,
      first,
      taps,
      tiles=-(-length // tile),
      tile=tile,
      pitch=length + max(-first, last) if whole else tile - first + last,
      origin=0 if whole else -first,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
  """One layer's packing into polynomials of `degree` coefficients."""

  convolution: Convolution
  degree: int
  rows: _Axis
  columns: _Axis
  planes_per_input: int
  channels_per_output: int

  @property
  def _planes(self) -> int:
    phases = self.rows.phases.size * self.columns.phases.size
    return phases * self.convolution.channels_in

  @property
  def _plane_size(self) -> int:
    return self.rows.pitch * self.columns.pitch

  @property
  def tiles(self) -> int:
    """Tiles of the map; each has its own inputs and outputs."""
    return self.rows.tiles * self.columns.tiles

  @property
  def inputs(self) -> int:
    """Polynomials that one tile of the input map takes."""
    return -(-self._planes // self.planes_per_input)

  @property
  def outputs(self) -> int:
    """Groups of output channels; each is one polynomial per tile."""
    return -(-self.convolution.channels_out // self.channels_per_output)

  @functools.cached_property
  def _source(self) -> np.ndarray:
    """The map's flat index at each coefficient: [tiles * inputs, used]."""
    _, width, channels = self.convolution.input_shape
    row = self.rows.source()[:, None, None, :, None, :, None]
    column = self.columns.source()[None, :, None, None, :, None, :]
    channel = np.arange(channels)[:, None, None, None, None]
    index = (row * width + column) * channels + channel
    index = np.where((row < 0) | (column < 0), -1, index)
    index = index.reshape(self.tiles, self._planes, self._plane_size)
    missing = self.inputs * self.planes_per_input - self._planes
    index = np.pad(index, ((0, 0), (0, missing), (0, 0)), constant_values=-1)
    return index.reshape(self.tiles * self.inputs, -1)

  @property
  def drawn(self) -> int:
    """How many pixels the polynomials hold, each counted once."""
    rows, columns = (
      sum(-(-(axis.size - int(phase)) // axis.stride) for phase in axis.phases)
      for axis in (self.rows, self.columns)
    )
    return self.convolution.channels_in * rows * columns

  @functools.cached_property
  def free(self) -> np.ndarray:
    """Where a pixel lies for the first time: bool [tiles * inputs, degree].

    Elsewhere are zeros, and the pixels of a halo once more.
    """
    flat = self._source.reshape(-1)
    _, first = np.unique(flat, return_index=True)
    found = np.zeros(flat.size, bool)
    found[first] = True
    found[flat < 0] = False
    missing = self.degree - self._source.shape[1]
    return np.pad(found.reshape(self._source.shape), ((0, 0), (0, missing)))

  def draw_map(
    self, draw: Callable[[np.ndarray, np.ndarray], np.ndarray], values: np.ndarray
  ) -> np.ndarray:
    """A map [height, width, channels_in] whose pixels `draw` gives, tile by tile.

    Args:
      draw: takes polynomials [inputs, degree] with what is given of them, and where it is not,
        which are rows of `free`; returns the whole polynomials.
      values: such a map, for the pixels that no polynomial holds.
    """
    flat = np.append(values.reshape(-1), values.dtype.type(0))
    used = self._source.shape[1]
    for first in range(0, len(self.free), self.inputs):
      source, free = (part[first : first + self.inputs] for part in (self._source, self.free))
      polynomials = np.zeros((self.inputs, self.degree), values.dtype)
      polynomials[:, :used] = np.where(free[:, :used], 0, flat[source])
      drawn = draw(polynomials, free)
      flat[source[free[:, :used]]] = drawn[free]
    return flat[:-1].reshape(values.shape)

  def pack_map(self, values: np.ndarray) -> np.ndarray:
    """A map [height, width, channels_in] as polynomials [tiles * inputs, degree]."""
    flat = np.append(values.reshape(-1), values.dtype.type(0))
    packed = np.zeros((self.tiles * self.inputs, self.degree), values.dtype)
    packed[:, : self._source.shape[1]] = flat[self._source]
    return packed

  def pack_kernel(self, kernel: np.ndarray, groups: range) -> Iterator[np.ndarray]:
    """The int64 coefficients [inputs, degree] of each of the given groups of output channels."""
    rows, columns = self.rows, self.columns
    blank = np.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    planes = blank[rows.taps[:, None, :, None], columns.taps[:, None, :]]
    # [row phase, column phase, dy, dx, in, out] to [plane, dy, dx, out].
    planes = planes.transpose(4, 0, 1, 2, 3, 5).reshape(self._planes, *planes.shape[2:4], -1)
    per_input, per_output = self.planes_per_input, self.channels_per_output
    missing = self.inputs * per_input - self._planes
    spare = self.outputs * per_output - planes.shape[-1]
    planes = np.pad(planes, ((0, missing), (0, 0), (0, 0), (0, spare)))
    planes = planes.reshape(self.inputs, per_input, *planes.shape[1:])
    plane = np.arange(per_input)[:, None, None, None]
    dy = np.arange(rows.taps.shape[1])[:, None, None] + rows.first
    dx = np.arange(columns.taps.shape[1])[:, None] + columns.first
    place = self._first_place(np.arange(per_output)) - plane * self._plane_size
    place = place - dy * columns.pitch - dx
    sign = np.where(place < 0, -1, 1)  # X^-n = -X^(N - n)
    for group in groups:
      start = group * per_output
      packed = np.zeros((self.inputs, self.degree), np.int64)
      packed[:, place % self.degree] = sign * planes[..., start : start + per_output]
      yield packed

  def _first_place(self, channel: np.ndarray) -> np.ndarray:
    """The coefficient at which each of a group's output channels begins."""
    per_input = self.planes_per_input
    return (channel * per_input + per_input - 1) * self._plane_size

  @functools.cached_property
  def _places(self) -> np.ndarray:
    """`output_places` of a full group: [height, width, channels_per_output]."""
    height, width, _ = self.convolution.output_shape
    rows, columns = self.rows, self.columns
    tile_row, row = np.divmod(np.arange(height), rows.tile)
    tile_column, column = np.divmod(np.arange(width), columns.tile)
    tile = tile_row[:, None] * columns.tiles + tile_column
    pixel = (row + rows.origin)[:, None] * columns.pitch + column + columns.origin
    first = self._first_place(np.arange(self.channels_per_output))
    return (tile * self.degree + pixel)[..., None] + first

  def output_places(self, group: int) -> np.ndarray:
    """Where a group's outputs [h, w, channels] lie: indices into [tiles, degree], flattened."""
    left = self.convolution.channels_out - group * self.channels_per_output
    return self._places[..., :left]


@functools.lru_cache(maxsize=1024)
def layout(convolution: Convolution, degree: int, bits: Bits) -> Layout:
  """The cheapest packing of a layer for polynomials of `degree` coefficients.

  Raises:
    ValueError: not even one output pixel with its halo fits.
  """
  _, _, channels, outputs, kernel, stride = dataclasses.astuple(convolution)
  rows, columns = (
    [axis for axis in _axes(size, kernel, stride) if axis.pitch <= degree]
    for size in (convolution.height, convolution.width)
  )
  best: tuple[float, Layout | None] = math.inf, None
  if not rows or not columns:
    raise ValueError(f'{convolution} needs more than {degree} coefficients')
  planes = channels * rows[0].phases.size * columns[0].phases.size
  per_input = np.array(_parts(planes, degree))
  inputs = -(-planes // per_input)
  pitch = np.array([column.pitch for column in columns])[:, None]
  tiles = np.array([column.tiles for column in columns])[:, None]
  tile = np.array([column.tile for column in columns])[:, None]
  for row in rows:
    # [columns, planes per input], all ways to pack for this cut of the rows.
    per_output = np.minimum(outputs, degree // (row.pitch * pitch) // per_input)
    groups = -(-outputs // np.maximum(per_output, 1))
    work = _INPUT_COST * inputs + _OUTPUT_COST * groups + inputs * groups
    drawn = planes * row.tile * tile
    sent = (bits.drawn - bits.given) * drawn + degree * (bits.given * inputs + bits.reply * groups)
    work = work + _BIT_COST / (degree * bits.moduli) * sent
    costs = np.where(per_output, row.tiles * tiles * work, np.inf)
    column, at = np.unravel_index(costs.argmin(), costs.shape)
    if costs[column, at] < best[0]:
      sizes = int(per_input[at]), int(per_output[column, at])
      best = costs[column, at], Layout(convolution, degree, row, columns[column], *sizes)
  if best[1] is None:
    raise ValueError(f'{convolution} needs more than {degree} coefficients')
  return best[1]

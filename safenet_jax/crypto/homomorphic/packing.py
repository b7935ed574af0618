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

In a convolution of several groups each group of outputs reads its own group of inputs. So
each has polynomials of its own, packed as above. Where a group takes few coefficients, P
groups share a polynomial, and the block of group m begins B a_m coefficients from the start,
in the input and in the kernel alike. B is what the product of both takes. A product of
the input of group i with the kernel of group j comes to lie at B (a_i + a_j). Nothing
but group m's own product may lie at 2 B a_m. So no two of the a_m may have a third one in
their middle. The numbers whose digits in base 3 are 0 and 1 are such: 0, 1, 3, 4, 9, ... In
a product with the input of other groups, all kernels are moved by a multiple of what
P groups take. So one output can hold the groups of several inputs.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto.homomorphic import map_axes
from safenet_jax.crypto.homomorphic.map_axes import Convolution

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


def _spread(index: int) -> int:
  """The number of this index, from 0, among those whose digits in base 3 are 0 and 1."""
  return int(f'{index:b}', 3)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
  """One layer's packing into polynomials of `degree` coefficients.

  Groups of channels are cut into parts. A part has inputs and outputs of its own.

  shared: how many groups share an input polynomial.
  gathered: how many such inputs share an output polynomial. If that or `shared` is not 1, a
    group alone has one input, one output and one tile.
  """

  convolution: Convolution
  degree: int
  rows: map_axes.Axis
  columns: map_axes.Axis
  planes_per_input: int
  channels_per_output: int
  shared: int = 1
  gathered: int = 1

  @property
  def _planes(self) -> int:
    """Planes of a group's input."""
    phases = self.rows.phases.size * self.columns.phases.size
    return phases * (self.convolution.channels_in // self.convolution.groups)

  @property
  def _channels(self) -> int:
    """Output channels of a group."""
    return self.convolution.channels_out // self.convolution.groups

  @property
  def parts(self) -> int:
    """How often the groups fill their share of polynomials."""
    return -(-self.convolution.groups // (self.shared * self.gathered))

  def _members(self) -> Iterator[tuple[int, int, int]]:
    """Of each group of a part: its input, its place there, and its kernel's place."""
    block = _block(self.planes_per_input, self.channels_per_output) * self._plane_size
    taken = 2 * _spread(self.shared - 1) + 1
    for which in range(self.gathered):
      for place in map(_spread, range(self.shared)):
        yield which, place * block, (which * taken + place) * block

  @property
  def _plane_size(self) -> int:
    return self.rows.pitch * self.columns.pitch

  @property
  def tiles(self) -> int:
    """Tiles of the map; each has its own inputs and outputs."""
    return self.rows.tiles * self.columns.tiles

  @property
  def inputs(self) -> int:
    """Polynomials that one tile of the input map takes, for one part."""
    return self.gathered * -(-self._planes // self.planes_per_input)

  @property
  def uploaded(self) -> int:
    """Polynomials that the whole input map takes."""
    return self.parts * self.tiles * self.inputs

  @property
  def outputs_of_part(self) -> int:
    """Outputs, of all `outputs`, that one part makes: they follow each other."""
    return -(-self._channels // self.channels_per_output)

  @property
  def outputs(self) -> int:
    """Sets of output channels; each is one polynomial per tile."""
    return self.parts * self.outputs_of_part

  @functools.cached_property
  def _source(self) -> np.ndarray:
    """The map's flat index at each coefficient: [parts * tiles * inputs, used]."""
    _, width, channels = self.convolution.input_shape
    groups, inputs = self.convolution.groups, self.inputs // self.gathered
    row = self.rows.source()[:, None, None, :, None, :, None]
    column = self.columns.source()[None, :, None, None, :, None, :]
    channel = np.arange(channels)[:, None, None, None, None]
    index = (row * width + column) * channels + channel
    index = np.where((row < 0) | (column < 0), -1, index)
    index = index.reshape(self.tiles, groups, self._planes, self._plane_size)
    missing = inputs * self.planes_per_input - self._planes
    spare = self.parts * self.shared * self.gathered - groups
    index = np.pad(index, ((0, 0), (0, spare), (0, missing), (0, 0)), constant_values=-1)
    # [tiles, parts, groups of a part, inputs of a group, coefficients]
    index = index.reshape(self.tiles, self.parts, self.shared * self.gathered, inputs, -1)
    index = index.transpose(1, 0, 2, 3, 4)
    size = index.shape[-1]
    used = max(start for _, start, _ in self._members()) + size
    found = np.full((self.parts, self.tiles, self.gathered, inputs, used), -1)
    for member, (which, start, _) in enumerate(self._members()):
      found[:, :, which, :, start : start + size] = index[:, :, member]
    return found.reshape(self.parts * self.tiles * self.inputs, -1)

  @property
  def drawn(self) -> int:
    """How many pixels the polynomials hold, each counted once."""
    return self.convolution.channels_in * self.rows.pixels * self.columns.pixels

  @functools.cached_property
  def free(self) -> np.ndarray:
    """Where a pixel lies for the first time: bool [parts * tiles * inputs, degree].

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
    """A map [height, width, channels_in] as polynomials.

    They are [parts * tiles * inputs, degree].
    """
    flat = np.append(values.reshape(-1), values.dtype.type(0))
    packed = np.zeros((len(self._source), self.degree), values.dtype)
    packed[:, : self._source.shape[1]] = flat[self._source]
    return packed

  def pack_kernel(self, kernel: np.ndarray, groups: range) -> Iterator[np.ndarray]:
    """The int64 coefficients [inputs, degree] of each of the given sets of output channels."""
    rows, columns = self.rows, self.columns
    blank = np.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    planes = blank[rows.taps[:, None, :, None], columns.taps[:, None, :]]
    # [row phase, column phase, dy, dx, in, out] to [plane, dy, dx, out].
    planes = planes.transpose(4, 0, 1, 2, 3, 5).reshape(self._planes, *planes.shape[2:4], -1)
    per_input, per_output = self.planes_per_input, self.channels_per_output
    inputs = self.inputs // self.gathered
    missing = inputs * per_input - self._planes
    planes = np.pad(planes, ((0, missing), (0, 0), (0, 0), (0, 0)))
    planes = planes.reshape(inputs, per_input, *planes.shape[1:])
    plane = np.arange(per_input)[:, None, None, None]
    dy = np.arange(rows.taps.shape[1])[:, None, None] + rows.first
    dx = np.arange(columns.taps.shape[1])[:, None] + columns.first
    place = self._first_place(np.arange(per_output)) - plane * self._plane_size
    place = place - dy * columns.pitch - dx
    for group in groups:
      packed = np.zeros((self.gathered, inputs, self.degree), np.int64)
      for channels, (which, _, start) in zip(self._channels_of(group), self._members()):
        at = (place + start)[..., : len(channels)]
        sign = np.where(at < 0, -1, 1)  # X^-n = -X^(N - n)
        packed[which][:, at % self.degree] = sign * planes[..., channels.start : channels.stop]
      yield packed.reshape(self.inputs, self.degree)

  def _channels_of(self, group: int) -> Iterator[range]:
    """The output channels of a set, for each of the convolution's groups that it serves."""
    part, rest = divmod(group, self.outputs_of_part)
    per_part = self.shared * self.gathered
    first = rest * self.channels_per_output
    last = min(first + self.channels_per_output, self._channels)
    for one in range(part * per_part, min((part + 1) * per_part, self.convolution.groups)):
      yield range(one * self._channels + first, one * self._channels + last)

  def _first_place(self, channel: np.ndarray) -> np.ndarray:
    """The coefficient at which each output channel of a set begins."""
    per_input = self.planes_per_input
    return (channel * per_input + per_input - 1) * self._plane_size

  @functools.cached_property
  def _pixels(self) -> np.ndarray:
    """Where the pixels of the output [height, width] lie in [tiles, degree], flattened."""
    height, width, _ = self.convolution.output_shape
    rows, columns = self.rows, self.columns
    tile_row, row = np.divmod(np.arange(height), rows.tile)
    tile_column, column = np.divmod(np.arange(width), columns.tile)
    tile = tile_row[:, None] * columns.tiles + tile_column
    pixel = (row + rows.origin)[:, None] * columns.pitch + column + columns.origin
    return tile * self.degree + pixel

  def output_places(self, group: int) -> np.ndarray:
    """Where a set's outputs [h, w, channels] lie: indices into [tiles, degree], flattened."""
    found = [
      self._first_place(np.arange(len(channels))) + at + start
      for channels, (_, at, start) in zip(self._channels_of(group), self._members())
    ]
    return self._pixels[..., None] + np.concatenate(found)


def _block(planes: int, channels: int) -> int:
  """Planes that a group's product takes: of as many inputs with the kernels of such outputs."""
  return planes * channels + planes - 1


@functools.lru_cache(maxsize=1024)
def layout(convolution: Convolution, degree: int, bits: Bits) -> Layout:
  """The cheapest packing of a layer for polynomials of `degree` coefficients.

  Raises:
    ValueError: not even one output pixel with its halo fits.
  """
  rows, columns = (
    [found for found in map_axes.axes(convolution, axis) if found.pitch <= degree]
    for axis in range(2)
  )
  best: tuple[float, Layout | None] = math.inf, None
  if not rows or not columns:
    raise ValueError(f'{convolution} needs more than {degree} coefficients')
  groups = convolution.groups
  channels, outputs = convolution.channels_in // groups, convolution.channels_out // groups
  planes = channels * rows[0].phases.size * columns[0].phases.size
  per_input = np.array(map_axes.parts(planes, degree))
  inputs = -(-planes // per_input)
  pitch = np.array([column.pitch for column in columns])[:, None]
  tiles = np.array([column.tiles for column in columns])[:, None]
  tile = np.array([column.tile for column in columns])[:, None]

  def cost(inputs, sets, drawn):
    """Of so many polynomials in, sets of outputs and pixels."""
    work = _INPUT_COST * inputs + _OUTPUT_COST * sets + inputs * sets
    sent = (bits.drawn - bits.given) * drawn + degree * (bits.given * inputs + bits.reply * sets)
    return work + _BIT_COST / (degree * bits.moduli) * sent

  for row in rows:
    # [columns, planes per input], all ways to pack a group for this cut of the rows.
    per_output = np.minimum(outputs, degree // (row.pitch * pitch) // per_input)
    sets = -(-outputs // np.maximum(per_output, 1))
    each = cost(inputs, sets, planes * row.tile * tile)
    costs = np.where(per_output, groups * row.tiles * tiles * each, np.inf)
    column, at = np.unravel_index(costs.argmin(), costs.shape)
    if costs[column, at] < best[0]:
      sizes = int(per_input[at]), int(per_output[column, at])
      best = costs[column, at], Layout(convolution, degree, row, columns[column], *sizes)
  if groups > 1:
    # Several groups in a polynomial, of which each is whole.
    axes = rows[0], columns[0]
    whole = axes[0].tiles == axes[1].tiles == 1
    fits = degree // (axes[0].pitch * axes[1].pitch) if whole else 0
    block, drawn = _block(planes, outputs), planes * axes[0].tile * axes[1].tile
    for shared in itertools.count(1):
      taken = 2 * _spread(shared - 1) + 1
      # The last block need not be whole: behind its outputs comes what nobody reads.
      room = fits + planes - 1
      if taken * block > room:
        break
      gathered = min(room // (taken * block), -(-groups // shared))
      parts = -(-groups // (shared * gathered))
      total = parts * cost(gathered, 1, drawn * shared * gathered)
      if total < best[0]:
        best = total, Layout(convolution, degree, *axes, planes, outputs, shared, gathered)
      if shared >= groups:
        break
  if best[1] is None:
    raise ValueError(f'{convolution} needs more than {degree} coefficients')
  return best[1]

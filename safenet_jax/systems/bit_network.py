"""Networks whose weights and activations are -1 and 1, on plaintext integers.

A bit stands for -1 (0) or 1 (1). A neuron that reads K bits counts on how many places its input
agrees with its sign weights; with the count a, the sum of the products is 2 a - K. Its output is 1
where the count reaches a threshold, into which batch norm and sign are folded. A maximum of bits is
their OR. The first layer reads pixels less 128 instead of bits, and compares the sum itself.

A map is flat: channel by channel, then row by row. Beyond its border are bits 0, or pixels 0.

With `positions` a neuron reads only some places of its window: the weights are -1, 0 and 1, the
same number of zeros in every neuron of a layer. The positions are public, the signs are not.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

# What is taken from a pixel, so that it has both signs.
CENTRE = 128
# Images that `run` takes at once.
_BATCH = 100


@dataclasses.dataclass(frozen=True)
class Window:
  """How a layer reads a map: windows of `kernel` x `kernel`, or the whole map where it is 0.

  height, width, channels: of the map.
  before: rows and columns of padding in front; behind there is what the last windows need.
  """

  height: int
  width: int
  channels: int
  kernel: int = 0
  stride: int = 1
  before: int = 0

  @property
  def side(self) -> tuple[int, int]:
    """Rows and columns of the windows."""
    if not self.kernel:
      return 1, 1
    return -(-self.height // self.stride), -(-self.width // self.stride)

  @property
  def size(self) -> int:
    """Places of the map."""
    return self.height * self.width * self.channels

  @functools.cached_property
  def patches(self) -> np.ndarray:
    """The places that each window reads, int [windows, k]; `size` stands for the border."""
    places = np.arange(self.size).reshape(self.channels, self.height, self.width)
    if not self.kernel:
      return places.reshape(1, -1)
    rows, columns = (
      self.stride * np.arange(count)[:, None] + np.arange(self.kernel) - self.before
      for count in self.side
    )
    inside = ((rows >= 0) & (rows < self.height))[:, None, :, None] & (
      (columns >= 0) & (columns < self.width)
    )[None, :, None, :]
    found = places[
      :, rows.clip(0, self.height - 1)[:, None, :, None], columns.clip(0, self.width - 1)[:, None]
    ]
    found = np.where(inside, found, self.size)  # [C, rows, columns, kernel, kernel]
    return found.transpose(1, 2, 0, 3, 4).reshape(len(rows) * len(columns), -1)


class Sums(NamedTuple):
  """The public part of a linear layer.

  positions: int [outputs, K], the places of its window that each neuron reads; None for all.
  """

  window: Window
  outputs: int
  positions: np.ndarray | None = None

  @property
  def inputs(self) -> int:
    """K, how many weights a neuron has that are not 0."""
    return self.window.patches.shape[1] if self.positions is None else self.positions.shape[1]

  @property
  def neurons(self) -> int:
    """How many outputs the layer has for one image."""
    return self.outputs * len(self.window.patches)


class Pool(NamedTuple):
  """The public part of a maximum over windows of 2 x 2 side by side."""

  height: int
  width: int
  channels: int

  @property
  def patches(self) -> np.ndarray:
    """The places of each window, int [4, windows of all channels]."""
    places = np.arange(self.height * self.width * self.channels)
    places = places.reshape(self.channels, self.height // 2, 2, self.width // 2, 2)
    return places.transpose(2, 4, 0, 1, 3).reshape(4, -1)


class Secret(NamedTuple):
  """The server's part of a linear layer.

  signs: uint8 [outputs, K], 1 for a weight 1 and 0 for -1.
  thresholds: int64 [outputs]. For the first layer of the sum, for others of the count. For the last
    layer not a threshold, but what is added to the count.
  """

  signs: np.ndarray
  thresholds: np.ndarray


@dataclasses.dataclass(frozen=True)
class BitNetwork:
  """Layers and secrets, None beside a pool; the first and the last of several layers are sums."""

  layers: tuple[Sums | Pool, ...]
  secrets: tuple[Secret | None, ...]

  def weights(self, number: int) -> Secret:
    """The secrets of a linear layer; ValueError for a pool."""
    found = self.secrets[number]
    if found is None:
      raise ValueError(f'layer {number} is a pool, want a linear layer')
    return found

  def bits(self, images: np.ndarray) -> np.ndarray:
    """The bits that hidden layers make of images uint8 [B, H, W, C]: uint8 [places, B]."""
    value = centred(self.layers[0], images)
    for number, layer in enumerate(self.layers):
      if isinstance(layer, Pool):
        value = value[layer.patches].max(axis=0)
        continue
      secret = self.weights(number)
      found = counts(layer, secret.signs, value) if number else sums(layer, secret.signs, value)
      value = (found >= secret.thresholds[:, None, None]).astype(np.uint8)
      value = value.reshape(-1, value.shape[-1])
    return value

  def run(self, images: np.ndarray) -> np.ndarray:
    """Logits int64 [B, classes] of images uint8 [B, H, W, C]: counts with their addends."""
    hidden = BitNetwork(self.layers[:-1], self.secrets[:-1])
    last, secret = linear(self.layers[-1]), self.weights(len(self.layers) - 1)
    found = [
      counts(last, secret.signs, hidden.bits(some))[:, 0] + secret.thresholds[:, None]
      for some in np.array_split(images, -(-len(images) // _BATCH))
    ]
    return np.concatenate(found, axis=1).T

  def arrays(self) -> dict[str, np.ndarray]:
    """Arrays for a file, bits packed."""
    found = {}
    for number, (layer, secret) in enumerate(zip(self.layers, self.secrets)):
      if isinstance(layer, Pool) or secret is None:
        found[f'{number}_pool'] = np.array(layer)
        continue
      found[f'{number}_window'] = np.array(dataclasses.astuple(layer.window))
      found[f'{number}_signs'] = np.packbits(secret.signs, axis=1)
      found[f'{number}_thresholds'] = secret.thresholds
      found[f'{number}_inputs'] = np.array(layer.inputs)
      if layer.positions is not None:
        read = np.zeros((layer.outputs, layer.window.patches.shape[1]), np.uint8)
        np.put_along_axis(read, layer.positions, 1, axis=1)
        found[f'{number}_positions'] = np.packbits(read, axis=1)
    return found

  @classmethod
  def of(cls, arrays: Mapping[str, np.ndarray]) -> 'BitNetwork':
    """The inverse of `arrays`."""
    layers: list[Sums | Pool] = []
    secrets: list[Secret | None] = []
    for number in range(1 + max(int(name.partition('_')[0]) for name in arrays)):
      if f'{number}_pool' in arrays:
        layers.append(Pool(*map(int, arrays[f'{number}_pool'])))
        secrets.append(None)
        continue
      window = Window(*map(int, arrays[f'{number}_window']))
      inputs = int(arrays[f'{number}_inputs'])
      signs = np.unpackbits(arrays[f'{number}_signs'], axis=1, count=inputs)
      positions = None
      if f'{number}_positions' in arrays:
        read = np.unpackbits(arrays[f'{number}_positions'], axis=1, count=window.patches.shape[1])
        positions = np.nonzero(read)[1].reshape(len(read), -1)
      layers.append(Sums(window, len(signs), positions))
      secrets.append(Secret(signs, arrays[f'{number}_thresholds']))
    return cls(tuple(layers), tuple(secrets))


def linear(layer: Sums | Pool) -> Sums:
  """The layer as a linear one; ValueError for a pool, with which no network starts or ends."""
  if isinstance(layer, Pool):
    raise ValueError('a network that starts or ends with a pool, want a linear layer')
  return layer


def centred(first: Sums | Pool, images: np.ndarray) -> np.ndarray:
  """Pixels less 128, int64 [places, B], from images uint8 [B, H, W, C].

  ValueError for images of another size than the first layer reads.
  """
  window = linear(first).window
  shape = window.height, window.width, window.channels
  if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
    raise ValueError(f'images {images.dtype} {images.shape}, want uint8 (B, *{shape})')
  flat = images.transpose(3, 1, 2, 0).reshape(window.size, -1)
  return flat.astype(np.int64) - CENTRE


def counts(layer: Sums, signs: np.ndarray, bits: np.ndarray) -> np.ndarray:
  """On how many places bits agree with signs, int64 [outputs, windows, B]; as `sums`."""
  return (sums(layer, signs, 2 * bits.astype(np.int8) - 1, -1) + layer.inputs) // 2


def sums(layer: Sums, signs: np.ndarray, value: np.ndarray, border: int = 0) -> np.ndarray:
  """Sums of value times weight, int64 [outputs, windows, B], of a map [places, B].

  Args:
    layer: which places are read.
    signs: of the weights, as in `Secret`.
    value: of any integer type, at most 2^15 in size.
    border: what stands beyond the border.
  """
  weights = np.zeros((layer.outputs, layer.window.patches.shape[1]), np.float32)
  places = np.arange(weights.shape[1])[None] if layer.positions is None else layer.positions
  np.put_along_axis(
    weights, np.broadcast_to(places, signs.shape), 2 * signs.astype(np.float32) - 1, axis=1
  )
  edged = np.concatenate([value, np.full((1, value.shape[1]), border)]).astype(np.float32)
  # float32 holds integers up to 2^24: sums of 2^9 values of 2^15, or of all bits and pixels here.
  patches = edged[layer.window.patches].swapaxes(0, 1)  # [k, windows, B]
  found = weights @ patches.reshape(len(patches), -1)
  return np.rint(found).astype(np.int64).reshape(layer.outputs, *patches.shape[1:])

"""How large the values of a float network are, on calibration images.

Images go through the network in batches of bounded memory. What is kept of a value is how large
each of its channels is in each image. All that calibration chooses follows from that.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import math

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.fixed_point import products
from safenet_jax.fixed_point.folding import Split
from safenet_jax.fixed_point.model import max_pool
from safenet_jax.models import layers as records

# Called with the number of images that are done, and of all.
Progress = Callable[[int, int], None]


class Statistics:
  """Operations on float64 [B, ..., C], with all channels in the network's order.

  Names of values are those of layers, for what a layer makes; 'input'; 'activation0/input', ...
  for what an activation reads; and 'add0', ... for sums, counted in the network's order.

  largest: by name of a value, float64 [images, C]: the largest magnitude in each channel.
  squares: likewise, the mean of squares.
  """

  def __init__(
    self, folded: Mapping[str, tuple[np.ndarray, np.ndarray]], splits: Sequence[Split]
  ):
    """Of the network with these weights (`folding.fold_batch_norm`) and activations."""
    self.folded, self.splits = folded, splits
    self.activations = self.additions = 0
    self._parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

  @property
  def largest(self) -> dict[str, np.ndarray]:
    return {name: np.concatenate([p[0] for p in parts]) for name, parts in self._parts.items()}

  @property
  def squares(self) -> dict[str, np.ndarray]:
    return {name: np.concatenate([p[1] for p in parts]) for name, parts in self._parts.items()}

  def add_images(self, layers: tuple[records.Layer, ...], normal: np.ndarray) -> None:
    """Counts the values of normalised images, float64 [B, H, W, C]."""
    self.activations = self.additions = 0
    records.run(layers, self, self._seen('input', normal))

  def _seen(self, name: str, x: np.ndarray) -> np.ndarray:
    places = tuple(range(1, x.ndim - 1))
    largest = np.maximum(x.max(places), -x.min(places)) if places else np.abs(x)
    flat = x.reshape(len(x), -1, x.shape[-1])
    squares = np.einsum('bpc,bpc->bc', flat, flat) / flat.shape[1]
    self._parts.setdefault(name, []).append((largest, squares))
    return x

  def conv(self, name, layer, x):
    kernel, bias = self.folded[name]
    return self._seen(name, products.convolve(x, kernel, layer) + bias)

  def dense(self, name, layer, x):
    del layer
    kernel, bias = self.folded[name]
    return self._seen(name, x @ kernel + bias)

  def activation(self, name, layer, y):
    del layer
    split = self.splits[self.activations]
    self.activations += 1
    if split.total != y.shape[-1]:
      raise ValueError(
        f'{name} has {y.shape[-1]} channels, want the {split.total} that its plan is for, '
        'not flattened'
      )
    self._seen(f'{name}/input', y)
    if split.relu.size == split.total:
      return self._seen(name, np.maximum(y, 0))
    z = np.zeros_like(y)
    z[..., split.order] = split.evaluate(y[..., split.order])
    return self._seen(name, z)

  def average_pool(self, name, layer, x):
    window = records.window(layer, *x.shape[1:3])
    return self._seen(name, ring.sum_pool(x, window) / window**2)

  def max_pool(self, name, layer, x):
    return self._seen(name, max_pool(x, records.window(layer, *x.shape[1:3])))

  def flatten(self, name, layer, x):
    del name, layer
    return x.reshape(x.shape[0], -1)

  def pad_shortcut(self, name, layer, x):
    del name
    more = layer.features - x.shape[-1]
    channels = (more // 2, more - more // 2)
    return np.pad(x[:, :: layer.stride, :: layer.stride], (*[(0, 0)] * 3, channels))

  def add(self, branch, shortcut):
    name = f'add{self.additions}'
    self.additions += 1
    return self._seen(name, branch + shortcut)


def batches(
  layers: tuple[records.Layer, ...], input_shape: tuple[int, ...], count: int
) -> Iterator[slice]:
  """Slices of `count` images, of so many that a network's largest map takes 32 MB at 8 bytes."""
  shapes = records.shapes(layers, input_shape)
  most = max(math.prod(size) for size in (input_shape, *(s.output_shape for s in shapes)))
  together = max((1 << 22) // most, 1)
  return (slice(first, first + together) for first in range(0, count, together))

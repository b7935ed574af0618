"""How large the values of a float network are, on calibration images.

Images go through the network in batches of bounded memory. What is kept of a value is how large
each of its channels is in each image. All that calibration chooses follows from that.
"""

from collections.abc import Callable, Sequence

import numpy as np

from safenet_jax.fixed_point import pooling, products
from safenet_jax.models import layers as records
from safenet_jax.models import windows
from safenet_jax.quantization import folding

# Mean squares are kept of so many images, or a batch more: channels are compared roughly.
_SQUARED = 8
# Called with the number of images that are done, and of all.
Progress = Callable[[int, int], None]


class Statistics:
  """Operations on float64 [B, ..., C], with all channels in the network's order.

  Names of values are those of layers, for what a layer makes; 'input'; 'conv0/input', ... for what
  a layer reads; 'logits'; and 'add0', ... for sums.

  largest: by name of a value, float64 [images, C]: the largest magnitude in each channel.
  squares: by name, float64 [images, C] of the first images: the mean of squares in each channel,
    of what linear layers read and make.

  With many squares in a row the values of an image may leave float64: then these are infinite.
  """

  def __init__(
    self, folded: dict[str, tuple[np.ndarray, np.ndarray]], splits: Sequence[folding.Split]
  ):
    """Of the network with these weights (`folding.fold_batch_norm`) and activations."""
    self.folded, self._additions = folded, 0
    self._splits = {f'activation{t}': split for t, split in enumerate(splits)}
    self.largest: dict[str, np.ndarray] = {}
    self.squares: dict[str, np.ndarray] = {}

  def add_images(self, layers: tuple[records.Layer, ...], normal: np.ndarray) -> None:
    """Counts the values of normalised images, float64 [B, H, W, C]."""
    self._additions = 0
    with np.errstate(over='ignore', invalid='ignore'):  # of an image that leaves all bounds
      self._seen('logits', records.run(layers, self, self._seen('input', normal)))

  def _seen(self, name: str, x: np.ndarray) -> np.ndarray:
    places = tuple(range(1, x.ndim - 1))
    largest = np.maximum(x.max(places), -x.min(places)) if places else np.abs(x)
    _append(self.largest, name, _without_nan(largest))
    return x

  def _squared(self, name: str, x: np.ndarray) -> np.ndarray:
    if len(self.squares.get(name, ())) < _SQUARED:
      flat = x.reshape(len(x), -1, x.shape[-1])
      squares = np.einsum('bpc,bpc->bc', flat, flat) / flat.shape[1]
      _append(self.squares, name, _without_nan(squares))
    return x

  def conv(self, name, layer, x):
    kernel, bias = self.folded[name]
    self._squared(f'{name}/input', x)
    return self._linear(name, layer, products.convolve(x, kernel, layer) + bias)

  def dense(self, name, layer, x):
    kernel, bias = self.folded[name]
    self._squared(f'{name}/input', x)
    return self._linear(name, layer, x @ kernel + bias)

  def _linear(self, name, layer, y):
    """What conv and dense share: y is what the layer makes."""
    del layer
    return self._seen(name, self._squared(name, y))

  def activation(self, name, layer, y):
    split = self._splits[name]
    self._seen(f'{name}/input', y)
    if split.relu.size == split.total and layer == records.Activation():
      return self._seen(name, np.maximum(y, 0))
    z = np.zeros_like(y)
    z[..., split.order] = split.evaluate(y[..., split.order], layer)
    return self._seen(name, z)

  def average_pool(self, name, layer, x):
    try:
      divisor = pooling.divisor(layer, windows.of(layer, *x.shape[1:3]))
    except ValueError as error:
      raise ValueError(f'{name}: {error}') from None
    return self._seen(name, pooling.sums(np, x, layer) / divisor)

  def max_pool(self, name, layer, x):
    return self._seen(name, pooling.maxima(self._seen(f'{name}/input', x), layer))

  def flatten(self, name, layer, x):
    del name, layer
    return x.reshape(x.shape[0], -1)

  def pad_shortcut(self, name, layer, x):
    del name
    more = layer.features - x.shape[-1]
    channels = (more // 2, more - more // 2)
    return np.pad(x[:, :: layer.stride, :: layer.stride], (*[(0, 0)] * 3, channels))

  def concat(self, values):
    return np.concatenate(values, axis=-1)

  def add(self, branch, shortcut):
    name = f'add{self._additions}'
    self._additions += 1
    return self._seen(name, branch + shortcut)


def _without_nan(x: np.ndarray) -> np.ndarray:
  """Infinity in the place of NaN, which would make the median over all images NaN."""
  return np.where(np.isnan(x), np.inf, x)


def _append(found: dict[str, np.ndarray], name: str, rows: np.ndarray) -> None:
  found[name] = np.concatenate([found[name], rows]) if name in found else rows

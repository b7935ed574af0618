"""Architecture is data: a network is a tuple of frozen layer records.

The Flax network, the fixed-point model and both parties of the protocol walk
the same tuple with `run`, each with its own operations. Nothing here needs JAX.
"""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Conv:
  """Convolution with 'SAME' padding; without batch_norm it has a bias."""

  features: int
  kernel: int = 3
  stride: int = 1
  batch_norm: bool = True


@dataclasses.dataclass(frozen=True)
class Dense:
  """Fully connected layer with a bias on flat features."""

  features: int


@dataclasses.dataclass(frozen=True)
class Activation:
  """ReLU, or per channel the polynomial that a plan puts in its place."""


@dataclasses.dataclass(frozen=True)
class AveragePool:
  """Mean over non-overlapping windows; `window` must divide the map."""

  window: int = 2


@dataclasses.dataclass(frozen=True)
class Flatten:
  """[H, W, C] to [H * W * C]."""


Layer = Conv | Dense | Activation | AveragePool | Flatten


def run(layers: tuple[Layer, ...], operations: Any, value: Any) -> Any:
  """Threads `value` through the layers.

  Args:
    layers: the records, in order.
    operations: an object with a method per kind of record: conv, dense,
      activation, average_pool and flatten, each called as
      `method(name, layer, value)` and returning the next value. Names count
      each kind in walking order: conv0, conv1, ..., dense0, activation0, ...
    value: whatever the operations understand: an image, a shape, two shares.

  Returns:
    The value after the last layer.
  """
  kinds = {
    Conv: 'conv',
    Dense: 'dense',
    Activation: 'activation',
    AveragePool: 'average_pool',
    Flatten: 'flatten',
  }
  counts = dict.fromkeys(kinds.values(), 0)
  for layer in layers:
    kind = kinds.get(type(layer))
    if kind is None:
      raise ValueError(
        f'unknown layer {layer!r}, want one of {", ".join(k.__name__ for k in kinds)}'
      )
    value = getattr(operations, kind)(f'{kind}{counts[kind]}', layer, value)
    counts[kind] += 1
  return value


@dataclasses.dataclass(frozen=True)
class LayerShape:
  """What one named layer turns into what: shapes are (H, W, C) or (features,)."""

  name: str
  layer: Layer
  input_shape: tuple[int, ...]
  output_shape: tuple[int, ...]

  @property
  def macs(self) -> int:
    """Multiply-accumulates per image of a linear layer, else 0."""
    match self.layer:
      case Conv(kernel=kernel):
        return math.prod(self.output_shape) * kernel**2 * self.input_shape[-1]
      case Dense():
        return math.prod(self.output_shape) * math.prod(self.input_shape)
    return 0

  @property
  def activations(self) -> int:
    """Activations per image, 0 for other layers."""
    return math.prod(self.output_shape) if isinstance(self.layer, Activation) else 0


class _Shapes:
  """Operations on shapes: checks that the layers fit and records them."""

  def __init__(self):
    self.found: list[LayerShape] = []

  def _record(self, name, layer, before, after):
    self.found.append(LayerShape(name, layer, before, after))
    return after

  def _map(self, name, shape):
    if len(shape) != 3:
      raise ValueError(f'{name} got shape {shape}, want a map (H, W, C)')
    return shape

  def conv(self, name, layer, shape):
    h, w, _ = self._map(name, shape)
    after = (-(-h // layer.stride), -(-w // layer.stride), layer.features)
    return self._record(name, layer, shape, after)

  def dense(self, name, layer, shape):
    if len(shape) != 1:
      raise ValueError(f'{name} got shape {shape}, want (features,): Flatten first')
    return self._record(name, layer, shape, (layer.features,))

  def activation(self, name, layer, shape):
    return self._record(name, layer, shape, shape)

  def average_pool(self, name, layer, shape):
    h, w, c = self._map(name, shape)
    if h % layer.window or w % layer.window:
      raise ValueError(f'{name} of window {layer.window} does not divide a {h} x {w} map')
    return self._record(name, layer, shape, (h // layer.window, w // layer.window, c))

  def flatten(self, name, layer, shape):
    return self._record(name, layer, shape, (math.prod(shape),))


def shapes(layers: tuple[Layer, ...], input_shape: tuple[int, ...]) -> tuple[LayerShape, ...]:
  """The shape of every layer, in walking order; ValueError where they do not fit."""
  operations = _Shapes()
  run(layers, operations, tuple(input_shape))
  return tuple(operations.found)


class _Producers:
  """Operations whose value is the names of the layers that made it."""

  def __init__(self):
    self.found: list[tuple[str, ...]] = []

  def conv(self, name, layer, value):
    del layer, value
    return (name,)

  dense = conv

  def activation(self, name, layer, value):
    del name, layer
    self.found.append(value)
    return value

  def average_pool(self, name, layer, value):
    del name, layer
    return value

  flatten = average_pool


def producers(layers: tuple[Layer, ...]) -> tuple[tuple[str, ...], ...]:
  """For each activation, the names of the linear layers whose sum it is given."""
  operations = _Producers()
  run(layers, operations, ())
  return tuple(operations.found)

"""A network's architecture as data: a tuple of frozen layer records.

The Flax network, the fixed-point model and both parties of the protocol walk
the same tuple with `run`, each with its own operations. Nothing here needs JAX.
"""

import collections
from collections.abc import Iterable
import dataclasses
import math
from typing import Any

from safenet_jax.models import fields
from safenet_jax.models import windows as pool_windows

# Rows or columns that are added before and behind each axis: ((top, bottom), (left, right)).
Padding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: Padding = ((0, 0), (0, 0))


@dataclasses.dataclass(frozen=True)
class Conv:
  """Convolution; without batch_norm it has a bias.

  features: O, output channels.
  kernel: its side k.
  stride: of both axes.
  groups: the input's and output's channels are cut into so many groups of neighbours, and each
    group of outputs reads its own group of inputs. As many as input channels is depthwise.
  dilation: distance of two neighbouring taps of the kernel, whose span is (k - 1) dilation + 1.
  padding: zeros around the map. None adds (span - 1) // 2 before each axis and span // 2
    behind it, so that the output has ceil(H / stride) rows.
  epsilon: of the batch norm.
  """

  features: int
  kernel: int = 3
  stride: int = 1
  batch_norm: bool = True
  groups: int = 1
  dilation: int = 1
  padding: Padding | None = None
  epsilon: float = 1e-5

  def __post_init__(self):
    fields.check_whole(self, 'features', 'kernel', 'stride', 'groups', 'dilation')
    fields.check_epsilon(self)
    if self.padding is not None:
      fields.check_padding(self)
    if self.features % self.groups:
      raise ValueError(
        f'Conv with features {self.features}, want a multiple of its {self.groups} groups'
      )

  @property
  def span(self) -> int:
    """Rows that the taps of the kernel reach over, and columns."""
    return (self.kernel - 1) * self.dilation + 1

  @property
  def around(self) -> Padding:
    """The zeros around the map, also where `padding` is None."""
    each = (self.span - 1) // 2, self.span // 2
    return (each, each) if self.padding is None else self.padding


@dataclasses.dataclass(frozen=True)
class Dense:
  """Fully connected layer on flat features; without batch_norm it has a bias."""

  features: int
  batch_norm: bool = False
  epsilon: float = 1e-5

  def __post_init__(self):
    fields.check_whole(self, 'features')
    fields.check_epsilon(self)


@dataclasses.dataclass(frozen=True)
class BatchNorm:
  """Batch norm that no convolution stands before, as in pre-activation networks."""

  epsilon: float = 1e-5

  def __post_init__(self):
    fields.check_epsilon(self)


@dataclasses.dataclass(frozen=True)
class Activation:
  """ReLU, or per channel the polynomial that a plan puts in its place.

  limit: largest value; 6 is ReLU6. None is no limit.
  slope: below zero; 0 is ReLU, others are leaky ReLUs. It is public, as all of a record is.
  """

  limit: float | None = None
  slope: float = 0.0

  def __post_init__(self):
    fields.check_activation(self)


@dataclasses.dataclass(frozen=True)
class AveragePool:
  """Mean over windows.

  window: its side; None is one window over the whole map.
  stride: of the windows; None is the window.
  padding: zeros around the map.
  count_padding: whether a mean counts the zeros of the padding as values.
  """

  window: int | None = 2
  stride: int | None = None
  padding: Padding = NO_PADDING
  count_padding: bool = True

  def __post_init__(self):
    fields.check_pool(self)


@dataclasses.dataclass(frozen=True)
class MaxPool:
  """Maximum over windows; padding never is the maximum.

  window: its side.
  stride: of the windows; None is the window.
  padding: rows and columns around the map.
  """

  window: int = 2
  stride: int | None = None
  padding: Padding = NO_PADDING

  def __post_init__(self):
    fields.check_whole(self, 'window')
    fields.check_pool(self)


@dataclasses.dataclass(frozen=True)
class Flatten:
  """[H, W, C] to [H * W * C]."""


@dataclasses.dataclass(frozen=True)
class PadShortcut:
  """Every stride-th row and column, with channels of zeros added up to `features`.

  Half of the added channels come before the others, half behind them. This is option A of
  He et al. 2016 (arXiv 1512.03385, section 3.3), a shortcut without weights.
  """

  features: int
  stride: int = 1

  def __post_init__(self):
    fields.check_whole(self, 'features', 'stride')


@dataclasses.dataclass(frozen=True)
class Residual:
  """Turns x into branch(x) + shortcut(x); the empty shortcut is x itself."""

  branch: tuple['Layer', ...]
  shortcut: tuple['Layer', ...] = ()

  def __post_init__(self):
    # Networks are hashed; a list would not be.
    object.__setattr__(self, 'branch', sequence(self.branch))
    object.__setattr__(self, 'shortcut', sequence(self.shortcut))


@dataclasses.dataclass(frozen=True)
class Concat:
  """Turns x into the channels of all branches, side by side; an empty branch is x itself."""

  branches: tuple[tuple['Layer', ...], ...]

  def __post_init__(self):
    object.__setattr__(self, 'branches', tuple(sequence(branch) for branch in self.branches))
    if not self.branches:
      raise ValueError('Concat without branches, want at least one')


@dataclasses.dataclass(frozen=True)
class Gather:
  """Picks channels; only the models that are served have this record.

  Output channel i is channel channels[i] of the input, times factor 2^shift; -1 stands for a
  channel of zeros. Of a map, it takes every stride-th row and column.
  """

  channels: tuple[int, ...]
  stride: int = 1
  shift: int = 0
  factor: int = 1


@dataclasses.dataclass(frozen=True)
class Truncate:
  """Drops low bits; only the models that are served have this record.

  Each party drops the `shift` low bits of its own share, as it does before a polynomial. It
  stands where a linear layer reads what other linear layers made, whose values have twice the
  fraction bits.
  """

  shift: int


@dataclasses.dataclass(frozen=True)
class Constant:
  """Puts values that do not depend on the image in the place of its input.

  Only the models that are served have this record: where a plan prunes every channel of an
  activation, what is computed behind it is the same for all images. The values are the server's.

  shape: of the values, (H, W, C) or (C,).
  """

  shape: tuple[int, ...]


def sequence(layers: Iterable[Any]) -> tuple['Layer', ...]:
  """The layers as a tuple; ValueError if one of them is no record."""
  try:
    found = tuple(layers)
  except TypeError:
    raise ValueError(f'layers {layers!r}, want a tuple of records') from None
  for layer in found:
    if type(layer) not in _KINDS:
      names = ', '.join(record.__name__ for record in _KINDS)
      raise ValueError(f'unknown layer {layer!r}, want one of {names}')
  return found


Pool = AveragePool | MaxPool
Layer = (
  Conv
  | Dense
  | BatchNorm
  | Activation
  | Pool
  | Flatten
  | PadShortcut
  | Residual
  | Concat
  | Gather
  | Truncate
  | Constant
)

_KINDS = {
  Conv: 'conv',
  Dense: 'dense',
  BatchNorm: 'batch_norm',
  Activation: 'activation',
  AveragePool: 'average_pool',
  MaxPool: 'max_pool',
  Flatten: 'flatten',
  PadShortcut: 'pad_shortcut',
  Residual: 'add',
  Concat: 'concat',
  Gather: 'gather',
  Truncate: 'truncate',
  Constant: 'constant',
}


def run(layers: tuple[Layer, ...], operations: Any, value: Any) -> Any:
  """Threads `value` through the layers.

  Args:
    layers: the records, in order.
    operations: an object with a method per kind of record: conv, dense,
      batch_norm, activation, average_pool, max_pool, flatten and pad_shortcut, each called
      as `method(name, layer, value)` and returning the next value, and
      `add(branch, shortcut)` and `concat(values)`. Names count the records of each kind in
      walking order, a branch before its shortcut: conv0, conv1, ..., dense0, activation0, ...
    value: whatever the operations understand, such as an image, a shape or two shares.

  Returns:
    The value after the last layer.

  Raises:
    ValueError: something is no record, or the operations have no method for it.
  """
  return _walk(sequence(layers), operations, value, collections.Counter())


# Not a closure, which would refer to itself: then `operations`, which may hold a party's
# material of an inference, would stay in memory until the garbage collector looks for cycles.
def _walk(layers: tuple[Layer, ...], operations: Any, value: Any, counts: collections.Counter):
  for layer in layers:
    kind = _KINDS[type(layer)]
    method = getattr(operations, kind, None)
    if method is None:
      raise ValueError(f'{type(layer).__name__} is not served yet')
    if isinstance(layer, Residual):
      branch = _walk(layer.branch, operations, value, counts)
      value = method(branch, _walk(layer.shortcut, operations, value, counts))
      continue
    if isinstance(layer, Concat):
      value = method([_walk(branch, operations, value, counts) for branch in layer.branches])
      continue
    value = method(f'{kind}{counts[kind]}', layer, value)
    counts[kind] += 1
  return value


def convolved(layer: Conv, axis: int, size: int) -> int:
  """How many rows (axis 0) or columns (axis 1) a convolution makes of so many; 0 or less: none."""
  return (size + sum(layer.around[axis]) - layer.span) // layer.stride + 1


@dataclasses.dataclass(frozen=True)
class LayerShape:
  """One named layer with its input's and output's shapes, (H, W, C) or (features,)."""

  name: str
  layer: Layer
  input_shape: tuple[int, ...]
  output_shape: tuple[int, ...]

  @property
  def macs(self) -> int:
    """Multiply-accumulates per image of a linear layer, else 0."""
    match self.layer:
      case Conv(kernel=kernel, groups=groups):
        return math.prod(self.output_shape) * kernel**2 * self.input_shape[-1] // groups
      case Dense():
        return math.prod(self.output_shape) * math.prod(self.input_shape)
      case BatchNorm():
        return math.prod(self.output_shape)
    return 0

  @property
  def activations(self) -> int:
    """Activations per image, 0 for other layers."""
    return math.prod(self.output_shape) if isinstance(self.layer, Activation) else 0


class _Shapes:
  """Operations on shapes: checks that the layers fit and records them."""

  def __init__(self):
    self.found: list[LayerShape] = []
    self.joined: list[tuple[int, ...]] = []

  def _record(self, name, layer, before, after):
    self.found.append(LayerShape(name, layer, before, after))
    return after

  def _map(self, name, shape):
    if len(shape) != 3:
      raise ValueError(f'{name} got shape {shape}, want a map (H, W, C)')
    return shape

  def conv(self, name, layer, shape):
    h, w, c = self._map(name, shape)
    if c % layer.groups:
      raise ValueError(f'{name} got {c} channels, want a multiple of its {layer.groups} groups')
    sides = [convolved(layer, axis, size) for axis, size in enumerate((h, w))]
    if min(sides) < 1:
      raise ValueError(
        f'{name} got a {h} x {w} map, want one on which its {layer.span} x {layer.span} window fits'
      )
    return self._record(name, layer, shape, (*sides, layer.features))

  def batch_norm(self, name, layer, shape):
    return self._record(name, layer, shape, shape)

  def dense(self, name, layer, shape):
    if len(shape) != 1:
      raise ValueError(f'{name} got shape {shape}, want (features,): Flatten first')
    return self._record(name, layer, shape, (layer.features,))

  def activation(self, name, layer, shape):
    return self._record(name, layer, shape, shape)

  def average_pool(self, name, layer, shape):
    h, w, c = self._map(name, shape)
    return self._record(name, layer, shape, (*pool_windows.of(layer, h, w).shape, c))

  max_pool = average_pool

  def flatten(self, name, layer, shape):
    return self._record(name, layer, shape, (math.prod(shape),))

  def pad_shortcut(self, name, layer, shape):
    h, w, c = self._map(name, shape)
    if layer.features < c:
      raise ValueError(f'{name} got {c} channels, want at most {layer.features}')
    after = (-(-h // layer.stride), -(-w // layer.stride), layer.features)
    return self._record(name, layer, shape, after)

  def gather(self, name, layer, shape):
    if not all(-1 <= channel < shape[-1] for channel in layer.channels):
      raise ValueError(f'{name} got {shape[-1]} channels, want those of {layer.channels}')
    after = (*(-(-n // layer.stride) for n in shape[:-1]), len(layer.channels))
    return self._record(name, layer, shape, after)

  def truncate(self, name, layer, shape):
    return self._record(name, layer, shape, shape)

  def constant(self, name, layer, shape):
    return self._record(name, layer, shape, layer.shape)

  def add(self, branch, shortcut):
    if branch != shortcut:
      raise ValueError(f'a residual branch of shape {branch} and a shortcut of {shortcut}')
    return branch

  def concat(self, values):
    if len({shape[:-1] for shape in values}) > 1:
      raise ValueError(f'a Concat of {" and ".join(map(str, values))}, want maps of one size')
    self.joined.append((*values[0][:-1], sum(shape[-1] for shape in values)))
    return self.joined[-1]


def shapes(layers: tuple[Layer, ...], input_shape: tuple[int, ...]) -> tuple[LayerShape, ...]:
  """The shape of every layer, in walking order; ValueError where they do not fit."""
  operations = _Shapes()
  run(layers, operations, tuple(input_shape))
  return tuple(operations.found)


def joined_shapes(
  layers: tuple[Layer, ...], input_shape: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
  """The shape of what every `Concat` makes; they have no names, and are not among `shapes`."""
  operations = _Shapes()
  run(layers, operations, tuple(input_shape))
  return tuple(operations.joined)


def output_shape(layers: tuple[Layer, ...], input_shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape of what the layers make; ValueError where they do not fit."""
  return run(layers, _Shapes(), tuple(input_shape))

"""The operators of ONNX that are taken, each as a function from values to a value.

Their meaning is that of https://onnx.ai/onnx/operators. A function that does not take its node
raises `RefusedError`, which says why, and what could be done instead.
"""

from collections.abc import Callable
import dataclasses
import inspect
import math
from typing import Any

import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.onnx_files import constants
from safenet_jax.onnx_files.file import FLOATS, Node
from safenet_jax.onnx_files.steps import finite, ours, per_channel, RefusedError, Steps, Value

# What a node reads: a value, an array, or None for an input that is left out.
Input = Value | np.ndarray | None

_SMOOTH = 'train the network on with ReLUs in its place'
_GATED = 'use a network without attention or squeeze-and-excitation'
# What could be done instead of an operator that is not taken.
INSTEAD = {
  **dict.fromkeys(
    (
      'Sigmoid',
      'Tanh',
      'HardSwish',
      'HardSigmoid',
      'Gelu',
      'Erf',
      'Elu',
      'Selu',
      'Softplus',
      'Mish',
    ),
    _SMOOTH,
  ),
  **dict.fromkeys(('Softmax', 'LogSoftmax', 'Einsum'), _GATED),
  **dict.fromkeys(
    ('LayerNormalization', 'InstanceNormalization', 'GroupNormalization', 'LRN'),
    'train the network with BatchNormalization in its place',
  ),
  **dict.fromkeys(
    ('QLinearConv', 'QuantizeLinear', 'DequantizeLinear', 'ConvInteger', 'QLinearMatMul'),
    'export the network of floats',
  ),
  **dict.fromkeys(
    ('If', 'Loop', 'Scan'), 'export the network for one size of images, without control flow'
  ),
  **dict.fromkeys(('LSTM', 'GRU', 'RNN'), 'use a convolutional network'),
  'ConvTranspose': 'use a network that classifies',
  'Resize': 'use a network that classifies',
  'ArgMax': 'end the network at its logits',
}


def take(node: Node, place: int, steps: Steps, inputs: list[Input], last: bool) -> Value:
  """What a node makes of its inputs, one of which depends on the image.

  Args:
    node: of the file.
    place: its number there.
    steps: get the steps that it becomes.
    inputs: what it reads.
    last: whether its output is the network's.

  Raises:
    RefusedError: it is not taken.
  """
  if node.operator not in TAKEN:
    instead = INSTEAD.get(
      node.operator, 'leave it out, or build it of those that docs/onnx.md lists'
    )
    raise RefusedError(f'the operator is not taken; {instead}')
  function = TAKEN[node.operator]
  first = inputs[0] if inputs else None
  if not isinstance(first, Value) and node.operator not in _SYMMETRIC:
    raise RefusedError('whose first input does not depend on the image, want the image there')
  at = _At(node, place, steps, last)
  try:
    inspect.signature(function).bind(at, *inputs)
  except TypeError:
    raise RefusedError(f'{len(inputs)} inputs, want those of this operator') from None
  return function(at, *inputs)


@dataclasses.dataclass
class _At:
  """A node, and where what it becomes is put."""

  node: Node
  place: int
  steps: Steps
  last: bool

  def integer(self, name: str, default: int) -> int:
    """An attribute that is one number."""
    return self._typed(name, int, default)

  def number(self, name: str, default: float) -> float:
    """An attribute that is one float."""
    value = self._typed(name, float, default)
    if not math.isfinite(value):
      raise RefusedError(f'{name} {value}, want a finite number')
    return value

  def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute of as many numbers as the default has."""
    found = self._typed(name, tuple, default)
    if len(found) != len(default) or not all(isinstance(n, int) for n in found):
      raise RefusedError(f'{name} {found}, want {len(default)} integers: maps of two axes')
    return found

  def _typed(self, name: str, kind: type, default: Any) -> Any:
    value = self.node.attributes.get(name)
    if value is None:
      return default
    if not isinstance(value, kind):
      raise RefusedError(f'{name} {value!r}, want {kind.__name__}')
    return value

  def layer(self, x: Value, record: Callable[..., records.Layer], **options) -> Value:
    """What a layer without weights makes of a value."""
    return self.steps.layer(self.place, x, made(record, **options))


def made(record: Callable[..., records.Layer], **options) -> records.Layer:
  """A record; `RefusedError` where it does not take these options."""
  try:
    return record(**options)
  except ValueError as error:
    raise RefusedError(str(error)) from None


def _map(x: Input, *, axes: str = 'nchw') -> Value:
  """The value, if it is a map of these axes."""
  if not isinstance(x, Value):
    raise RefusedError('of weights alone, want a map')
  if x.axes != axes:
    raise RefusedError(f'of a value with axes {x.axes}, want {axes}')
  return x


def _one(name: str, both: tuple[int, ...]) -> int:
  """The number that holds for both axes."""
  if len(set(both)) != 1:
    raise RefusedError(f'{name} {both}, want the same along both axes')
  return both[0]


def _padding(at: _At, span: int, stride: int, sides: tuple[int, ...]) -> records.Padding:
  """The zeros that a convolution or pool adds around a map of these sides."""
  kind = at.node.attributes.get('auto_pad') or 'NOTSET'
  if kind in ('SAME_UPPER', 'SAME_LOWER'):
    found = []
    for side in sides:
      total = max((-(-side // stride) - 1) * stride + span - side, 0)
      less, more = total // 2, total - total // 2
      found.append((less, more) if kind == 'SAME_UPPER' else (more, less))
    return tuple(found)  # type: ignore[return-value]
  if kind not in ('NOTSET', 'VALID'):
    raise RefusedError(f'auto_pad {kind!r}, want NOTSET, VALID, SAME_UPPER or SAME_LOWER')
  top, left, bottom, right = (0, 0, 0, 0) if kind == 'VALID' else at.integers('pads', (0, 0, 0, 0))
  return (top, bottom), (left, right)


def _convolution(at: _At, x: Input, kernel: Input, bias: Input = None) -> Value:
  x = _map(x)
  weights = finite(kernel, 'kernel', None, None, None, None)
  side = _one('a kernel of', weights.shape[2:])
  stride = _one('strides', at.integers('strides', (1, 1)))
  dilation = _one('dilations', at.integers('dilations', (1, 1)))
  groups, inputs = at.integer('group', 1), x.ours[-1]
  if groups < 1 or inputs % groups or weights.shape[1] != inputs // groups:
    raise RefusedError(
      f'a kernel of shape {weights.shape} for {inputs} channels in {groups} groups, '
      'want channels in each group'
    )
  if stride < 1 or dilation < 1:
    raise RefusedError(f'stride {stride} and dilation {dilation}, want at least 1')
  span = (side - 1) * dilation + 1
  (top, bottom), (left, right) = _padding(at, span, stride, x.shape[2:])
  (more_top, more_bottom), (more_left, more_right) = x.padding
  padding = (top + more_top, bottom + more_bottom), (left + more_left, right + more_right)
  usual = (((span - 1) // 2, span // 2),) * 2
  layer = made(
    records.Conv,
    features=weights.shape[0],
    kernel=side,
    stride=stride,
    batch_norm=False,
    groups=groups,
    dilation=dilation,
    padding=None if padding == usual else padding,
  )
  return at.steps.layer(
    at.place,
    dataclasses.replace(x, padding=records.NO_PADDING),
    layer,
    kernel=weights.transpose(2, 3, 1, 0),
    bias=_bias(bias, weights.shape[0]),
  )


def _bias(bias: Input, features: int) -> np.ndarray:
  return np.zeros(features, np.float32) if bias is None else finite(bias, 'bias', features)


def _batch_norm(
  at: _At, x: Input, scale: Input, bias: Input, mean: Input, variance: Input
) -> Value:
  if not isinstance(x, Value):
    raise RefusedError('of weights alone, want a map')
  if not x.flat:
    _map(x)
  if at.integer('training_mode', 0):
    raise RefusedError(
      'in training mode, want the export of a network in evaluation (model.eval())'
    )
  channels = x.ours[-1]
  given = {'scale': scale, 'bias': bias, 'mean': mean, 'var': variance}
  arrays = {name: ours(x, finite(each, name, channels)) for name, each in given.items()}
  layer = made(records.BatchNorm, epsilon=_decimal(at.number('epsilon', 1e-5)))
  return at.steps.layer(at.place, x, layer, **arrays)


def _decimal(value: float) -> float:
  """The number that someone wrote, of the float32 that a file has: 1e-5 of 9.99999975e-06."""
  return float(f'{value:.7g}')


def _features(x: Input) -> Value:
  if not isinstance(x, Value) or not x.flat:
    raise RefusedError('want features of the image on the left, and weights on the right')
  return x


def _dense(at: _At, x: Value, kernel: np.ndarray, bias: np.ndarray) -> Value:
  layer = made(records.Dense, features=kernel.shape[1])
  return at.steps.layer(at.place, x, layer, kernel=ours(x, kernel), bias=bias)


def _gemm(at: _At, x: Input, kernel: Input, bias: Input = None) -> Value:
  x = _features(x)
  if at.integer('transA', 0):
    raise RefusedError('of images along the second axis, want transA 0')
  weights = finite(kernel, 'kernel', None, None) * np.float32(at.number('alpha', 1.0))
  weights = weights.T if at.integer('transB', 0) else weights
  if len(weights) != x.ours[0]:
    raise RefusedError(f'a kernel for {len(weights)} features, got {x.ours[0]}')
  added = np.zeros(weights.shape[1], np.float32)
  if bias is not None:
    given = finite(bias, 'bias', *(None,) * np.ndim(bias))  # type: ignore[arg-type]
    if given.size not in (1, weights.shape[1]):
      raise RefusedError(f'a bias of shape {given.shape}, want {weights.shape[1]} numbers')
    added = added + given.reshape(-1) * np.float32(at.number('beta', 1.0))
  return _dense(at, x, weights, added)


def _matmul(at: _At, x: Input, kernel: Input) -> Value:
  x = _features(x)
  weights = finite(kernel, 'kernel', x.ours[0], None)
  return _dense(at, x, weights, np.zeros(weights.shape[1], np.float32))


def _relu(at: _At, x: Value) -> Value:
  return at.layer(x, records.Activation)


def _clip(at: _At, x: Input, low: Input = None, high: Input = None) -> Value:
  least, most = (
    at.number(name, math.nan) if name in at.node.attributes else _scalar(given)
    for name, given in (('min', low), ('max', high))
  )
  if not isinstance(x, Value) or least != 0:
    raise RefusedError(f'from {least} to {most}, want 0 as the least: ReLU or ReLU6')
  endless = most is None or most >= 3e38  # exporters write no bound as the largest float32
  return at.layer(x, records.Activation, limit=None if endless else float(most))


def _scalar(given: Input) -> float | None:
  if given is None:
    return None
  if not isinstance(given, np.ndarray) or given.size != 1:
    raise RefusedError('with a bound that is no constant, want numbers')
  return float(given.reshape(-1)[0])


def _leaky_relu(at: _At, x: Value) -> Value:
  return at.layer(x, records.Activation, slope=_decimal(at.number('alpha', 0.01)))


def _parametric_relu(at: _At, x: Input, slope: Input) -> Value:
  slopes = finite(slope, 'slope', *(None,) * np.ndim(slope))  # type: ignore[arg-type]
  if not isinstance(x, Value) or not slopes.size or (slopes != slopes.reshape(-1)[0]).any():
    raise RefusedError('with a slope for each channel, want one for all: PReLU(num_parameters=1)')
  return at.layer(x, records.Activation, slope=_decimal(float(slopes.reshape(-1)[0])))


def _pool(at: _At, x: Input, record: type, **options) -> Value:
  x = _map(x)
  if 'kernel_shape' not in at.node.attributes:
    raise RefusedError('without kernel_shape, want a window')
  window = _one('windows', at.integers('kernel_shape', (1, 1)))
  stride = _one('strides', at.integers('strides', (1, 1)))
  if at.integers('dilations', (1, 1)) != (1, 1):
    raise RefusedError('with dilations, want windows of neighbours')
  if stride < 1 or window < 1:
    raise RefusedError(f'window {window} and stride {stride}, want at least 1')
  padding = _padding(at, window, stride, x.shape[2:])
  if at.integer('ceil_mode', 0) and (at.node.attributes.get('auto_pad') or 'NOTSET') == 'NOTSET':
    whole = tuple(_ceiling(n, window, stride, each) for n, each in zip(x.shape[2:], padding))
    if whole != padding and options.get('count_padding'):
      raise RefusedError('with ceil_mode and count_include_pad, want one of them')
    padding = whole  # type: ignore[assignment]
  if window == stride == 1 and padding == records.NO_PADDING:
    return x
  if padding == records.NO_PADDING:
    options = {}
  return at.layer(
    x,
    record,
    window=window,
    stride=None if stride == window else stride,
    padding=padding,
    **options,
  )


def _ceiling(side: int, window: int, stride: int, padding: tuple[int, int]) -> tuple[int, int]:
  """Padding with which the last window, that ceil_mode adds, is a whole one."""
  before, behind = padding
  count = -(-(side + before + behind - window) // stride) + 1
  if (count - 1) * stride >= side + before:
    count -= 1  # it would see nothing but padding
  return before, max(behind, (count - 1) * stride + window - side - before)


def _max_pool(at: _At, x: Input) -> Value:
  if at.integer('storage_order', 0):
    raise RefusedError('with storage_order, want rows first')
  return _pool(at, x, records.MaxPool)


def _average_pool(at: _At, x: Input) -> Value:
  return _pool(at, x, records.AveragePool, count_padding=bool(at.integer('count_include_pad', 0)))


def _global_average(at: _At, x: Input) -> Value:
  return at.layer(_map(x), records.AveragePool, window=None)


def _global_maximum(at: _At, x: Input) -> Value:
  x = _map(x)
  return at.layer(x, records.MaxPool, window=_one('a map of', x.shape[2:]))


def _mean(at: _At, x: Input, axes: Input = None) -> Value:
  """The mean over the map, which exporters write for `x.mean((2, 3))`."""
  named = at.node.attributes.get('axes') if axes is None else axes
  if not isinstance(x, Value) or x.flat or not isinstance(named, tuple | np.ndarray):
    raise RefusedError('want the mean over the two axes of a map')
  places = np.ravel(named).tolist()
  rank = len(x.axes)
  if not all(-rank <= n < rank for n in places) or {x.axes[n] for n in places} != {'h', 'w'}:
    raise RefusedError(f'over the axes {tuple(places)} of {x.axes}, want those of the map')
  found = at.layer(x, records.AveragePool, window=None)
  return found if at.integer('keepdims', 1) else at.steps.flatten(at.place, found)


def _scaled(at: _At, x: Value, scale: float | np.ndarray, bias: float | np.ndarray) -> Value:
  """x scale + bias, which changes nothing or belongs to the linear layer before it."""
  channels = (x.ours[-1],)
  scale, bias = (np.broadcast_to(np.float32(each), channels) for each in (scale, bias))
  if (scale == 1).all() and (bias == 0).all():
    return x
  return at.steps.scaling(at.place, x, scale, bias)


def _numbers(x: Value, array: Input) -> np.ndarray:
  return per_channel(x, finite(array, 'numbers', *(None,) * np.ndim(array)))  # type: ignore[arg-type]


def _add(at: _At, *inputs: Input) -> Value:
  values = [each for each in inputs if isinstance(each, Value)]
  found = values[0]
  for value in values[1:]:
    found = at.steps.add(at.place, found, value)
  for each in inputs:
    if isinstance(each, np.ndarray):
      found = _scaled(at, found, 1.0, _numbers(found, each))
  return found


def _subtract(at: _At, x: Input, y: Input) -> Value:
  if isinstance(x, Value) and isinstance(y, np.ndarray):
    return _scaled(at, x, 1.0, -_numbers(x, y))
  if isinstance(x, np.ndarray) and isinstance(y, Value):
    return _scaled(at, y, -1.0, _numbers(y, x))
  raise RefusedError(
    'of two values, want a constant; a sum takes both signs in the weights before it'
  )


def _multiply(at: _At, x: Input, y: Input) -> Value:
  if isinstance(x, Value) and isinstance(y, Value):
    raise RefusedError(f'a product of two values; {_GATED}')
  value, factor = (x, y) if isinstance(x, Value) else (y, x)
  return _scaled(at, value, _numbers(value, factor), 0.0)  # type: ignore[arg-type]


def _divide(at: _At, x: Input, y: Input) -> Value:
  if not isinstance(x, Value) or not isinstance(y, np.ndarray):
    raise RefusedError('by a value, want a constant')
  divisor = _numbers(x, y)
  if not divisor.all():
    raise RefusedError('by 0, want another number')
  return _scaled(at, x, 1 / divisor, 0.0)


def _concat(at: _At, *inputs: Input) -> Value:
  values = [each for each in inputs if isinstance(each, Value)]
  if len(values) < len(inputs):
    raise RefusedError('with constants, want channels that the network computes')
  return values[0] if len(values) == 1 else at.steps.concat(at.place, values, at.integer('axis', 1))


def _pad(at: _At, x: Input, pads: Input = None, value: Input = None, axes: Input = None) -> Value:
  x = _map(x)
  amounts = at.node.attributes.get('pads') if pads is None else pads
  zero = at.number('value', 0.0) if value is None else _scalar(value)
  mode = at.node.attributes.get('mode') or 'constant'
  if mode != 'constant' or zero != 0 or axes is not None or np.size(amounts) != 8:
    raise RefusedError('want zeros around a map, before a convolution')
  before, behind = np.reshape(amounts, (2, 4)).tolist()  # type: ignore[arg-type]
  if any(before[:2] + behind[:2]) or not all(0 <= n < 1 << 14 for n in before + behind):
    raise RefusedError(f'of {before} and {behind}, want zeros around the map alone')
  (top, bottom), (left, right) = x.padding
  padding = (top + before[2], bottom + behind[2]), (left + before[3], right + behind[3])
  return dataclasses.replace(x, padding=padding)


def _flatten(at: _At, x: Value) -> Value:
  axis = at.integer('axis', 1)
  if axis not in (1, 1 - len(x.axes)):
    raise RefusedError(f'axis {axis}, want 1: one row for each image')
  return x if x.flat else at.steps.flatten(at.place, x)


def _reshape(at: _At, x: Input, target: Input) -> Value:
  if not isinstance(x, Value) or not isinstance(target, np.ndarray):
    raise RefusedError('to a shape that depends on the image, want a constant')
  return _reshaped(at, x, target, at.integer('allowzero', 0))


def _reshaped(at: _At, x: Value, target: np.ndarray, allow_zero: int = 0) -> Value:
  try:
    shape = constants.reshaped(x.shape, np.ravel(target).tolist(), allow_zero)
  except ValueError as error:
    raise RefusedError(str(error)) from None
  if shape == x.shape:
    return x
  if x.axes[0] == 'n' and shape == (x.shape[0], math.prod(x.shape[1:])):
    return at.steps.flatten(at.place, x)
  raise RefusedError(f'from {x.shape} to {shape}, want one row of features for each image')


def _squeeze(at: _At, x: Value, axes: Input = None) -> Value:
  named = at.node.attributes.get('axes') if axes is None else axes
  if not isinstance(named, tuple | np.ndarray):
    raise RefusedError('without axes, want those of a map of one place')
  dropped = {n % len(x.shape) for n in np.ravel(named).tolist()}
  return _reshaped(at, x, np.array([s for n, s in enumerate(x.shape) if n not in dropped]))


def _transpose(at: _At, x: Value) -> Value:
  rank = len(x.axes)
  perm = at.integers('perm', tuple(reversed(range(rank))))
  if sorted(perm) != list(range(rank)) or (x.flat and perm != (0, 1)):
    raise RefusedError(f'perm {perm} of {x.axes}, want the axes of a map in another order')
  if x.padding != records.NO_PADDING:
    raise RefusedError('after a Pad, want a Conv there')
  axes, shape = ''.join(x.axes[n] for n in perm), tuple(x.shape[n] for n in perm)
  return dataclasses.replace(x, axes=axes, shape=shape)


def _same(at: _At, x: Value) -> Value:
  return x


def _dropout(at: _At, x: Value, ratio: Input = None, training: Input = None) -> Value:
  if training is not None and _scalar(training):
    raise RefusedError(
      'in training mode, want the export of a network in evaluation (model.eval())'
    )
  return x


def _cast(at: _At, x: Value) -> Value:
  if at.integer('to', 1) not in FLOATS:
    raise RefusedError('to integers, want floats')
  return x


def _softmax(at: _At, x: Value) -> Value:
  if not at.last:
    raise RefusedError(f'not at the end of the network; {_GATED}')
  return x


# Operators that may have constants in front of the image's values.
_SYMMETRIC = ('Add', 'Concat', 'Div', 'Mul', 'Sub', 'Sum')
TAKEN: dict[str, Callable[..., Value]] = {
  'Add': _add,
  'AveragePool': _average_pool,
  'BatchNormalization': _batch_norm,
  'Cast': _cast,
  'Clip': _clip,
  'Concat': _concat,
  'Conv': _convolution,
  'Div': _divide,
  'Dropout': _dropout,
  'Flatten': _flatten,
  'Gemm': _gemm,
  'GlobalAveragePool': _global_average,
  'GlobalMaxPool': _global_maximum,
  'Identity': _same,
  'LeakyRelu': _leaky_relu,
  'LogSoftmax': _softmax,
  'MatMul': _matmul,
  'MaxPool': _max_pool,
  'Mul': _multiply,
  'PRelu': _parametric_relu,
  'Pad': _pad,
  'ReduceMean': _mean,
  'Relu': _relu,
  'Reshape': _reshape,
  'Softmax': _softmax,
  'Squeeze': _squeeze,
  'Sub': _subtract,
  'Sum': _add,
  'Transpose': _transpose,
}

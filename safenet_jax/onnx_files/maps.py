"""Activations and pools."""

import math

import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.onnx_files import node
from safenet_jax.onnx_files.file import short
from safenet_jax.onnx_files.node import At, Input, Taker
from safenet_jax.onnx_files.steps import finite, RefusedError, Value


def _relu(at: At, x: Value) -> Value:
  return at.layer(x, records.Activation)


def _clip(at: At, x: Input, low: Input = None, high: Input = None) -> Value:
  least, most = (
    at.number(name, math.nan) if name in at.node.attributes else node.scalar(given)
    for name, given in (('min', low), ('max', high))
  )
  if not isinstance(x, Value) or least != 0:
    raise RefusedError(f'from {least} to {most}, want 0 as the least: ReLU or ReLU6')
  # Exporters write no bound as the largest float32.
  limit = None if most is None or most >= 3e38 else float(most)
  return at.layer(x, records.Activation, limit=limit)


def _leaky_relu(at: At, x: Value) -> Value:
  return at.layer(x, records.Activation, slope=node.decimal(at.number('alpha', 0.01)))


def _parametric_relu(at: At, x: Input, slope: Input) -> Value:
  slopes = finite(slope, 'slope', *(None,) * np.ndim(slope))  # type: ignore[arg-type]
  if not isinstance(x, Value) or not slopes.size or (slopes != slopes.reshape(-1)[0]).any():
    raise RefusedError('with a slope for each channel, want one for all: PReLU(num_parameters=1)')
  return at.layer(x, records.Activation, slope=node.decimal(float(slopes.reshape(-1)[0])))


def _pool(at: At, x: Input, record: type, **options) -> Value:
  x = node.a_map(x)
  if 'kernel_shape' not in at.node.attributes:
    raise RefusedError('without kernel_shape, want a window')
  window = node.same_for_both('windows', at.integers('kernel_shape', (1, 1)))
  stride = node.same_for_both('strides', at.integers('strides', (1, 1)))
  if at.integers('dilations', (1, 1)) != (1, 1):
    raise RefusedError('with dilations, want windows of neighbours')
  if stride < 1 or window < 1:
    raise RefusedError(f'window {window} and stride {stride}, want at least 1')
  padding = node.padding(at, window, stride, x.shape[2:])
  if at.integer('ceil_mode', 0) and (at.node.attributes.get('auto_pad') or 'NOTSET') == 'NOTSET':
    whole = tuple(_ceiling(n, window, stride, each) for n, each in zip(x.shape[2:], padding))
    if whole != padding and options.get('count_padding'):
      raise RefusedError('with ceil_mode and count_include_pad, want one of them')
    padding = whole  # type: ignore[assignment]
  if window == stride == 1 and padding == records.NO_PADDING:
    return x
  if padding == records.NO_PADDING:
    options = {}
  # A record without a stride is for windows that cover the map.
  covering = stride == window and not any(side % window for side in x.shape[2:])
  return at.layer(
    x,
    record,
    window=window,
    stride=None if covering else stride,
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


def _max_pool(at: At, x: Input) -> Value:
  if at.integer('storage_order', 0):
    raise RefusedError('with storage_order, want rows first')
  return _pool(at, x, records.MaxPool)


def _average_pool(at: At, x: Input) -> Value:
  return _pool(at, x, records.AveragePool, count_padding=bool(at.integer('count_include_pad', 0)))


def _global_average(at: At, x: Input) -> Value:
  return at.layer(node.a_map(x), records.AveragePool, window=None)


def _global_maximum(at: At, x: Input) -> Value:
  x = node.a_map(x)
  return at.layer(x, records.MaxPool, window=node.same_for_both('a map of', x.shape[2:]))


def _mean(at: At, x: Input, axes: Input = None) -> Value:
  """The mean over the map, which exporters write for `x.mean((2, 3))`."""
  named = at.node.attributes.get('axes') if axes is None else axes
  if not isinstance(x, Value) or x.flat or not isinstance(named, tuple | np.ndarray):
    raise RefusedError('want the mean over the two axes of a map')
  places = np.ravel(named).tolist()
  rank = len(x.axes)
  if not all(-rank <= n < rank for n in places) or {x.axes[n] for n in places} != {'h', 'w'}:
    raise RefusedError(
      f'over the axes {short(str(tuple(places)))} of {x.axes}, want those of the map'
    )
  found = at.layer(x, records.AveragePool, window=None)
  return found if at.integer('keepdims', 1) else at.steps.flatten(at.place, found)


TAKEN: dict[str, Taker] = {
  'AveragePool': _average_pool,
  'Clip': _clip,
  'GlobalAveragePool': _global_average,
  'GlobalMaxPool': _global_maximum,
  'LeakyRelu': _leaky_relu,
  'MaxPool': _max_pool,
  'PRelu': _parametric_relu,
  'ReduceMean': _mean,
  'Relu': _relu,
}

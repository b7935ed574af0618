"""Operators that are linear in the image: convolutions, batch norms, dense layers, sums."""

import dataclasses

import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.onnx_files import node
from safenet_jax.onnx_files.node import At, GATED, Input, Taker
from safenet_jax.onnx_files.steps import finite, ours, RefusedError, Value


def _convolution(at: At, x: Input, kernel: Input, bias: Input = None) -> Value:
  x = node.a_map(x)
  weights = finite(kernel, 'kernel', None, None, None, None)
  side = node.same_for_both('a kernel of', weights.shape[2:])
  stride = node.same_for_both('strides', at.integers('strides', (1, 1)))
  dilation = node.same_for_both('dilations', at.integers('dilations', (1, 1)))
  groups, inputs = at.integer('group', 1), x.ours[-1]
  if groups < 1 or inputs % groups or weights.shape[1] != inputs // groups:
    raise RefusedError(
      f'a kernel of shape {weights.shape} for {inputs} channels in {groups} groups, '
      'want channels in each group'
    )
  if stride < 1 or dilation < 1:
    raise RefusedError(f'stride {stride} and dilation {dilation}, want at least 1')
  span = (side - 1) * dilation + 1
  (top, bottom), (left, right) = node.padding(at, span, stride, x.shape[2:])
  (more_top, more_bottom), (more_left, more_right) = x.padding
  padding = (top + more_top, bottom + more_bottom), (left + more_left, right + more_right)
  usual = (((span - 1) // 2, span // 2),) * 2
  layer = node.made(
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


def _batch_norm(at: At, x: Input, scale: Input, bias: Input, mean: Input, variance: Input) -> Value:
  if not isinstance(x, Value):
    raise RefusedError('of weights alone, want a map')
  if not x.flat:
    node.a_map(x)
  if at.integer('training_mode', 0):
    raise RefusedError(
      'in training mode, want the export of a network in evaluation (model.eval())'
    )
  channels = x.ours[-1]
  given = {'scale': scale, 'bias': bias, 'mean': mean, 'var': variance}
  arrays = {name: ours(x, finite(each, name, channels)) for name, each in given.items()}
  layer = node.made(records.BatchNorm, epsilon=node.decimal(at.number('epsilon', 1e-5)))
  return at.steps.layer(at.place, x, layer, **arrays)


def _features(x: Input) -> Value:
  if not isinstance(x, Value) or not x.flat:
    raise RefusedError('want features of the image on the left, and weights on the right')
  return x


def _dense(at: At, x: Value, kernel: np.ndarray, bias: np.ndarray) -> Value:
  layer = node.made(records.Dense, features=kernel.shape[1])
  return at.steps.layer(at.place, x, layer, kernel=ours(x, kernel), bias=bias)


def _gemm(at: At, x: Input, kernel: Input, bias: Input = None) -> Value:
  x = _features(x)
  if at.integer('transA', 0):
    raise RefusedError('of images along the second axis, want transA 0')
  weights, factor = finite(kernel, 'kernel', None, None), at.number('alpha', 1.0)
  weights = weights if factor == 1 else weights * np.float32(factor)
  weights = weights.T if at.integer('transB', 0) else weights
  if len(weights) != x.ours[0]:
    raise RefusedError(f'a kernel for {len(weights)} features, got {x.ours[0]}')
  added: np.ndarray = np.zeros(weights.shape[1], np.float32)
  if bias is not None:
    given = finite(bias, 'bias', *(None,) * np.ndim(bias))  # type: ignore[arg-type]
    if given.size not in (1, weights.shape[1]):
      raise RefusedError(f'a bias of shape {given.shape}, want {weights.shape[1]} numbers')
    added += given.reshape(-1) * np.float32(at.number('beta', 1.0))
  return _dense(at, x, weights, added)


def _matmul(at: At, x: Input, kernel: Input) -> Value:
  x = _features(x)
  weights = finite(kernel, 'kernel', x.ours[0], None)
  return _dense(at, x, weights, np.zeros(weights.shape[1], np.float32))


def _scaled(at: At, x: Value, scale: float | np.ndarray, bias: float | np.ndarray) -> Value:
  """x scale + bias, which changes nothing or belongs to the linear layer before it."""
  channels = (x.ours[-1],)
  scale, bias = (np.broadcast_to(np.float32(each), channels) for each in (scale, bias))
  if (scale == 1).all() and (bias == 0).all():
    return x
  return at.steps.scaling(at.place, x, scale, bias)


def _add(at: At, *inputs: Input) -> Value:
  values = [each for each in inputs if isinstance(each, Value)]
  found = values[0]
  for value in values[1:]:
    found = at.steps.add(at.place, found, value)
  for each in inputs:
    if isinstance(each, np.ndarray):
      found = _scaled(at, found, 1.0, node.numbers(found, each))
  return found


def _subtract(at: At, x: Input, y: Input) -> Value:
  if isinstance(x, Value) and isinstance(y, np.ndarray):
    return _scaled(at, x, 1.0, -node.numbers(x, y))
  if isinstance(x, np.ndarray) and isinstance(y, Value):
    return _scaled(at, y, -1.0, node.numbers(y, x))
  raise RefusedError(
    'of two values, want a constant; a sum takes both signs in the weights before it'
  )


def _multiply(at: At, x: Input, y: Input) -> Value:
  if isinstance(x, Value) and isinstance(y, Value):
    raise RefusedError(f'a product of two values; {GATED}')
  value, factor = (x, y) if isinstance(x, Value) else (y, x)
  return _scaled(at, value, node.numbers(value, factor), 0.0)  # type: ignore[arg-type]


def _divide(at: At, x: Input, y: Input) -> Value:
  if not isinstance(x, Value) or not isinstance(y, np.ndarray):
    raise RefusedError('by a value, want a constant')
  divisor = node.numbers(x, y)
  if not divisor.all():
    raise RefusedError('by 0, want another number')
  return _scaled(at, x, 1 / divisor, 0.0)


def _pad(at: At, x: Input, pads: Input = None, value: Input = None, axes: Input = None) -> Value:
  x = node.a_map(x)
  amounts = np.ravel(at.node.attributes.get('pads') if pads is None else pads)  # type: ignore
  zero = at.number('value', 0.0) if value is None else node.scalar(value)
  mode = at.node.attributes.get('mode') or 'constant'
  if mode != 'constant' or zero != 0 or axes is not None or amounts.shape != (8,):
    raise RefusedError('want zeros around a map, before a convolution')
  before, behind = amounts.reshape(2, 4).tolist()
  if any(before[:2] + behind[:2]) or not all(n in range(1 << 14) for n in before + behind):
    raise RefusedError(f'of {before} and {behind}, want zeros around the map alone')
  (top, bottom), (left, right) = x.padding
  padding = (top + before[2], bottom + behind[2]), (left + before[3], right + behind[3])
  return dataclasses.replace(x, padding=padding)


TAKEN: dict[str, Taker] = {
  'Add': _add,
  'BatchNormalization': _batch_norm,
  'Conv': _convolution,
  'Div': _divide,
  'Gemm': _gemm,
  'MatMul': _matmul,
  'Mul': _multiply,
  'Pad': _pad,
  'Sub': _subtract,
  'Sum': _add,
}

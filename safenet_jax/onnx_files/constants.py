"""What can be computed of a graph without an image: shapes, and weights that are rearranged."""

from collections.abc import Sequence
import math

import numpy as np

from safenet_jax.onnx_files.file import Node, short

# Numbers that may be made in all, besides as many again as the file has.
_MOST = 1 << 24
_BINARY = {
  'Add': np.add,
  'Sub': np.subtract,
  'Mul': np.multiply,
  'Equal': np.equal,
  'Max': np.maximum,
  'Min': np.minimum,
}
_DTYPES = {
  1: np.float32,
  6: np.int32,
  7: np.int64,
  9: np.bool_,
  10: np.float16,
  11: np.float64,
}
OPERATORS = (
  *_BINARY,
  'Cast',
  'Concat',
  'Constant',
  'ConstantOfShape',
  'Div',
  'Expand',
  'Gather',
  'Identity',
  'Neg',
  'ReduceProd',
  'Reshape',
  'Shape',
  'Slice',
  'Sqrt',
  'Squeeze',
  'Transpose',
  'Unsqueeze',
  'Where',
)


class Folding:
  """Computes nodes whose inputs are known; what they make together is bounded."""

  def __init__(self, given: int):
    """Of a file that has so many numbers."""
    self._left = _MOST + 8 * given

  def fold(self, node: Node, inputs: Sequence[np.ndarray | None]) -> np.ndarray:
    """The node's output; None stands for an input that is left out.

    Raises:
      ValueError: another operator than those of OPERATORS, or inputs that do not fit it.
    """
    if node.operator not in OPERATORS:
      raise ValueError('of constants, which is not computed here: fold it before the export')
    try:
      with np.errstate(divide='raise', invalid='raise', over='raise'):
        return self._compute(node, *inputs)
    # Of inputs that do not fit, numpy raises whatever it comes across.
    except Exception:
      raise ValueError('of constants that do not fit it') from None

  def _room(self, shape: Sequence[int]) -> None:
    self._left -= math.prod(int(size) for size in shape)
    if self._left < 0:
      raise ValueError

  def _compute(self, node: Node, *inputs) -> np.ndarray:
    operator, attributes = node.operator, node.attributes
    if operator == 'Constant':
      (value,) = (attributes[name] for name in attributes if name.startswith('value'))
      wide = np.asarray(value)
      return wide.astype(np.float32) if wide.dtype == np.float64 else wide
    if operator == 'ConstantOfShape':
      self._room(inputs[0])
      return np.full(inputs[0].tolist(), np.ravel(attributes.get('value', np.zeros(1, 'f4')))[0])
    x = inputs[0]
    if operator in (*_BINARY, 'Div', 'Where'):
      self._room(np.broadcast_shapes(*(each.shape for each in inputs)))
      if operator == 'Where':
        return np.where(*inputs)
      if operator == 'Div':
        return x // inputs[1] if x.dtype.kind in 'iu' else x / inputs[1]
      left, right = inputs
      return _BINARY[operator](left, right)
    match operator:
      case 'Gather':
        axis = attributes.get('axis', 0)
        self._room((x.size // max(x.shape[axis], 1), inputs[1].size))
        return np.take(x, inputs[1], axis)
      case 'Concat':
        self._room((sum(each.size for each in inputs),))
        return np.concatenate(inputs, attributes['axis'])
      case 'Expand':
        shape = np.broadcast_shapes(x.shape, tuple(inputs[1].tolist()))
        self._room(shape)
        return np.broadcast_to(x, shape)
    self._room(x.shape)
    return _rearranged(operator, attributes, x, inputs[1:])


def _rearranged(operator: str, attributes, x: np.ndarray, more) -> np.ndarray:
  """The operators that make no more numbers than they are given."""
  match operator:
    case 'Identity':
      return x
    case 'Cast':
      return x.astype(_DTYPES[attributes['to']])
    case 'Neg':
      return -x
    case 'Sqrt':
      return np.sqrt(x)
    case 'Shape':
      return np.array(x.shape[attributes.get('start', 0) : attributes.get('end')], np.int64)
    case 'Transpose':
      return np.transpose(x, attributes.get('perm'))
    case 'Reshape':
      return x.reshape(reshaped(x.shape, more[0].tolist(), attributes.get('allowzero', 0)))
    case 'ReduceProd':
      keep = bool(attributes.get('keepdims', 1))
      return np.prod(x, _axes(attributes, more), keepdims=keep, dtype=x.dtype)
    case 'Squeeze':
      return np.squeeze(x, _axes(attributes, more))
    case 'Unsqueeze':
      axes = _axes(attributes, more)
      if axes is None or len(axes) > 8:
        raise ValueError
      return np.expand_dims(x, axes)
    case 'Slice':
      return _slice(x, attributes, more)
  raise ValueError


def _axes(attributes, more) -> tuple[int, ...] | None:
  """The axes that a node names, in an attribute or, since opset 13, in its second input."""
  if more and more[0] is not None:
    return tuple(np.ravel(more[0]).tolist())
  return attributes.get('axes')


def _slice(x: np.ndarray, attributes, more) -> np.ndarray:
  if more:
    starts, ends, axes, steps = (*(each for each in more), None, None)[:4]
  else:
    starts, ends, axes, steps = (attributes.get(n) for n in ('starts', 'ends', 'axes', 'steps'))
  starts, ends = np.ravel(starts).tolist(), np.ravel(ends).tolist()
  axes = range(len(starts)) if axes is None else np.ravel(axes).tolist()
  steps = [1] * len(starts) if steps is None else np.ravel(steps).tolist()
  cut = [slice(None)] * x.ndim
  for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
    # An end before the first place, as a backward slice has it, is none in Python.
    cut[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
  return x[tuple(cut)]


def reshaped(shape: Sequence[int], target: Sequence[int], allow_zero: int) -> tuple[int, ...]:
  """The shape that ONNX's Reshape means; ValueError if it is of another number of values."""
  wanted = [
    shape[n] if size == 0 and not allow_zero and n < len(shape) else size
    for n, size in enumerate(target)
  ]
  rest = math.prod(size for size in wanted if size != -1)
  if wanted.count(-1) == 1 and rest > 0:
    wanted[wanted.index(-1)] = math.prod(shape) // rest
  if min(wanted, default=0) < 0 or math.prod(wanted) != math.prod(shape):
    raise ValueError(f'a shape of {short(str(target))} for {tuple(shape)}, want as many values')
  return tuple(wanted)

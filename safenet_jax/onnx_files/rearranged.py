"""Operators that compute nothing: they rearrange values, or let them through."""

import dataclasses
import math

import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.onnx_files import constants, node
from safenet_jax.onnx_files.file import FLOATS
from safenet_jax.onnx_files.node import At, GATED, Input, Taker
from safenet_jax.onnx_files.steps import RefusedError, Value


def _concat(at: At, *inputs: Input) -> Value:
  values = [each for each in inputs if isinstance(each, Value)]
  if len(values) < len(inputs):
    raise RefusedError('with constants, want channels that the network computes')
  return values[0] if len(values) == 1 else at.steps.concat(at.place, values, at.integer('axis', 1))


def _flatten(at: At, x: Value) -> Value:
  axis = at.integer('axis', 1)
  if axis not in (1, 1 - len(x.axes)):
    raise RefusedError(f'axis {axis}, want 1: one row for each image')
  return x if x.flat else at.steps.flatten(at.place, x)


def _reshape(at: At, x: Input, target: Input) -> Value:
  if not isinstance(x, Value) or not isinstance(target, np.ndarray):
    raise RefusedError('to a shape that depends on the image, want a constant')
  return _reshaped(at, x, target, at.integer('allowzero', 0))


def _reshaped(at: At, x: Value, target: np.ndarray, allow_zero: int = 0) -> Value:
  try:
    shape = constants.reshaped(x.shape, np.ravel(target).tolist(), allow_zero)
  except ValueError as error:
    raise RefusedError(str(error)) from None
  if shape == x.shape:
    return x
  if x.axes[0] == 'n' and shape == (x.shape[0], math.prod(x.shape[1:])):
    return at.steps.flatten(at.place, x)
  raise RefusedError(f'from {x.shape} to {shape}, want one row of features for each image')


def _squeeze(at: At, x: Value, axes: Input = None) -> Value:
  named = at.node.attributes.get('axes') if axes is None else axes
  if not isinstance(named, tuple | np.ndarray):
    raise RefusedError('without axes, want those of a map of one place')
  dropped = {n % len(x.shape) for n in np.ravel(named).tolist()}
  return _reshaped(at, x, np.array([s for n, s in enumerate(x.shape) if n not in dropped]))


def _transpose(at: At, x: Value) -> Value:
  rank = len(x.axes)
  perm = at.integers('perm', tuple(reversed(range(rank))))
  if sorted(perm) != list(range(rank)) or (x.flat and perm != (0, 1)):
    raise RefusedError(f'perm {perm} of {x.axes}, want the axes of a map in another order')
  if x.padding != records.NO_PADDING:
    raise RefusedError('after a Pad, want a Conv there')
  axes, shape = ''.join(x.axes[n] for n in perm), tuple(x.shape[n] for n in perm)
  return dataclasses.replace(x, axes=axes, shape=shape)


def _same(at: At, x: Value) -> Value:
  return x


def _dropout(at: At, x: Value, ratio: Input = None, training: Input = None) -> Value:
  if training is not None and node.scalar(training):
    raise RefusedError(
      'in training mode, want the export of a network in evaluation (model.eval())'
    )
  return x


def _cast(at: At, x: Value) -> Value:
  if at.integer('to', 1) not in FLOATS:
    raise RefusedError('to integers, want floats')
  return x


def _softmax(at: At, x: Value) -> Value:
  if not at.last:
    raise RefusedError(f'not at the end of the network; {GATED}')
  if not x.flat or at.integer('axis', 1) not in (1, -1):
    raise RefusedError('over something else than classes, want them along axis 1')
  return x


TAKEN: dict[str, Taker] = {
  'Cast': _cast,
  'Concat': _concat,
  'Dropout': _dropout,
  'Flatten': _flatten,
  'Identity': _same,
  'LogSoftmax': _softmax,
  'Reshape': _reshape,
  'Softmax': _softmax,
  'Squeeze': _squeeze,
  'Transpose': _transpose,
}

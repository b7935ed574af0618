"""What an operator of the file becomes: a step, which is a record with its arrays."""

import dataclasses
import math
from typing import Any

import numpy as np

from safenet_jax.models import layers as records


class RefusedError(ValueError):
  """Why a node is not taken, and what could be done instead."""


@dataclasses.dataclass
class Step:
  """A record on its way into the network.

  kind: 'input', 'layer', 'scaling' (of channels, which a linear layer takes in), 'add' or 'concat'.
  inputs: numbers of the steps whose values it reads.
  node: the place of its operator in the file; -1 for the input.
  layer: the record of a layer.
  arrays: its weights, by the ends of their names in `models.weights`; scale and bias of a scaling.
  """

  kind: str
  inputs: tuple[int, ...]
  node: int
  layer: records.Layer | None = None
  arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Value:
  """A tensor of the file that depends on the image.

  step: the number of the step that makes it.
  axes: what its axes are, as in 'nchw' or 'nf' (features).
  shape: sizes along them, the batch among them.
  order: of features, the place of each in our order of them, which is (h, w, c) at a flatten.
  padding: zeros around the map that the next convolution has to add.
  """

  step: int
  axes: str
  shape: tuple[int, ...]
  order: np.ndarray | None = None
  padding: records.Padding = records.NO_PADDING

  @property
  def ours(self) -> tuple[int, ...]:
    """The shape of one image's value in our order of axes."""
    sizes = dict(zip(self.axes, self.shape))
    return (sizes['f'],) if 'f' in sizes else tuple(sizes[axis] for axis in 'hwc')

  @property
  def flat(self) -> bool:
    """Whether it has features rather than a map."""
    return self.axes == 'nf'


def input_value(shape: tuple[int, ...], axes: str) -> Value:
  """The images, as the file wants them."""
  return Value(0, axes, shape)


class Steps:
  """The steps that were made so far, and the values between them."""

  def __init__(self, image: Value):
    self.made = [Step('input', (), -1)]
    self.image = image

  def layer(self, node: int, x: Value, layer: records.Layer, **arrays: np.ndarray) -> Value:
    """What a layer makes of a value; `RefusedError` where it does not take it."""
    if x.padding != records.NO_PADDING:
      raise RefusedError('after a Pad, want a Conv there')
    try:
      (*_, found) = records.shapes((layer,), x.ours)
    except ValueError as error:
      raise RefusedError(str(error)) from None
    self.made.append(Step('layer', (x.step,), node, layer, arrays))
    sizes = dict(zip('hwc' if len(found.output_shape) == 3 else 'f', found.output_shape))
    sizes['n'] = x.shape[x.axes.index('n')]
    axes = 'nf' if 'f' in sizes else x.axes
    shape = tuple(sizes[axis] for axis in axes)
    order = x.order if x.flat and not isinstance(layer, records.Dense) else None
    return Value(len(self.made) - 1, axes, shape, order)

  def scaling(self, node: int, x: Value, scale: np.ndarray, bias: np.ndarray) -> Value:
    """x scale + bias, with one number for each channel in our order."""
    self._unpadded(x)
    self.made.append(Step('scaling', (x.step,), node, None, {'scale': scale, 'bias': bias}))
    return dataclasses.replace(x, step=len(self.made) - 1)

  def flatten(self, node: int, x: Value) -> Value:
    """A map as features; `RefusedError` if it is not one row for each image."""
    if x.axes[0] != 'n':
      raise RefusedError('flattens the batch too, want one row for each image')
    found = self.layer(node, x, records.Flatten())
    places = np.arange(math.prod(x.ours)).reshape(x.ours)
    order = places.transpose(['hwc'.index(axis) for axis in x.axes[1:]]).reshape(-1)
    return dataclasses.replace(found, order=None if (np.diff(order) == 1).all() else order)

  def add(self, node: int, x: Value, y: Value) -> Value:
    """The sum of two values; `RefusedError` if they are not of one shape."""
    if (x.axes, x.shape) != (y.axes, y.shape) or not _same_order(x, y):
      raise RefusedError(f'adds values of shapes {x.shape} and {y.shape}, want one shape')
    self._unpadded(x, y)
    self.made.append(Step('add', (x.step, y.step), node))
    return dataclasses.replace(x, step=len(self.made) - 1)

  def concat(self, node: int, values: list[Value], axis: int) -> Value:
    """The channels, or features, of all values side by side; `RefusedError` along other axes."""
    first = values[0]
    if not -len(first.axes) <= axis < len(first.axes) or first.axes[axis] not in 'cf':
      raise RefusedError(f'along axis {axis} of {first.axes}, want the channels')
    axis %= len(first.axes)
    others = {(v.axes, v.shape[:axis], v.shape[axis + 1 :]) for v in values}
    if len(others) > 1:
      raise RefusedError(
        f'of shapes {", ".join(str(v.shape) for v in values)}, want maps of one size'
      )
    self._unpadded(*values)
    self.made.append(Step('concat', tuple(v.step for v in values), node))
    sizes = [v.shape[axis] for v in values]
    order = None
    if any(v.order is not None for v in values):
      starts = np.cumsum([0, *sizes[:-1]])
      each = (np.arange(size) if v.order is None else v.order for v, size in zip(values, sizes))
      order = np.concatenate([start + places for start, places in zip(starts, each)])
    shape = (*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :])
    return Value(len(self.made) - 1, first.axes, shape, order)

  def _unpadded(self, *values: Value) -> None:
    if any(value.padding != records.NO_PADDING for value in values):
      raise RefusedError('after a Pad, want a Conv there')


def _same_order(x: Value, y: Value) -> bool:
  if x.order is None or y.order is None:
    return x.order is y.order
  return np.array_equal(x.order, y.order)


def per_channel(x: Value, array: np.ndarray) -> np.ndarray:
  """Numbers that are broadcast against a value, as one for each channel in our order.

  Raises:
    RefusedError: they differ within a channel.
  """
  axis = x.axes.index('f' if x.flat else 'c')
  wanted = [1] * len(x.axes)
  wanted[axis] = x.shape[axis]
  shape = (1,) * (len(x.axes) - array.ndim) + array.shape
  if len(shape) != len(x.axes) or any(a not in (1, b) for a, b in zip(shape, wanted)):
    raise RefusedError(f'by numbers of shape {array.shape}, want one for each channel')
  return ours(x, np.broadcast_to(array.reshape(-1), (x.shape[axis],)))


def ours(x: Value, array: np.ndarray) -> np.ndarray:
  """One number for each channel or feature, from the file's order into ours."""
  if x.order is None:
    return array
  # Along the last axis of the transpose, which is how a Gemm's kernel lies in memory.
  return np.take(array.T, np.argsort(x.order), axis=-1).T


def finite(array: Any, name: str, *shape: int | None) -> np.ndarray:
  """Weights as float32.

  Raises:
    RefusedError: they are not known, of another shape (None is any size), or not finite.
  """
  if not isinstance(array, np.ndarray):
    raise RefusedError(f'its {name} depends on the image, want constants')
  fits = len(array.shape) == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape))
  if not fits or array.dtype.kind not in 'fVi':
    wanted = ' x '.join('any' if size is None else str(size) for size in shape)
    raise RefusedError(
      f'its {name} is {array.dtype} of shape {array.shape}, want floats of {wanted}'
    )
  with np.errstate(over='ignore'):
    found = array.astype(np.float32, copy=False)
  if wrong := int((~np.isfinite(found)).sum()):
    raise RefusedError(f'{wrong} of the {found.size} numbers of its {name} are NaN or infinite')
  return found

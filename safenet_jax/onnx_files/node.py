"""A node of the file while it is taken: what it reads, its attributes, where its steps go."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.onnx_files.file import Node, short
from safenet_jax.onnx_files.steps import finite, per_channel, RefusedError, Steps, Value

# What a node reads: a value, an array, or None for an input that is left out.
Input = Value | np.ndarray | None
# A function of an `At` and of what its node reads, which makes a value or raises `RefusedError`.
Taker = Callable[..., Value]
GATED = 'use a network without attention or squeeze-and-excitation'


@dataclasses.dataclass
class At:
  """A node, and where what it becomes is put.

  node: of the file.
  place: its number there.
  steps: get those that it becomes.
  last: whether its output is the network's.
  """

  node: Node
  place: int
  steps: Steps
  last: bool

  def integer(self, name: str, default: int) -> int:
    """An attribute that is one number."""
    return self._typed(name, int, default)

  def number(self, name: str, default: float) -> float:
    """An attribute that is one float; `RefusedError` for another."""
    value = self._typed(name, float, default)
    if not math.isfinite(value):
      raise RefusedError(f'{name} {value}, want a finite number')
    return value

  def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute of as many numbers as the default has; `RefusedError` for another."""
    found = self._typed(name, tuple, default)
    if len(found) != len(default) or not all(isinstance(n, int) for n in found):
      raise RefusedError(
        f'{name} {short(str(found))}, want {len(default)} integers: maps of two axes'
      )
    return found

  def _typed(self, name: str, kind: type, default: Any) -> Any:
    value = self.node.attributes.get(name)
    if value is None:
      return default
    if not isinstance(value, kind):
      raise RefusedError(f'{name} {short(repr(value))}, want {kind.__name__}')
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


def a_map(x: Input, *, axes: str = 'nchw') -> Value:
  """The value, if it is a map of these axes, else `RefusedError`."""
  if not isinstance(x, Value):
    raise RefusedError('of weights alone, want a map')
  if x.axes != axes:
    raise RefusedError(f'of a value with axes {x.axes}, want {axes}')
  return x


def same_for_both(name: str, both: tuple[int, ...]) -> int:
  """The number that holds for both axes; `RefusedError` for two."""
  if len(set(both)) != 1:
    raise RefusedError(f'{name} {both}, want the same along both axes')
  return both[0]


def scalar(given: Input) -> float | None:
  """The number that an input is, None if it is left out; `RefusedError` for more."""
  if given is None:
    return None
  if not isinstance(given, np.ndarray) or given.size != 1:
    raise RefusedError('with a bound that is no constant, want numbers')
  return float(given.reshape(-1)[0])


def decimal(value: float) -> float:
  """The number that someone wrote, of the float32 that a file has: 1e-5 of 9.99999975e-06."""
  return float(f'{value:.7g}')


def numbers(x: Value, array: Input) -> np.ndarray:
  """An input that is one number for each channel of a value, in our order."""
  return per_channel(x, finite(array, 'numbers', *(None,) * np.ndim(array)))  # type: ignore[arg-type]


def padding(at: At, span: int, stride: int, sides: tuple[int, ...]) -> records.Padding:
  """The zeros that a convolution or pool adds around a map of these sides.

  RefusedError: for what no version of ONNX has.
  """
  kind = at.node.attributes.get('auto_pad') or 'NOTSET'
  if kind in ('SAME_UPPER', 'SAME_LOWER'):
    found = []
    for side in sides:
      total = max((-(-side // stride) - 1) * stride + span - side, 0)
      less, more = total // 2, total - total // 2
      found.append((less, more) if kind == 'SAME_UPPER' else (more, less))
    return tuple(found)  # type: ignore[return-value]
  if kind not in ('NOTSET', 'VALID'):
    raise RefusedError(
      f'auto_pad {short(repr(kind))}, want NOTSET, VALID, SAME_UPPER or SAME_LOWER'
    )
  top, left, bottom, right = (0, 0, 0, 0) if kind == 'VALID' else at.integers('pads', (0, 0, 0, 0))
  return (top, bottom), (left, right)

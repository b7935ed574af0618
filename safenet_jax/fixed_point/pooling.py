"""Pools over integers, floats and shares: sums that stand for means, and maxima.

A mean is a sum times a constant. Each party sums its own share; the constant is left to whoever
reads the sums. So no pool takes a message, or loses precision.
"""

import functools
import math
from types import ModuleType

import numpy as np

from safenet_jax.crypto.ring import Array
from safenet_jax.models import layers as records
from safenet_jax.models import windows
from safenet_jax.models.windows import Windows

# The least common multiple of the windows' values, where padding does not count. Sums grow by it.
_MOST = 1 << 10


def divisor(pool: records.AveragePool, found: Windows) -> int:
  """By what a sum of `sums` is divided to be a mean.

  These are the values of a window. Where padding does not count, windows at the border have
  fewer, and it is the least common multiple of all their numbers.

  ValueError where that is over 1024.
  """
  if pool.count_padding:
    return found.values
  # So many different numbers have none, and are enough to say so.
  inside = [np.unique(axis.inside)[: _MOST + 1] for axis in found]
  common = math.prod(math.lcm(*each.tolist()) for each in inside)
  if common > _MOST:
    counts = ', '.join(map(str, np.unique(np.outer(*(each[:4] for each in inside)))))
    raise ValueError(
      f'{pool}: means of {counts} values have no common multiple up to {_MOST}: want a pool that '
      'counts its padding'
    )
  return common


def sums(xp: ModuleType, x: Array, pool: records.AveragePool) -> Array:
  """The means of [B, H, W, C] times `divisor`: [B, H', W', C], wrapping in the array's dtype."""
  found = windows.of(pool, *x.shape[1:3])
  if found.plain:
    b, _, _, c = x.shape
    h, w = found.shape
    parts = x.reshape(b, h, found.rows.size, w, found.columns.size, c)
    return parts.sum((2, 4), dtype=x.dtype)
  padding = ((0, 0), *((axis.before, axis.behind) for axis in found), (0, 0))
  total = xp.pad(x, padding)
  for number, axis in enumerate(found, 1):
    span = (axis.count - 1) * axis.stride + 1
    parts = [_part(total, number, slice(i, i + span, axis.stride)) for i in range(axis.size)]
    total = sum(parts[1:], start=parts[0])
  if pool.count_padding:
    return total
  weights = divisor(pool, found) // found.counts
  return total * weights[..., None].astype(x.dtype)


def maxima(x: np.ndarray, pool: records.MaxPool) -> np.ndarray:
  """The largest values of the windows of [B, H, W, C]: [B, H', W', C]."""
  for axis, places in enumerate(places_of(windows.of(pool, *x.shape[1:3])), 1):
    taps = (np.take(x, tap, axis) for tap in places.T)
    x = functools.reduce(np.maximum, taps)
  return x


def places_of(found: Windows) -> tuple[np.ndarray, np.ndarray]:
  """Rows [H', n] and columns [W', n] of the windows' values; all are on the map.

  What is in the padding is the nearest value on the map, which its window has too. So the
  padding is never more than the window's maximum.
  """
  rows, columns = (np.clip(axis.places, 0, axis.length - 1) for axis in found)
  return rows, columns


def _part(x: Array, axis: int, rows: slice) -> Array:
  return x[:, rows] if axis == 1 else x[:, :, rows]

"""Checks of the records' fields, for `layers`."""

import numbers
from typing import Any

# Far above any network's number of channels, kernel, stride or window.
_MOST = 1 << 20


def check_whole(record: Any, *names: str) -> None:
  """ValueError unless each of these fields is an integer of at least 1."""
  for name in names:
    value = getattr(record, name)
    if not _is_whole(value) or not 1 <= value <= _MOST:
      raise ValueError(
        f'{type(record).__name__} with {name} {value!r}, want an integer in 1..{_MOST}'
      )


def _is_whole(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_padding(record: Any) -> None:
  """Makes tuples of the field `padding`; ValueError unless it is two pairs of natural numbers."""
  sides: tuple = ()
  try:
    (top, bottom), (left, right) = record.padding
    sides = top, bottom, left, right
  except (TypeError, ValueError):
    pass
  if not sides or not all(_is_whole(n) and 0 <= n <= _MOST for n in sides):
    raise ValueError(
      f'{type(record).__name__} with padding {record.padding!r}, '
      f'want ((top, bottom), (left, right)) of integers in 0..{_MOST}'
    )
  # Networks are hashed; a list would not be.
  object.__setattr__(record, 'padding', (sides[:2], sides[2:]))


def check_pool(record: Any) -> None:
  """ValueError unless the fields of a pool make windows, each with a value of the map."""
  kind, size = type(record).__name__, record.window
  check_whole(record, *(name for name in ('window', 'stride') if getattr(record, name) is not None))
  check_padding(record)
  amounts = [n for axis in record.padding for n in axis]
  if size is None and (record.stride is not None or any(amounts)):
    raise ValueError(f'{kind} over the whole map with a stride or padding, want neither')
  if size is not None and not all(n < size for n in amounts):
    raise ValueError(f'{kind} with padding {record.padding}, want less than the window of {size}')


def check_activation(record: Any) -> None:
  """Makes floats of an activation's fields; ValueError for numbers that it cannot have."""
  limit, slope = record.limit, record.slope
  if limit is not None and (not _is_real(limit) or not 0 < limit <= _MOST):
    raise ValueError(f'Activation with limit {limit!r}, want a positive number or None')
  if not _is_real(slope) or not -1 <= slope <= 1:
    raise ValueError(f'Activation with slope {slope!r}, want a number in -1..1')
  object.__setattr__(record, 'limit', None if limit is None else float(limit))
  object.__setattr__(record, 'slope', float(slope))


def _is_real(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_epsilon(record: Any) -> None:
  """ValueError unless the field `epsilon` is a small positive number."""
  value = record.epsilon
  if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
    raise ValueError(
      f'{type(record).__name__} with epsilon {value!r}, want a number between 0 and 1'
    )

"""Frozen records to bytes and back: a whitelist of classes, every field checked.

A record is [class name, {field: value}] in msgpack. Whoever reads it gets the classes and
types that the fields' annotations say; anything else is refused.
"""

from collections.abc import Iterable
import dataclasses
import functools
import math
import numbers
import types
import typing
from typing import Any

import msgpack

from safenet_jax.transport import frames
from safenet_jax.transport.frames import ProtocolError

# The most records inside each other. Of all, only `Residual` holds records of its own kind.
_MAX_DEPTH = 16
_MAX_TEXT = 1000
_MAX_INTEGER = 1 << 62


def encode(record: Any, allowed: Iterable[type]) -> bytes:
  """A record as bytes.

  Args:
    record: a dataclass of numbers, text, bytes, tuples, frozensets, dicts and records.
    allowed: every class of records that may occur in it, its own included.

  Raises:
    ValueError: a value of any other type.
  """
  return msgpack.packb(_pack(record, frozenset(allowed)))


def decode(raw: bytes, wanted: type, allowed: Iterable[type]) -> Any:
  """The record of class `wanted` that a peer sent, or ProtocolError.

  Args:
    raw: what the peer sent.
    wanted: a dataclass.
    allowed: every class of records that may be made, `wanted` included.
  """
  try:
    value = msgpack.unpackb(raw, use_list=True)
  except (ValueError, RecursionError):
    raise ProtocolError('a record that is not msgpack') from None
  return _unpack(wanted, value, frozenset(allowed), wanted.__name__, 0)


def _pack(value: Any, allowed: frozenset[type]) -> Any:
  if type(value) in allowed:
    fields = dataclasses.fields(value)
    return [
      type(value).__name__,
      {field.name: _pack(getattr(value, field.name), allowed) for field in fields},
    ]
  if isinstance(value, (tuple, frozenset)):
    items = sorted(value) if isinstance(value, frozenset) else value
    return [_pack(item, allowed) for item in items]
  if isinstance(value, dict):
    return {key: _pack(item, allowed) for key, item in value.items()}
  if value is None or isinstance(value, (bool, str, bytes)):
    return value
  if isinstance(value, numbers.Integral):
    return int(value)
  if isinstance(value, float):
    return float(value)
  raise ValueError(f'{type(value).__name__} in a record, want numbers, text and known records')


@functools.cache
def _hints(record: type) -> dict[str, Any]:
  return typing.get_type_hints(record)


def _unpack(hint: Any, value: Any, allowed: frozenset[type], where: str, depth: int) -> Any:
  """The value, checked against its annotation `hint`; `where` names it in an error."""
  # Most values of a long record: a megabyte of integers takes seconds without this.
  if hint is int and type(value) is int and abs(value) <= _MAX_INTEGER:
    return value

  def bad(wanted: str) -> ProtocolError:
    return ProtocolError(f'{where} is {frames.printable(value, 60)}, want {wanted}')

  def each(hints: Iterable[Any], values: Iterable[Any]) -> tuple:
    return tuple(_unpack(h, v, allowed, where, depth) for h, v in zip(hints, values))

  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if isinstance(hint, type) and dataclasses.is_dataclass(hint):
    return _record((hint,), value, allowed, where, depth)
  if origin in (types.UnionType, typing.Union):
    if value is None and types.NoneType in arguments:
      return None
    kinds = tuple(a for a in arguments if a is not types.NoneType)
    if len(kinds) == 1:
      return _unpack(kinds[0], value, allowed, where, depth)
    return _record(kinds, value, allowed, where, depth)
  if origin in (tuple, frozenset):
    if not isinstance(value, list):
      raise bad('a list')
    if origin is frozenset:
      return frozenset(each(arguments * len(value), value))
    if arguments[-1] is Ellipsis:
      return each(arguments[:1] * len(value), value)
    if len(value) != len(arguments):
      raise bad(f'{len(arguments)} values')
    return each(arguments, value)
  if origin is dict:
    if not isinstance(value, dict):
      raise bad('a map')
    return {
      key: _unpack(arguments[1], item, allowed, f'{where}.{frames.printable(key, 30)}', depth)
      for key, item in zip(each(arguments[:1] * len(value), value), value.values())
    }
  # Exact types: True is an int for isinstance.
  if hint not in (int, float, bool, str, bytes) or type(value) is not hint:
    raise bad(getattr(hint, '__name__', str(hint)))
  if hint in (str, bytes) and len(value) > _MAX_TEXT:
    raise bad(f'at most {_MAX_TEXT} characters')
  if hint is int and abs(value) > _MAX_INTEGER:
    raise bad('a smaller integer')
  if hint is float and not math.isfinite(value):
    raise bad('a finite number')
  return value


def _record(
  kinds: tuple[type, ...], value: Any, allowed: frozenset[type], where: str, depth: int
) -> Any:
  names = {kind.__name__: kind for kind in kinds if kind in allowed}
  if depth >= _MAX_DEPTH:
    raise ProtocolError(f'{where}: records in records, want at most {_MAX_DEPTH} deep')
  if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], dict):
    raise ProtocolError(f'{where} is {frames.printable(value, 60)}, want [class, fields]')
  kind = names.get(value[0]) if isinstance(value[0], str) else None
  if kind is None:
    raise ProtocolError(
      f'{where} is of class {frames.printable(value[0], 40)}, want {", ".join(sorted(names))}'
    )
  fields = [field.name for field in dataclasses.fields(kind)]
  if set(value[1]) != set(fields):
    odd = sorted(str(name) for name in set(value[1]) ^ set(fields))
    raise ProtocolError(
      f'{kind.__name__} with other fields than {", ".join(fields)}: '
      f'{frames.printable(", ".join(odd), 60)}'
    )
  found = {
    name: _unpack(_hints(kind)[name], value[1][name], allowed, f'{kind.__name__}.{name}', depth + 1)
    for name in fields
  }
  try:
    return kind(**found)
  except ValueError as error:
    raise ProtocolError(f'{kind.__name__}: {frames.printable(str(error))}') from None

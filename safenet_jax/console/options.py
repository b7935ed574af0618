"""The options of a command, each described once as a field of a record (a dataclass).

`add` turns the fields into options of argparse. The commands of `experiments` have another
parser: they read the fields with `described`. `build` makes the record of the parsed values.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
import dataclasses
import math
import os
from typing import Any, NamedTuple, TypeVar

Record = TypeVar('Record')


class Option(NamedTuple):
  """One option.

  name: with underscores.
  kind: str, int, float, bool, or tuple for several words with commas between.
  help: one line.
  default: its value if it is not given.
  metavar: what the help calls its value.
  choices: the values that are allowed; if empty, all are.
  low, high: bounds of a number.
  path: whether it names a file; then ~ is the home directory.
  required: whether it must be given.
  """

  name: str
  kind: type
  help: str
  default: Any
  metavar: str
  choices: tuple[str, ...]
  low: float
  high: float
  path: bool
  required: bool


def option(
  help: str,
  default: Any = None,
  *,
  kind: type | None = None,
  metavar: str = '',
  choices: tuple[str, ...] = (),
  low: float = -math.inf,
  high: float = math.inf,
  path: bool = False,
  required: bool = False,
) -> Any:
  """A field of a frozen dataclass that is an option; see `Option`."""
  kind = kind or (str if default is None else type(default))
  return dataclasses.field(
    default=default,
    metadata={
      'kind': kind,
      'help': help,
      'default': default,
      'metavar': metavar or ('FILE' if path else kind.__name__.upper()),
      'choices': choices,
      'low': low,
      'high': high,
      'path': path,
      'required': required,
    },
  )


def described(record: type) -> Iterator[Option]:
  """The fields of a record as options, in order."""
  for field in dataclasses.fields(record):
    yield Option(field.name, **field.metadata)


def add(parser: argparse.ArgumentParser, record: type) -> None:
  """Adds an option --like-this to a parser for every field `like_this` of a record."""
  for found in described(record):
    flag = '--' + found.name.replace('_', '-')
    if found.kind is bool:
      parser.add_argument(flag, action='store_true', help=found.help)
      continue
    parser.add_argument(
      flag,
      type=_reader(found),
      default=found.default,
      required=found.required,
      choices=found.choices if found.choices and found.kind is str else None,
      metavar=found.metavar,
      help=found.help,
    )


def build(record: type[Record], values: Mapping[str, Any]) -> Record:
  """The record of parsed values, with ~ in paths expanded; values of other names are ignored."""
  found = {}
  for each in described(record):
    value = values[each.name]
    if each.kind is tuple:
      value = tuple(value or ())
    found[each.name] = os.path.expanduser(value) if each.path and value is not None else value
  return record(**found)


def text(value: str) -> str:
  """The text of an option or argument. None is empty: then a shell's variable was not set.

  Raises:
    ArgumentTypeError: it is empty.
  """
  if not value:
    raise argparse.ArgumentTypeError('empty, want a value')
  return value


def _reader(found: Option) -> Callable[[str], Any]:
  """A function that turns the text of an option's value into the value."""

  def read(given: str) -> Any:
    if found.kind is tuple:
      words = tuple(given.split(','))
      if found.choices and not set(words) <= set(found.choices):
        raise argparse.ArgumentTypeError(f'{given!r}, want some of {",".join(found.choices)}')
      return words
    try:
      value = found.kind(given)
    except ValueError:
      raise argparse.ArgumentTypeError(
        f'{given!r}, want {"an integer" if found.kind is int else "a number"}'
      ) from None
    if found.kind in (int, float) and not found.low <= value <= found.high:
      above = '' if found.high == math.inf else f' and at most {found.high:.10g}'
      raise argparse.ArgumentTypeError(f'{given}, want at least {found.low:g}{above}')
    return value

  return text if found.kind is str else read

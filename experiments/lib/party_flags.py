"""Flags of the two parties' commands, made of the records that `safenet` makes its options of."""

import math
from typing import TypeVar

from absl import flags

from safenet_jax.console import options

# Those who use this define the flags; --help shows them with theirs.
flags.disclaim_key_flags()
Record = TypeVar('Record')


def define(record: type) -> None:
  """Defines a flag for every option of a record, but for those that there are already."""
  for found in options.described(record):
    if found.name in flags.FLAGS:
      continue
    arguments = found.name, found.default, found.help
    bounds = {
      name: found.kind(bound)
      for name, bound in (('lower_bound', found.low), ('upper_bound', found.high))
      if math.isfinite(bound)
    }
    if found.kind is tuple:
      flags.DEFINE_list(found.name, list(found.default), found.help)
    elif found.choices:
      flags.DEFINE_enum(found.name, found.default, found.choices, found.help)
    elif found.kind is bool:
      flags.DEFINE_bool(*arguments)
    elif found.kind is int:
      flags.DEFINE_integer(*arguments, **bounds)
    elif found.kind is float:
      flags.DEFINE_float(*arguments, **bounds)
    else:
      flags.DEFINE_string(*arguments)


def parsed(record: type[Record]) -> Record:
  """The record of what the flags say.

  Raises:
    ValueError: an option is missing that has to be given.
  """
  values = {}
  for found in options.described(record):
    values[found.name] = flags.FLAGS[found.name].value
    if found.required and values[found.name] is None:
      raise ValueError(f'no --{found.name}, want {found.help}')
  return options.build(record, values)

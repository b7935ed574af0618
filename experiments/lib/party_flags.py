"""Flags for `serve` and `ask`, made from the records that describe the options of `safenet`."""

import math
from typing import TypeVar

from absl import flags

from experiments.lib import launcher
from safenet_jax.console import options

# Then --help shows these flags as those of the command that calls `define`.
flags.disclaim_key_flags()
Record = TypeVar('Record')


def define(record: type) -> None:
  """Defines a flag for every option of a record, unless there is one of that name."""
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
    elif found.path:
      flags.DEFINE(launcher.Path(), *arguments)
    elif found.kind is bool:
      flags.DEFINE_bool(*arguments)
    elif found.kind is int:
      flags.DEFINE_integer(*arguments, **bounds)
    elif found.kind is float:
      flags.DEFINE_float(*arguments, **bounds)
    else:
      flags.DEFINE_string(*arguments)


def parsed(record: type[Record]) -> Record:
  """The record with the values of the flags.

  Raises:
    ValueError: a required option is missing, or a value is empty.
  """
  values = {}
  for found in options.described(record):
    values[found.name] = flags.FLAGS[found.name].value
    if found.required and values[found.name] is None:
      raise ValueError(f'no --{found.name}, want {found.help}')
    if flags.FLAGS[found.name].present and values[found.name] in ('', []):
      raise ValueError(f'--{found.name} is empty, want {found.help}')
  return options.build(record, values)

"""The command `safenet`: serve, ask, inspect, certificate."""

import argparse
from collections.abc import Sequence
import importlib
import os
import sys
from typing import NoReturn

from safenet_jax.console import errors

# Of each command its module, and what it does. A module is imported when its command is run.
COMMANDS = {
  'serve': ('serve', 'serve the model in a bundle to clients'),
  'ask': ('ask', 'ask a server to classify images that it does not see'),
  'inspect': ('inspection', 'say what a bundle or ONNX file is, and what an inference costs'),
  'certificate': ('certificate', 'write an insecure certificate to try things with'),
}


class Parser(argparse.ArgumentParser):
  """A parser that raises its errors, where argparse's prints them below the usage and exits."""

  def error(self, message: str) -> NoReturn:
    """Refuses a command line: ValueError."""
    raise ValueError(f'{message}; see {self.prog} --help')


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a command line and returns the exit code.

  That is 0, or 2 after an error in one line, or 130 after Ctrl-C.
  """
  try:
    _run(sys.argv[1:] if arguments is None else list(arguments))
    sys.stdout.flush()
  except BrokenPipeError:
    # The reader of our output is gone, as `| head` is after ten lines. Without this line Python
    # would report it once more when it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2
  except errors.USER_ERRORS as error:
    print(f'error: {errors.line(error)}', file=sys.stderr)
    return 2
  except ModuleNotFoundError as error:
    name = error.name or str(error)
    if name.startswith('safenet_jax'):
      raise
    print(
      f"error: {name} is not installed, want: pip install 'safenet_jax[serve]'", file=sys.stderr
    )
    return 2
  except KeyboardInterrupt:
    return 130
  except SystemExit as end:  # of --help
    return int(end.code or 0)
  return 0


def _run(arguments: list[str]) -> None:
  name, *rest = arguments or ['--help']
  if name in ('-h', '--help'):
    print(_help())
    return
  if name not in COMMANDS:
    raise ValueError(f'{name!r} is no command, want one of {", ".join(COMMANDS)}')
  command = importlib.import_module(f'safenet_jax.console.{COMMANDS[name][0]}')
  parser = Parser(
    prog=f'safenet {name}',
    usage=f'safenet {name} {command.USAGE}',
    description=command.DESCRIPTION,
    allow_abbrev=False,
    # The same width on every terminal, and without one.
    formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=35, width=80),
  )
  command.add_options(parser)
  command.run(parser.parse_args([_dashed(argument) for argument in rest]))


def _dashed(argument: str) -> str:
  """A flag with hyphens: --like_this becomes --like-this."""
  name, equals, value = argument.partition('=')
  return (name.replace('_', '-') if name.startswith('--') else name) + equals + value


def _help() -> str:
  commands = '\n'.join(f'  {name:13}{text}' for name, (_, text) in COMMANDS.items())
  return (
    'usage: safenet COMMAND [options]\n\n'
    'Private inference: a server has a model, a client has images, and neither sees\n'
    "the other's.\n\n"
    f'commands:\n{commands}\n\n'
    'safenet COMMAND --help says what its options are.'
  )

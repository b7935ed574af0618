"""The command `safenet`: serve, ask, inspect, certificate."""

import argparse
from collections.abc import Sequence
import importlib
import os
import sys
from typing import NoReturn

from safenet_jax.console import errors

# Module and what it is for. A command's module is imported when it is asked for.
COMMANDS = {
  'serve': ('serve', 'serve the model in a bundle to clients'),
  'ask': ('ask', 'ask a server to classify images that it does not see'),
  'inspect': ('inspection', 'say what a bundle is, and what an inference costs'),
  'certificate': ('certificate', 'write an insecure certificate to try things with'),
}


class Parser(argparse.ArgumentParser):
  """Raises what argparse would print together with the usage."""

  def error(self, message: str) -> NoReturn:
    """Refuses a command line: ValueError."""
    raise ValueError(f'{message}; see {self.prog} --help')


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a command line; the code to end with: 0, 2 after one line on an error, 130 on Ctrl-C."""
  try:
    _run(sys.argv[1:] if arguments is None else list(arguments))
    sys.stdout.flush()
  except BrokenPipeError:
    # Whoever read our output has gone, as `| head` does. Python would say so again at its exit.
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
    # A screen, on whatever terminal or none.
    formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=26, width=80),
  )
  command.add_options(parser)
  command.run(parser.parse_args([_dashed(argument) for argument in rest]))


def _dashed(argument: str) -> str:
  """--like_this is taken for --like-this."""
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

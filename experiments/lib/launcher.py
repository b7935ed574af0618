"""What every command shares: flags, one-line errors, a progress bar.

Only this module looks at the command line; everything else takes parsed flags. JAX is imported
where it is used, because serving a bundle and asking a server go without it.
"""

import atexit
from collections.abc import Callable
import contextlib
import datetime
import functools
import os
import pathlib
import runpy
import shlex
import sys
import time
import traceback
from typing import Any, TYPE_CHECKING

from absl import app, flags, logging
from ml_collections import config_flags
import rich.console
import rich.progress
import rich.table

from experiments.lib import machine
from safenet_jax import json_files
from safenet_jax.console import directories, errors

if TYPE_CHECKING:
  from safenet_jax.workdir import Workdir

CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Experiment config: path.py or path.py:preset.', lock_config=True
)


class Path(flags.ArgumentParser):
  """For `flags.DEFINE`: a path. ~ is the home directory, which no shell makes of --name=~/x."""

  syntactic_help = 'a path'

  def parse(self, argument: str) -> str:
    return os.path.expanduser(argument)


WORKDIR = flags.DEFINE(Path(), 'workdir', None, 'Directory of the run; the same one resumes it.')
OUT = flags.DEFINE(
  Path(),
  'out',
  None,
  'Where to write; a file that is there is replaced. benchmark: JSON file; export: bundle; '
  'ask: JSON file of the ledger or the load; report: directory, by default the workdir.',
)
DISTRIBUTED = flags.DEFINE_string(
  'distributed',
  None,
  "Several processes, one command each: 'auto' on a TPU pod or under SLURM, else "
  'HOST:PORT,COUNT,INDEX of process 0, of all processes and of this one.',
)
# If a process is lost, the others end after so many seconds.
HEARTBEAT_TIMEOUT = 60

# Metrics on the progress bar.
SHOWN = {
  'images/s': '{:,.0f} images/s',
  'loss': 'loss {:.3f}',
  'validation_accuracy': 'accuracy {:.1%}',
}

# Errors that a user can mend; any other is a bug and keeps its trace.
USER_ERRORS = *errors.USER_ERRORS, FloatingPointError, RuntimeError


def run(
  main: Callable[[], None],
  *,
  needs_config: bool = True,
  needs_workdir: bool = True,
  instead: str = '',
) -> None:
  """Parses flags and runs `main`. A user's error ends it with one line and exit code 2.

  Args:
    main: the command.
    needs_config, needs_workdir: whether these flags must be given.
    instead: the name of a flag; if it is given, neither config nor workdir is needed.
  """

  def start():
    if DISTRIBUTED.value:
      connect(DISTRIBUTED.value)
    main()

  if instead and given(instead):
    needs_config = False
  parse = functools.partial(_parse, needs_config, needs_config and needs_workdir)
  app.run(lambda _: guarded(start), flags_parser=parse)


def given(name: str) -> list[str]:
  """The values of a flag in the order of the command line, one for each time it is given."""
  return [value for found, value in _command_line() if found == name]


def config_path() -> str:
  """The config file, without its preset."""
  return os.path.expanduser((given('config') or [''])[-1].partition(':')[0])


def config_arguments() -> list[str]:
  """The config and what overrides it, as another command takes them."""
  return [
    f'--{name}={value}'
    for name, value in _command_line()
    if name == 'config' or name.startswith('config.')
  ]


def _command_line() -> list[tuple[str, str]]:
  """Names and values of --name=value, --name value and --name, in order."""
  found = []
  for argument, following in zip(sys.argv[1:], [*sys.argv[2:], '']):
    if argument.startswith('-'):
      name, equals, value = argument.lstrip('-').partition('=')
      follows = not equals and not following.startswith('-')
      found.append((name, following if follows else value))
  return found


def connect(place: str) -> None:
  """Joins the processes of a run, see --distributed. It must come before any use of a device."""
  import jax

  options: dict[str, Any] = {}
  if place != 'auto':
    address, *numbers = place.split(',')
    if len(numbers) != 2 or not all(n.isdigit() for n in numbers) or ':' not in address:
      raise ValueError(f"--distributed='{place}', want auto or HOST:PORT,COUNT,INDEX")
    count, index = map(int, numbers)
    options = {'coordinator_address': address, 'num_processes': count, 'process_id': index}
  jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT, **options)


def output_file() -> pathlib.Path:
  """The file that --out names.

  Raises:
    ValueError: there is none, or no file can be written there: an error now, and not after hours.
  """
  if not OUT.value:
    raise ValueError('no --out, want --out=FILE')
  return directories.check_file('out', OUT.value)


def workdir(config, *sections: str, writes: bool = True) -> 'Workdir':
  """The run's workdir, claimed for these sections of the config and the seed.

  When the process ends, commands.jsonl there gets the command, its seconds and the machine.

  Args:
    config: of the run.
    sections: names of those that the command uses.
    writes: whether it writes into the workdir. If not, the settings are only compared with those
      recorded, and another command may write meanwhile.
  """
  import jax
  from jax.experimental import multihost_utils

  from experiments.lib import imported
  from safenet_jax.workdir import Workdir

  directory = Workdir(WORKDIR.value or '.')
  settings = {'seed': {'seed': config.seed}}
  settings |= {name: imported.recorded(name, config[name].to_dict()) for name in sections}
  if not writes:
    directory.check(settings)
    return directory
  if jax.process_index():  # process 0 writes the claim that the others check
    multihost_utils.sync_global_devices('claim')
  claim(directory, settings)
  if jax.process_count() > 1 and not jax.process_index():
    multihost_utils.sync_global_devices('claim')
  return directory


def claim(directory: 'Workdir', settings: dict[str, Any]) -> None:
  """Claims a workdir for these settings until the process ends.

  Then commands.jsonl there gets the command, its seconds and the machine.
  """
  import jax

  directory.claim(settings)
  if jax.process_index():
    return
  module = f'experiments.{pathlib.Path(sys.argv[0]).stem}'
  line = {
    'command': shlex.join(['python', '-m', module, *sys.argv[1:]]),
    'started': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
  } | machine.record()
  atexit.register(directory.release)  # after the line of the log, as the last is done first
  atexit.register(_log_command, directory.path, line, time.perf_counter())


def _log_command(path: pathlib.Path, line: dict[str, Any], begun: float) -> None:
  """Appends a line to commands.jsonl; a command that is killed leaves none."""
  seconds = {'seconds': round(time.perf_counter() - begun, 1)}
  try:
    json_files.append_line(path / 'commands.jsonl', line | seconds)
  except OSError as error:  # the command has ended, and says itself how
    logging.info('not in commands.jsonl: %s', errors.line(error))


def _fail(message: str) -> None:
  print(f'error: {" ".join(message.split())}', file=sys.stderr)
  sys.exit(2)


def guarded(main: Callable[[], None]) -> None:
  """Runs `main`; a user's error ends the process with one line and code 2."""
  try:
    main()
  except USER_ERRORS as error:
    logging.debug('trace of the error below', exc_info=True)
    jax = sys.modules.get('jax')
    if jax is not None and jax.distributed.is_initialized():
      # An ordinary exit would wait for the other processes, and they wait for this one.
      print(
        f'error: process {jax.process_index()} ended: {errors.line(error)}; '
        'the same command continues the run',
        file=sys.stderr,
        flush=True,
      )
      os._exit(2)
    _fail(errors.line(error))


def _parse(needs_config, needs_workdir, argv):
  try:
    wanted = needs_config or given('config')
    if wanted and not any(map(given, ('help', 'helpfull', 'helpshort'))):
      _check_config()
    rest = flags.FLAGS([argv[0], *map(_expanded, argv[1:])])
    if len(rest) > 1:
      raise ValueError(f"argument '{rest[1]}', want flags only: --name=value")
    if CONFIG.value is not None:
      from experiments.lib import settings

      settings.check(CONFIG.value)
    if needs_workdir and not WORKDIR.value:
      raise ValueError('no --workdir, want a directory for this run')
    logging.set_verbosity(
      logging.WARNING if flags.FLAGS['verbosity'].using_default_value else flags.FLAGS.verbosity
    )
    return rest
  except (flags.Error, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
    _fail(str(error))


def _expanded(argument: str) -> str:
  """--config=~/x.py with the home directory; ml_collections reads that flag."""
  name, equals, value = argument.partition('=')
  return name + equals + os.path.expanduser(value) if name in ('--config', '-config') else argument


def _check_config() -> None:
  """Loads the config and checks every override, before ml_collections does with long errors."""
  path, preset = config_path(), (given('config') or [''])[-1].partition(':')[2]
  if not path:
    raise ValueError('no --config, want --config=experiments/configs/<name>.py')
  if not pathlib.Path(path).is_file():
    raise ValueError(f'no config file {path}')
  config = _config(path, preset)
  for name, _ in _command_line():
    section = config
    for key in name.split('.')[1:] if name.startswith('config.') else ():
      if not hasattr(section, 'keys') or key not in section:
        known = ', '.join(section.keys()) if hasattr(section, 'keys') else 'nothing below it'
        raise ValueError(f'unknown config key {name.removeprefix("config.")}, want one of: {known}')
      section = section[key]


def _config(path: str, preset: str):
  """What get_config of a file returns; ValueError names file and line of what is wrong in it."""
  try:
    get_config = runpy.run_path(path).get('get_config')
    if get_config is None:
      raise ValueError(f'{path} has no get_config(preset)')
    return get_config(preset)
  except (ValueError, OSError):
    raise  # what a config says of its values
  except Exception as error:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    reason = str(error)
    if isinstance(error, SyntaxError):
      lines, reason = [error.lineno or 1], error.msg
    raise ValueError(
      f'{path}, line {lines[-1] if lines else 1}: {type(error).__name__}: {reason}, '
      'want a config in Python'
    ) from error


def preset(name: str, known: tuple[str, ...]) -> str:
  """The checked name of a config's preset; '' is the full run."""
  if name not in ('', *known):
    raise ValueError(f"unknown preset '{name}', want one of: {', '.join(known)}")
  return name


@contextlib.contextmanager
def progress_bar(title: str, console: rich.console.Console | None = None):
  """Yields report(done, total, metrics): a bar on a terminal, nothing elsewhere."""
  import jax

  console = console or rich.console.Console(stderr=True)
  columns = (
    '{task.description}',
    rich.progress.BarColumn(10),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeElapsedColumn(),
    'ETA',
    rich.progress.TimeRemainingColumn(),
    # The one column that a narrow terminal may break.
    rich.progress.TextColumn('{task.fields[text]}', table_column=rich.table.Column()),
  )
  quiet = not console.is_terminal or jax.process_index() > 0
  # Reports may come once a minute, and rich by default computes speed from the last 30 seconds.
  with rich.progress.Progress(
    *columns, console=console, disable=quiet, speed_estimate_period=3600
  ) as bar:
    task = bar.add_task(title, total=None, text='')

    def report(done, total, metrics):
      text = '  '.join(SHOWN[name].format(metrics[name]) for name in SHOWN if name in metrics)
      bar.update(task, completed=done, total=total, text=text)

    yield report

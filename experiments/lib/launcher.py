"""What every command shares: flags, one-line errors, a progress bar.

JAX is imported where it is used: those who serve a bundle, and their clients, run without it.
"""

import atexit
from collections.abc import Callable
import contextlib
import datetime
import functools
import json
import os
import pathlib
import runpy
import shlex
import sys
import time
from typing import Any, TYPE_CHECKING

from absl import app, flags, logging
from ml_collections import config_flags
import rich.console
import rich.progress
import rich.table

from experiments.lib import machine
from safenet_jax.transport.frames import ProtocolError

if TYPE_CHECKING:
  from safenet_jax.workdir import Workdir

CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Experiment config: path.py or path.py:preset.', lock_config=True
)
WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run; the same one resumes it.')
OUT = flags.DEFINE_string(
  'out',
  None,
  'What to write; what is there is replaced. benchmark: JSON file; export: bundle; '
  'infer --host: JSON file of the ledger or the load; report: directory, by default the workdir.',
)
DISTRIBUTED = flags.DEFINE_string(
  'distributed',
  None,
  "Several processes, one command each: 'auto' on a TPU pod or under SLURM, else "
  'HOST:PORT,COUNT,INDEX of process 0, of all processes and of this one.',
)
# Seconds until a process that is gone ends the others.
HEARTBEAT_TIMEOUT = 60

# Metrics on the progress bar.
SHOWN = {
  'images/s': '{:,.0f} images/s',
  'loss': 'loss {:.3f}',
  'validation_accuracy': 'accuracy {:.1%}',
}

# What a user can mend; anything else is a bug and keeps its trace.
USER_ERRORS = (ValueError, FileNotFoundError, FloatingPointError, RuntimeError, ProtocolError)


def run(main: Callable[[], None], *, needs_config: bool = True, needs_workdir: bool = True) -> None:
  """Parses flags, runs `main`, and ends with one line and code 2 on a user's error."""

  def start():
    if DISTRIBUTED.value:
      connect(DISTRIBUTED.value)
    main()

  parse = functools.partial(_parse, needs_config, needs_config and needs_workdir)
  app.run(lambda _: guarded(start), flags_parser=parse)


def config_path() -> str:
  """The config file, without its preset."""
  values = [a.partition('=')[2] for a in sys.argv[1:] if a.lstrip('-').startswith('config=')]
  return values[-1].partition(':')[0] if values else ''


def connect(place: str) -> None:
  """Joins the processes of a run, see --distributed; nothing may have used a device before."""
  import jax

  options: dict[str, Any] = {}
  if place != 'auto':
    address, *numbers = place.split(',')
    if len(numbers) != 2 or not all(n.isdigit() for n in numbers) or ':' not in address:
      raise ValueError(f"--distributed='{place}', want auto or HOST:PORT,COUNT,INDEX")
    count, index = map(int, numbers)
    options = {'coordinator_address': address, 'num_processes': count, 'process_id': index}
  jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT, **options)


def workdir(config, *sections: str) -> 'Workdir':
  """The run's workdir, claimed for these sections of the config and the seed.

  When the process ends, commands.jsonl there gets the command, its seconds and the machine.
  """
  import jax
  from jax.experimental import multihost_utils

  from safenet_jax.workdir import Workdir

  directory = Workdir(WORKDIR.value or '.')
  if jax.process_index():  # process 0 writes the claim that the others check
    multihost_utils.sync_global_devices('claim')
  directory.claim({'seed': {'seed': config.seed}} | {s: config[s].to_dict() for s in sections})
  if jax.process_count() > 1 and not jax.process_index():
    multihost_utils.sync_global_devices('claim')
  if not jax.process_index():
    module = f'experiments.{pathlib.Path(sys.argv[0]).stem}'
    line = {
      'command': shlex.join(['python', '-m', module, *sys.argv[1:]]),
      'started': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    } | machine.record()
    atexit.register(_log_command, directory.path, line, time.perf_counter())
  return directory


def _log_command(path: pathlib.Path, line: dict[str, Any], begun: float) -> None:
  """Says where a run came from; one that is killed says nothing."""
  if path.is_dir():
    with open(path / 'commands.jsonl', 'a') as file:
      file.write(json.dumps(line | {'seconds': round(time.perf_counter() - begun, 1)}) + '\n')


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
      # The others wait for this process: it may not wait for them at its exit.
      print(
        f'error: process {jax.process_index()} ended: {" ".join(str(error).split())}; '
        'the same command continues the run',
        file=sys.stderr,
        flush=True,
      )
      os._exit(2)
    _fail(str(error))


def _parse(needs_config, needs_workdir, argv):
  try:
    asked = {a.lstrip('-').split('=')[0] for a in argv[1:]}
    if needs_config and not asked & {'help', 'helpfull', 'helpshort'}:
      _check_config(argv)
    rest = flags.FLAGS(argv)
    if len(rest) > 1:
      raise ValueError(f"argument '{rest[1]}', want flags only: --name=value")
    if needs_workdir and not WORKDIR.value:
      raise ValueError('no --workdir, want a directory for this run')
    logging.set_verbosity(
      logging.WARNING if flags.FLAGS['verbosity'].using_default_value else flags.FLAGS.verbosity
    )
    return rest
  except (flags.Error, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
    _fail(str(error))


def _check_config(argv: list[str]) -> None:
  """Loads the config and looks up every override; ml_collections does so late and at length."""
  values = {a.lstrip('-').partition('=')[0]: a.partition('=')[2] for a in argv[1:]}
  path, _, preset = values.get('config', '').partition(':')
  if not path:
    raise ValueError('no --config, want --config=experiments/configs/<name>.py')
  if not pathlib.Path(path).is_file():
    raise ValueError(f'no config file {path}')
  get_config = runpy.run_path(path).get('get_config')
  if get_config is None:
    raise ValueError(f'{path} has no get_config(preset)')
  config = get_config(preset)
  for name in values:
    section = config
    for key in name.split('.')[1:] if name.startswith('config.') else ():
      if not hasattr(section, 'keys') or key not in section:
        known = ', '.join(section.keys()) if hasattr(section, 'keys') else 'nothing below it'
        raise ValueError(f'unknown config key {name.removeprefix("config.")}, want one of: {known}')
      section = section[key]


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
  # A report may come once a minute; from those of rich's 30 seconds no speed would follow.
  with rich.progress.Progress(
    *columns, console=console, disable=quiet, speed_estimate_period=3600
  ) as bar:
    task = bar.add_task(title, total=None, text='')

    def report(done, total, metrics):
      text = '  '.join(SHOWN[name].format(metrics[name]) for name in SHOWN if name in metrics)
      bar.update(task, completed=done, total=total, text=text)

    yield report

"""`safenet serve`: makes a `Server` of a model, and runs it until SIGTERM or Ctrl-C."""

import argparse
import collections
from collections.abc import Callable
import dataclasses
import logging
import os
import pathlib
import signal
import threading
import time

from safenet_jax.console import directories, errors, options, process_memory, progress
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.layers import structure
from safenet_jax.protocol.service import bundle as bundles
from safenet_jax.protocol.service import policy as policies
from safenet_jax.protocol.service import processes
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import sessions as protocol_sessions
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport import tls

# Of one session each, some kilobytes long.
_MAX_RECORDS = 10_000
USAGE = '--bundle=FILE [options]'
DESCRIPTION = 'Serves a model until Ctrl-C or SIGTERM. Its log goes to standard error.'


@dataclasses.dataclass(frozen=True)
class Serving:
  """How a model is served; the help of every field says what it is."""

  host: str = options.option('address to listen at (127.0.0.1)', '127.0.0.1', metavar='ADDRESS')
  port: int = options.option(
    'port; 0 takes a free one (7341)', 7341, metavar='N', low=0, high=65535
  )
  certificate: str | None = options.option("PEM file of the server's certificate", path=True)
  key: str | None = options.option("PEM file of that certificate's private key", path=True)
  client_ca: str | None = options.option('clients need a certificate of this PEM file', path=True)
  insecure_test_certificate: str | None = options.option(
    'instead: write a certificate for tests there', metavar='DIR', path=True
  )
  insecure_clear: bool = options.option('instead: no encryption, for measurements only', False)
  mode: str = options.option(
    f'{", ".join(protocol_sessions.MODES)}, or auto ({protocol_sessions.DEFAULT})',
    protocol_sessions.DEFAULT,
    metavar='MODE',
    choices=(*protocol_sessions.MODES, protocol_sessions.AUTO),
  )
  outputs: tuple[str, ...] = options.option(
    'what clients may ask for (logits,class: both)', (), metavar='A,B', choices=structure.OUTPUTS
  )
  processes: int = options.option(
    'processes that serve, at one port (1)', 1, metavar='N', low=1, high=1024
  )
  workers: int | None = options.option(
    'processes for encryption (one per core, or 0)',
    kind=int,
    metavar='N',
    low=0,
    high=1024,
  )
  sessions: int = options.option('clients at once (8)', 8, metavar='N', low=1, high=65535)
  address_sessions: int | None = options.option(
    'clients of one address at once (half)', kind=int, metavar='N', low=1, high=65535
  )
  predictions_per_day: int | None = options.option(
    'predictions of one address in a day (any)', kind=int, metavar='N', low=0, high=2**31
  )
  memory_gib: float = options.option(
    'memory for inferences, and for weights (4)', 4.0, metavar='GIB', low=0, high=1e6
  )
  ledgers: str | None = options.option(
    'directory for bytes and seconds of sessions', metavar='DIR', path=True
  )
  drain_seconds: float = options.option(
    'how long clients may go on after a stop (30)', 30.0, metavar='S', low=0, high=1e6
  )


def add_options(parser: argparse.ArgumentParser) -> None:
  """The options of the command."""
  parser.add_argument(
    '--bundle', type=options.text, metavar='FILE', required=True, help='file of the model'
  )
  options.add(parser, Serving)


def run(arguments: argparse.Namespace) -> None:
  """Serves the model of a bundle."""
  path = os.path.expanduser(arguments.bundle)
  serve(lambda: bundles.load(path), options.build(Serving, vars(arguments)))


def serve(load: Callable[[], FixedPointModel], serving: Serving) -> None:
  """Serves a model until SIGTERM or SIGINT; blocks, in the main thread.

  Args:
    load: gives the model; called after certificates and directories were checked.
    serving: how it is served.

  Raises:
    ValueError: options that contradict each other, files that are not what they should be,
      or an address that cannot be listened at.
  """
  files = _files(serving)
  if serving.ledgers:
    pathlib.Path(serving.ledgers).mkdir(parents=True, exist_ok=True)
    directories.check('ledgers', serving.ledgers)
  with progress.Traffic() as shown:
    # `force`, because logging may be set up already in a way that drops all but warnings. Within
    # the block, so that lines stand above the bars.
    logging.basicConfig(level=logging.WARNING, format=processes.LOG_FORMAT, force=True)
    # Only our own information: libraries that read checkpoints log every step of it.
    logging.getLogger('safenet_jax').setLevel(logging.INFO)
    _run(_server(load(), serving, files, shown), serving)


def _run(server: servers.Server | processes.ServerProcesses, serving: Serving) -> None:
  """Serves until a signal comes."""
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: server.stop())
  host, port = server.address
  what = f'{serving.processes} processes'
  if isinstance(server, servers.Server):
    what = f'model {server.description.model_id.hex()}'
  print(f'serve: {what} at {host}:{port}', flush=True)
  server.wait()
  drained = server.close(serving.drain_seconds)
  print(f'serve: {"every session ended" if drained else "sessions were cut off"}')


def _server(
  model: FixedPointModel, serving: Serving, files: tuple | None, shown: progress.Traffic
) -> servers.Server | processes.ServerProcesses:
  several = serving.processes > 1
  workers = serving.workers
  if workers is None:
    workers = 0 if several else os.cpu_count() or 1
  chosen = servers.ServerOptions(
    mode=serving.mode,
    outputs=serving.outputs or None,
    workers=workers,
    sessions=serving.sessions,
    address_sessions=serving.address_sessions,
    memory_bytes=int(serving.memory_gib * 2**30),
    weights_bytes=max(1, int(serving.memory_gib * 2**30)),
  )
  place = model, serving.host, serving.port
  policy = policies.Policy(serving.predictions_per_day)
  save = _Records(serving.ledgers).save if serving.ledgers else None
  try:
    if several:
      count = serving.processes
      return processes.ServerProcesses(
        *place, files=files, count=count, options=chosen, policy=policy, on_record=save
      )
    context = None if files is None else tls.server_context(*files)
    return servers.Server(
      *place,
      context=context,
      options=chosen,
      policy=policy,
      on_record=save,
      on_prepare=lambda ledger, total: shown.watching(ledger, preparing=('offline', total)),
    )
  except (OSError, RuntimeError) as error:  # RuntimeError: a process or a worker ended
    raise ValueError(
      f'cannot listen at {serving.host}:{serving.port}: {errors.line(error)}'
    ) from None


class _Records:
  """The records of sessions as files in a directory: of the last ones, since anybody makes them."""

  def __init__(self, directory: str):
    self._directory, self._lock = pathlib.Path(directory), threading.Lock()
    # Their names are times, so that the order of names is theirs.
    self._paths = collections.deque(sorted(self._directory.glob('[0-9]*.json')))

  def __reduce__(self):
    return _Records, (str(self._directory),)  # each process that serves has one

  def save(self, record: dict) -> None:
    """Writes a record; removes those that are too many, oldest first."""
    memory = process_memory.memory()._asdict()
    path = self._directory / f'{time.time_ns()}-{os.getpid()}.json'
    ledgers.save(record | {'mode': 'server', 'memory': memory}, path)
    with self._lock:
      self._paths.append(path)
      while len(self._paths) > _MAX_RECORDS:
        self._paths.popleft().unlink(missing_ok=True)


def _files(serving: Serving) -> tuple | None:
  """Arguments of `tls.server_context`, which were checked; None for no encryption."""
  own = serving.certificate is not None or serving.key is not None
  chosen = own + (serving.insecure_test_certificate is not None) + serving.insecure_clear
  if chosen != 1:
    raise ValueError(
      f'{"several ways" if chosen else "no way"} to encrypt, want one: --certificate and --key, '
      '--insecure_test_certificate, or --insecure_clear'
    )
  if serving.insecure_clear:
    if serving.client_ca is not None:
      raise ValueError('--insecure_clear and --client_ca, want one of them')
    return None
  if serving.insecure_test_certificate is not None:
    files = tls.insecure_test_certificate(serving.insecure_test_certificate, (serving.host,))
    print(f'serve: clients trust this server with --ca={files.certificate}', flush=True)
    return _checked(*files, serving.client_ca)
  for name in ('certificate', 'key'):
    if getattr(serving, name) is None:
      raise ValueError(f'no --{name}, want --certificate and --key, a PEM file each')
  return _checked(serving.certificate, serving.key, serving.client_ca)


def _checked(*files) -> tuple:
  tls.server_context(*files)
  return files

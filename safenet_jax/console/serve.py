"""`safenet serve`: makes a `Server` of a model, and runs it until SIGTERM or Ctrl-C."""

import argparse
from collections.abc import Callable
import dataclasses
import logging
import os
import pathlib
import signal
import ssl
import time

from safenet_jax.console import directories, errors, options, process_memory
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.layers import structure
from safenet_jax.protocol.service import bundle as bundles
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import sessions as protocol_sessions
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport import tls

USAGE = '--bundle=FILE [options]'
DESCRIPTION = (
  'Serves the model of a bundle until Ctrl-C or SIGTERM. Its log goes to standard error.'
)


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
    f'{" or ".join(protocol_sessions.MODES)} ({protocol_sessions.DEFAULT})',
    protocol_sessions.DEFAULT,
    metavar='MODE',
    choices=tuple(protocol_sessions.MODES),
  )
  outputs: tuple[str, ...] = options.option(
    'what clients may ask for (logits,class: both)', (), metavar='A,B', choices=structure.OUTPUTS
  )
  workers: int = options.option(
    'processes for encrypted layers (one per core)',
    os.cpu_count() or 1,
    metavar='N',
    low=0,
    high=1024,
  )
  sessions: int = options.option('clients at once (8)', 8, metavar='N', low=1, high=65535)
  memory_gib: float = options.option(
    'memory for prepared inferences (4)', 4.0, metavar='GIB', low=0, high=1e6
  )
  ledgers: str | None = options.option(
    "directory for every session's bytes and seconds", metavar='DIR', path=True
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
  context = _context(serving)
  if serving.ledgers:
    pathlib.Path(serving.ledgers).mkdir(parents=True, exist_ok=True)
    directories.check('ledgers', serving.ledgers)
  # `force`, because logging may be set up already in a way that drops all but warnings.
  logging.basicConfig(
    level=logging.WARNING, format='%(asctime)s %(levelname)s %(message)s', force=True
  )
  # Only our own information: libraries that read checkpoints log every step of it.
  logging.getLogger('safenet_jax').setLevel(logging.INFO)
  server = _server(load(), serving, context)
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: server.stop())
  host, port = server.address
  print(f'serve: model {server.description.model_id.hex()} at {host}:{port}', flush=True)
  server.wait()
  drained = server.close(serving.drain_seconds)
  print(f'serve: {"every session ended" if drained else "sessions were cut off"}')


def _server(
  model: FixedPointModel, serving: Serving, context: ssl.SSLContext | None
) -> servers.Server:
  def save(record: dict) -> None:
    memory = process_memory.memory()._asdict()
    path = pathlib.Path(serving.ledgers or '', f'{time.time_ns()}.json')
    ledgers.save(record | {'mode': 'server', 'memory': memory}, path)

  try:
    return servers.Server(
      model,
      serving.host,
      serving.port,
      context=context,
      options=servers.ServerOptions(
        mode=serving.mode,
        outputs=serving.outputs or None,
        workers=serving.workers,
        sessions=serving.sessions,
        memory_bytes=int(serving.memory_gib * 2**30),
      ),
      on_record=save if serving.ledgers else None,
    )
  except OSError as error:
    place = f'{serving.host}:{serving.port}'
    raise ValueError(f'cannot listen at {place}: {errors.line(error)}') from None


def _context(serving: Serving) -> ssl.SSLContext | None:
  own = serving.certificate is not None or serving.key is not None
  chosen = own + (serving.insecure_test_certificate is not None) + serving.insecure_clear
  if chosen != 1:
    raise ValueError(
      f'{"several ways" if chosen else "no way"} to encrypt, want one: --certificate and --key, '
      'an insecure test certificate, or insecure clear text'
    )
  if serving.insecure_clear:
    if serving.client_ca is not None:
      raise ValueError("no encryption and authorities of clients' certificates, want one of them")
    return None
  if serving.insecure_test_certificate is not None:
    files = tls.insecure_test_certificate(serving.insecure_test_certificate, (serving.host,))
    print(f'serve: clients trust this server with --ca={files.certificate}', flush=True)
    return tls.server_context(*files, serving.client_ca)
  for name in ('certificate', 'key'):
    if getattr(serving, name) is None:
      raise ValueError(f'no --{name}, want --certificate and --key, a PEM file each')
  return tls.server_context(serving.certificate or '', serving.key or '', serving.client_ca)

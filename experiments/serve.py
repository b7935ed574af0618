"""Serves private inference of a run's planned network until SIGTERM or Ctrl-C.

  python -m experiments.serve --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo \
    --host=127.0.0.1 --port=7341 --certificate=server.pem --key=server_key.pem

--bundle=FILE serves what `experiments.export` wrote, with no config, no workdir and no JAX.
--insecure_test_certificate=DIR writes a certificate that signs itself for --host, and its key,
and serves with them. --outputs=class lets clients have classes alone, never the logits. Logs are
lines of key=value on standard error.
"""

import logging
import os
import pathlib
import signal
import sys
import time

from absl import flags

from experiments.lib import launcher, machine, party_flags
from safenet_jax.protocol.service import bundle as bundles
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import sessions
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport import tls

BUNDLE = flags.DEFINE_string('bundle', None, 'File of experiments.export, instead of a run.')
TEST_CERTIFICATE = flags.DEFINE_string(
  'insecure_test_certificate', None, 'Directory for a certificate to try things with.'
)
CLIENT_CA = flags.DEFINE_string(
  'client_ca', None, 'PEM file: clients need a certificate that it signed.'
)
MODE = flags.DEFINE_enum(
  'mode',
  sessions.DEFAULT,
  list(sessions.MODES),
  'How linear layers are served; gazelle is a baseline.',
)
OUTPUTS = flags.DEFINE_list(
  'outputs',
  None,
  'What clients may have of logits and class, both by default; with class alone '
  'the index of the largest logit is all that one who follows the protocol learns.',
)
WORKERS = flags.DEFINE_integer(
  'workers',
  os.cpu_count() or 1,
  'Processes for homomorphic encryption; 0 for none.',
  lower_bound=0,
)
SESSIONS = flags.DEFINE_integer('sessions', 8, 'Clients at once.', lower_bound=1)
MEMORY = flags.DEFINE_float('memory_gib', 4.0, 'Memory for prepared inferences.', lower_bound=0)
LEDGERS = flags.DEFINE_string('ledgers', None, "Directory for this party's ledger of each session.")
DRAIN = flags.DEFINE_float('drain_seconds', 30.0, 'How long sessions may go on after SIGTERM.')


def _context():
  if party_flags.IN_THE_CLEAR.value:
    return None
  if TEST_CERTIFICATE.value:
    files = tls.insecure_test_certificate(
      TEST_CERTIFICATE.value, (party_flags.HOST.value or '127.0.0.1',)
    )
    print(f'serve: clients trust this server with --ca={files.certificate}', flush=True)
    return tls.server_context(*files)
  certificate = party_flags.needed('certificate', party_flags.CERTIFICATE.value)
  return tls.server_context(
    certificate, party_flags.needed('key', party_flags.KEY.value), CLIENT_CA.value
  )


def _model():
  if BUNDLE.value:
    if launcher.CONFIG.value is not None:
      raise ValueError('--bundle and --config, want one of them')
    return bundles.load(BUNDLE.value)
  from experiments.lib import served_model

  return served_model.served(launcher.CONFIG.value).model


def _save(record: dict) -> None:
  if LEDGERS.value:
    path = pathlib.Path(LEDGERS.value)
    path.mkdir(parents=True, exist_ok=True)
    memory = machine.memory()._asdict()
    ledgers.save(record | {'mode': 'server', 'memory': memory}, path / f'{time.time_ns()}.json')


def main() -> None:
  context = _context()
  # absl has a handler of its own, which would leave out what is less than a warning.
  logging.basicConfig(
    level=logging.WARNING, format='%(asctime)s %(levelname)s %(message)s', force=True
  )
  # Our own lines only: checkpoint libraries tell at length how they read.
  logging.getLogger('safenet_jax').setLevel(logging.INFO)
  server = servers.Server(
    _model(),
    party_flags.HOST.value or '127.0.0.1',
    party_flags.PORT.value,
    context=context,
    options=servers.ServerOptions(
      mode=MODE.value or sessions.DEFAULT,
      outputs=OUTPUTS.value,
      workers=WORKERS.value or 0,
      sessions=SESSIONS.value or 1,
      memory_bytes=int((MEMORY.value or 0) * 2**30),
    ),
    on_record=_save,
  )
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: server.stop())
  host, port = server.address
  print(f'serve: model {server.description.model_id.hex()} at {host}:{port}', flush=True)
  server.wait()
  print(f'serve: {"every session ended" if server.close(DRAIN.value) else "sessions were cut off"}')


if __name__ == '__main__':
  launcher.run(main, needs_config=not party_flags.asked('bundle', sys.argv))

"""What every operation of a private inference takes on this machine, for `describe --costs=FILE`.

Two processes infer with CNN-7 over TLS on the loopback, in every mode. In every layer half of the
channels are polynomials, of degree 2 and 3 in turn; the weights mean nothing. Each row of the
ledger is the median of several sessions, because in short phases the fastest session is a third
below the usual one.

From these rows come those of the suite. `unit/<party> <operation>` is the CPU seconds of one
operation, fitted so that all of them together come nearest to the ledger. `memory/<what>` is bytes.
"""

from collections.abc import Iterator, Mapping
import json
import multiprocessing
import pathlib
import statistics
import tempfile
from typing import Any, NamedTuple

from experiments import benchmarks
from experiments.benchmarks import Row
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.delphi import costs, keys, message_walk
from safenet_jax.protocol.delphi.mode import DELPHI
from safenet_jax.protocol.estimate import peak_memory, unit_costs
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.protocol.service import bundle, sessions
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import ledger, tls

UNIT, MEMORY = benchmarks.UNIT_COSTS['seconds'], benchmarks.UNIT_COSTS['memory']
# Plans whose peaks are measured: ratio in twentieths and degree of every layer.
PEAKS = ('all_relu', 0, 2), ('channel_80', 16, 2), ('all_cubic', 20, 3)
_HOST = '127.0.0.1'


class Measured(NamedTuple):
  """What was measured of both parties.

  seconds: CPU seconds, by row of the ledger.
  process: bytes of each party's process after it has imported its code.
  peaks: the most bytes that each process had.
  """

  seconds: dict[costs.Row, float]
  process: dict[str, int]
  peaks: dict[str, int]


def rows() -> Iterator[Row]:
  quick = benchmarks.QUICK.value
  # Imported here, so that the processes that are measured have no JAX in them.
  from safenet_jax.approximation import plans
  from safenet_jax.models import architectures
  from safenet_jax.protocol.estimate import untrained

  width = 0.125 if quick else 1.0
  net = architectures.cnn7(width=width)
  model = untrained.model(net, plans.from_twentieths([10] * 7, [2, 3] * 3 + [2]))
  repeated = 1 if quick else 8
  structure = Structure.of(model.public)
  contexts = keys.contexts(structure, b'')
  operations: dict[tuple, Mapping[str, float]] = {}
  seconds: dict[tuple, float] = {}
  for mode in sessions.MODES.values():
    measured = measure(model, mode.name, 1 + repeated)
    tally = message_walk.tally(model.public, mode.structure(model.public), contexts, mode)
    operations |= {(mode.name, *row): counts for row, counts in tally.operations.items()}
    seconds |= {(mode.name, *row): spent for row, spent in measured.seconds.items()}
  setting = f'cnn7 at width {width:g}, median of {repeated} sessions'
  for name, value in unit_costs.fit(operations, seconds).items():
    yield Row('units', f'{UNIT}{name}', setting, value, 'CPU s')
  # Memory of one inference alone: allocators keep some of what earlier sessions used.
  held, size = measure(model, DELPHI.name, 1), _context_size()
  process = min(held.process.values())
  yield Row('units', f'{MEMORY}process', 'after importing a party', process, 'bytes')
  yield Row('units', f'{MEMORY}context', 'of homomorphic encryption', size, 'bytes')
  # What is left of the peaks once everything else is counted.
  known = {'process': process, 'context': size, 'client': 0, 'server': 0}
  default = DELPHI
  for party, least in peak_memory.peaks(structure, contexts, default, known).items():
    rest = max(0, held.peaks[party] - least)
    yield Row('units', f'{MEMORY}{party}', f'what the {party} works in', rest, 'bytes')
  # Peaks of other plans, only to compare with.
  for name, ratio, degree in () if quick else PEAKS:
    other = untrained.model(net, plans.from_twentieths([ratio] * 7, [degree] * 7))
    found = measure(other, DELPHI.name, 1)
    for party, peak in found.peaks.items():
      yield Row('units', f'peak/{name}/{party}', 'cnn7, one inference', peak, 'bytes')


def measure(model: FixedPointModel, mode: str, connections: int) -> Measured:
  """Rows of one inference, each the median over sessions; the first counts only if it is alone."""
  spawn = multiprocessing.get_context('spawn')
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory, 'model.safenet')
    bundle.save(path, model)
    files = tls.insecure_test_certificate(directory)
    ends, started = {}, []
    for party, function, rest in (
      ('server', _serve, (path, mode, files)),
      ('client', _ask, (files.certificate, model.public.input_shape, connections)),
    ):
      ends[party], theirs = spawn.Pipe()
      process = spawn.Process(target=function, args=(theirs, directory, *rest), daemon=True)
      process.start()
      theirs.close()
      started.append(process)
    held = {party: end.recv() for party, end in ends.items()}
    ends['client'].send(ends['server'].recv())
    peaks = {'client': ends['client'].recv()}
    ends['server'].send(None)
    peaks['server'] = ends['server'].recv()
    for process in started:
      process.join()
    found: dict[costs.Row, list[float]] = {}
    for party in ends:
      records = sorted(pathlib.Path(directory).glob(f'{party}-*.json'))
      for record in map(_load, records[1:] or records):
        for row in record['rows']:
          key = row['phase'], row['layer'], row['primitive'], row['party']
          if row['party'] == party:
            found.setdefault(key, []).append(row['cpu_seconds'])
  return Measured({key: statistics.median(each) for key, each in found.items()}, held, peaks)


def _load(path: pathlib.Path) -> dict[str, Any]:
  return json.loads(path.read_text())


def _serve(pipe, directory: str, path: pathlib.Path, mode: str, files) -> None:
  """The server's process, until it is told to stop."""
  pipe.send(_status('VmRSS'))
  served = []

  def save(record: dict[str, Any]) -> None:
    served.append(record)
    ledger.save(record, pathlib.Path(directory, f'server-{len(served):03}.json'))

  context = tls.server_context(*files)
  options = servers.ServerOptions(mode=mode)
  with servers.Server(
    bundle.load(path), context=context, options=options, on_record=save
  ) as server:
    pipe.send(server.address[1])
    pipe.recv()
  pipe.send(_status('VmHWM'))


def _ask(pipe, directory: str, authority: pathlib.Path, shape, connections: int) -> None:
  """The client's process: an inference for each connection."""
  import numpy as np

  image = np.zeros((1, *shape), np.uint8)
  pipe.send(_status('VmRSS'))
  port = pipe.recv()
  for number in range(connections):
    context = tls.client_context(authority)
    with clients.Client(_HOST, port, context=context) as client:
      client.infer(image)
    ledger.save(client.ledger.record(), pathlib.Path(directory, f'client-{number:03}.json'))
  pipe.send(_status('VmHWM'))


def _status(name: str) -> int:
  """Bytes that Linux says of this process."""
  with open('/proc/self/status') as status:
    line = next(line for line in status if line.startswith(name))
  return int(line.split()[1]) * 1024


def _context_size() -> int:
  """What a process grows by with a context for products."""
  from safenet_jax.crypto import ring
  from safenet_jax.crypto.homomorphic import bfv

  before, kept = _status('VmRSS'), []
  for _ in range(4):
    kept.append(bfv.Context(bfv.slot_parameters(ring.PRIME_41)))
  return max(0, _status('VmRSS') - before) // len(kept)

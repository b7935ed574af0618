"""Servers that several clients keep busy: --requests for each of them.

1, 2 and 8 clients ask servers of 1 and 2 processes, or so many clients as --clients says. Every
client is a process that sends one request after another, on the loopback over TLS. A request
prepares and infers one image. A request that fails ends the suite. Rows are
`<network>/<plan>/sustained_<clients>_<processes>_<quantity>`:

- `requests_per_s`: of all clients together;
- `cpu_s`: CPU seconds of the server's processes for a request, its sessions' keys among them;
- `latency_p95_s`: 95 of 100 requests took at most so long, both phases together;
- `online_p95_s`: the same for the online phase alone; both also as p50 and p99;
- `agree`: the share of classes that equal the integer model's;
- `server_growth_mb`: the most memory of the server's processes together in the second half of the
  requests, less the most in the first half;
- `server_peak_mb`: the most memory of one of them; they do not use JAX;
- `session_mb`: the most that they had together beyond what they began with, for each client;
- `client_peak_mb`: the most memory of a client.
"""

from collections.abc import Iterator
import contextlib
import functools
import itertools
import os
import pathlib

from absl import flags

from experiments import benchmarks
from experiments.benchmarks import inference, Row
from experiments.lib import load_test
from safenet_jax.console import process_memory
from safenet_jax.protocol.delphi.mode import DELPHI
from safenet_jax.transport import tls

PLAN = 'channel_80'
_REQUESTS, _IMAGES = 200, 16
_CLIENTS, _PROCESSES = (1, 2, 8), (1, 2)


def rows() -> Iterator[Row]:
  quick = benchmarks.QUICK.value
  chosen = quick or flags.FLAGS['clients'].present
  counts = (load_test.CLIENTS.value or 1,) if chosen else _CLIENTS
  for processes, clients in itertools.product(_PROCESSES[:1] if quick else _PROCESSES, counts):
    yield from _rows(processes, clients, quick)


def _rows(processes: int, clients: int, quick: bool) -> Iterator[Row]:
  width = 0.125 if quick else 1.0
  requests = load_test.REQUESTS.value or (4 if quick else _REQUESTS)
  resident: list[int] = []
  images = min(_IMAGES, requests)
  with inference.serving(DELPHI.name, PLAN, width, images, processes=processes) as server:
    ids = server.processes

    def measure(number: int) -> None:
      del number
      resident.append(sum(process_memory.memory(each).resident for each in ids))

    measure(0)
    spent = _cpu(ids)
    found = load_test.run(
      server.address,
      functools.partial(tls.client_context, server.files.certificate),
      server.images,
      requests=requests,
      count=clients,
      done=measure,
    )
    spent = _cpu(ids) - spent
    peak = max(process_memory.memory(each).peak for each in ids)
  start, *later = resident
  quantities = found.quantities() | {
    'cpu_s': (spent / requests, 'CPU s'),
    'agree': (found.agreement(server.classes) / requests, 'share'),
    'server_growth_mb': (growth(later) / 1e6, 'MB'),
    'server_peak_mb': (peak / 1e6, 'MB'),
    'session_mb': ((max(later) - start) / clients / 1e6, 'MB'),
  }
  setting = (
    f'{inference.NETWORK} at width {width:g}, {PLAN}, {requests} requests by {clients} clients, '
    f'{processes} server processes, loopback, TLS'
  )
  for quantity, (value, unit) in quantities.items():
    name = f'{inference.NETWORK}/{PLAN}/sustained_{clients}_{processes}_{quantity}'
    yield Row('sustained', name, setting, value, unit)


def _cpu(processes: list[int]) -> float:
  """CPU seconds of processes so far; 0 on systems without /proc."""
  ticks = 0
  for process in processes:
    with contextlib.suppress(OSError):
      # The name, in brackets, may hold spaces. User and system time are fields 14 and 15.
      fields = pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
      ticks += int(fields[11]) + int(fields[12])
  return ticks / os.sysconf('SC_CLK_TCK')


def growth(resident: list[int]) -> int:
  """The largest number of bytes in the later half, less the largest in the earlier half."""
  half = len(resident) // 2
  return max(resident[half:]) - max(resident[:half], default=0)

"""A server that several clients keep busy: --requests in all, shared by --clients.

Every client is a process that sends one request after another, on the loopback over TLS. A request
prepares and infers one image. A request that fails ends the suite. Rows are
`<network>/<plan>/sustained_<quantity>`:

- `requests_per_s`: of all clients together;
- `latency_p95_s`: 95 of 100 requests took at most so long, both phases together;
- `online_p95_s`: the same for the online phase alone; both also as p50 and p99;
- `agree`: the share of classes that equal the integer model's;
- `server_growth_mb`: the most memory of the server in the second half of the requests, less the
  most in the first half;
- `server_peak_mb`, `client_peak_mb`: the most memory of a process. The server's includes JAX, which
  makes the model there; the client does not use JAX.
"""

from collections.abc import Iterator
import functools

from experiments import benchmarks
from experiments.benchmarks import inference, Row
from experiments.lib import load_test
from safenet_jax.console import process_memory
from safenet_jax.protocol.service import sessions
from safenet_jax.transport import tls

PLAN = 'channel_80'
_REQUESTS, _IMAGES = 200, 16


def rows() -> Iterator[Row]:
  quick = benchmarks.QUICK.value
  width = 0.125 if quick else 1.0
  requests = load_test.REQUESTS.value or (4 if quick else _REQUESTS)
  memory: list[process_memory.Memory] = []
  with inference.serving(sessions.DEFAULT, PLAN, width, min(_IMAGES, requests)) as server:
    found = load_test.run(
      server.address,
      functools.partial(tls.client_context, server.files.certificate),
      server.images,
      requests=requests,
      count=load_test.CLIENTS.value or 1,
      done=lambda number: memory.append(process_memory.memory(server.process.pid)),
    )
  quantities = found.quantities() | {
    'agree': (found.agreement(server.classes) / requests, 'share'),
    'server_growth_mb': (growth([each.resident for each in memory]) / 1e6, 'MB'),
    'server_peak_mb': (max(each.peak for each in memory) / 1e6, 'MB'),
  }
  setting = (
    f'{inference.NETWORK} at width {width:g}, {PLAN}, {requests} requests by '
    f'{load_test.CLIENTS.value} clients, loopback, TLS'
  )
  for quantity, (value, unit) in quantities.items():
    name = f'{inference.NETWORK}/{PLAN}/sustained_{quantity}'
    yield Row('sustained', name, setting, value, unit)


def growth(resident: list[int]) -> int:
  """The largest number of bytes in the later half, less the largest in the earlier half."""
  half = len(resident) // 2
  return max(resident[half:]) - max(resident[:half], default=0)

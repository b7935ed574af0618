"""A server under the requests of several clients, one after another: --requests, --clients.

Rows `<network>/<plan>/sustained_<quantity>`. Every request is an image of its own that is prepared
and inferred, on the loopback under TLS; every client is a process. `requests_per_s` is of all
clients, `latency_p95_s` is what 95 of 100 requests took at most, both phases together, and
`online_p95_s` of the online phase alone. `agree` is the share of classes that equal the integer
model's. `server_growth_mb` is the server's memory at most in the second half of the requests less
that in the first. A request that fails ends the suite. Peaks include JAX, which made the model
in the server's process, and which a client's does not use.
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
  """Bytes that the later half has more than the earlier one, at most of each."""
  half = len(resident) // 2
  return max(resident[half:]) - max(resident[:half], default=0)

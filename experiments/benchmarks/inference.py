"""Private inference by two processes over TLS: seconds and bytes.

Rows are `<network>/<plan>/<quantity>` for one image of 32 x 32, and in modes other than Delphi's
`<network>/<mode>_<plan>/<quantity>`. The quantities are, with `<phase>` offline or online:

- `offline_s`, `online_s`, `total_s`: wall seconds that the client waits;
- `<phase>_linear_s`: the part of them in steps of linear layers;
- `<phase>_mb`: what is sent, both ways together;
- `<phase>_cpu_<party>_s`: CPU seconds of a party;
- `agree`: the share of classes that equal the integer model's.

Weights are random: neither bytes nor time depend on them. Homomorphic encryption runs in the
thread of the server's session.

These rows are measured on the loopback. `lan_<quantity>` and `wan_<quantity>` are wall seconds
over emulated links (`transport.emulated_link`). Their floor is the time that the link takes for
the ledger's rounds, and for its bytes in the direction that has more of them.
"""

from collections.abc import Container, Iterator, Mapping
import contextlib
import multiprocessing
import os
import queue
import tempfile
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import benchmarks
from experiments.benchmarks import Row
from safenet_jax import data
from safenet_jax.approximation import activation, importance, plans
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import architectures
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.protocol.delphi.mode import DELPHI
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import sessions
from safenet_jax.protocol.service.processes import ServerProcesses
from safenet_jax.quantization import quantize
from safenet_jax.report import costs
from safenet_jax.transport import channel, tls
from safenet_jax.transport import ledger as ledgers

NETWORK = 'cnn7'
# For every layer the ratio in twentieths, and the degree.
PLANS = {
  'all_relu': ([0] * 7, [2] * 7),
  'channel_80': ([16] * 7, [2] * 7),
  'layerwise': ([20] * 5 + [0] * 2, [2] * 7),
  'all_polynomial': ([20] * 7, [2] * 7),
  'all_cubic': ([20] * 7, [3] * 7),
}
# Seconds of a round trip, and bits a second.
LINKS = {'loopback': (0.0, float('inf')), 'lan': (1e-3, 1e9), 'wan': (40e-3, 100e6)}
_SEED = 0
# Sessions of a server that gives every client a place.
_MOST = 64
_HOST = '127.0.0.1'


def rows() -> Iterator[Row]:
  quick = benchmarks.QUICK.value
  width = 0.125 if quick else 1.0
  counts = dict.fromkeys(LINKS, 1) if quick else {'loopback': 4, 'lan': 2, 'wan': 2}
  cases = [
    (mode, name)
    for mode in sessions.MODES
    for name in (PLANS if mode == DELPHI.name else list(PLANS)[:2])
  ]
  for mode, name in cases[1:2] if quick else cases:
    at = f'{NETWORK}/{"" if mode == DELPHI.name else f"{mode}_"}{name}'
    what = f'{NETWORK} at width {width:g}, {name}, {mode}'
    for link, record in measure(mode, name, width, counts):
      setting = f'{what}, mean of {record["images"]} images, {link}, TLS'
      if link == 'loopback':
        for quantity, (value, unit) in quantities(record).items():
          yield Row('inference', f'{at}/{quantity}', setting, value, unit)
      else:
        yield from _over(link, record, at, setting)


def _over(link: str, record: dict[str, Any], at: str, setting: str) -> Iterator[Row]:
  """Wall seconds over a link beside what its bytes and rounds take."""
  floors = {phase: floor(record, phase, *LINKS[link]) for phase in ('offline', 'online')}
  floors['total'] = sum(floors.values())
  found = quantities(record)
  for phase, least in floors.items():
    value, unit = found[f'{phase}_s']
    yield Row('inference', f'{at}/{link}_{phase}_s', setting, value, unit, least)


def floor(record: dict[str, Any], phase: str, rtt: float, bandwidth: float) -> float:
  """Seconds that a phase of one image takes on a link where nobody computes."""
  sent = max(record['phases'][phase]['sent'].values())
  return (8 * sent / bandwidth + record['rounds'][phase] * rtt) / record['images']


def quantities(record: dict[str, Any]) -> dict[str, tuple[float, str]]:
  """Value and unit of what a joined record says of one image."""
  count = record['images']

  def total(field: str, phase: str, *parties: str, primitives: Container[str] = ()) -> float:
    return (
      sum(
        row[field]
        for row in record['rows']
        if row['phase'] == phase
        and row['party'] in parties
        and (not primitives or row['primitive'] in primitives)
      )
      / count
    )

  found = {}
  for phase in ('offline', 'online'):
    found[f'{phase}_s'] = total('wall_seconds', phase, 'client'), 's'
    found[f'{phase}_linear_s'] = (
      total('wall_seconds', phase, 'client', primitives=costs.LINEAR),
      's',
    )
    found[f'{phase}_mb'] = total('bytes', phase, 'client', 'server') / 1e6, 'MB'
    for party in ('client', 'server'):
      found[f'{phase}_cpu_{party}_s'] = total('cpu_seconds', phase, party), 'CPU s'
  found['total_s'] = found['offline_s'][0] + found['online_s'][0], 's'
  found['agree'] = record['agree'] / count, 'share'
  return found


def measure(
  mode: str, plan: str, width: float, counts: Mapping[str, int]
) -> Iterator[tuple[str, dict[str, Any]]]:
  """For every link its name and a record; `counts` says how many images go over it.

  Images go one after another. A record is both parties' ledgers, joined, with
  `images`, `agree`, and the `rounds` of each phase as the client counts them.
  """
  with serving(mode, plan, width, max(counts.values())) as server:
    for link, count in counts.items():
      ledger, agree = ledgers.Ledger(), 0
      with contextlib.ExitStack() as stack:
        address = server.address
        if link != 'loopback':
          address = stack.enter_context(channel.shaped(*LINKS[link], address))
        context = tls.client_context(server.files.certificate)
        client = stack.enter_context(clients.Client(*address, context=context, ledger=ledger))
        for image, expected in zip(server.images[:count], server.classes):
          client.prepare(1)
          agree += int(client.infer(image[None]).argmax() == expected)
      record = ledger.record()
      rounds = {phase: sums['rounds'] for phase, sums in record['phases'].items()}
      joined = ledgers.join(record, server.pipe.recv())
      yield link, joined | {'images': count, 'agree': agree, 'rounds': rounds}


class Serving(NamedTuple):
  """A server in a process of its own, and what it should answer.

  process: that of the server.
  processes: the ids of those that answer clients; usually its own alone.
  pipe: gives the server's record of every session that has ended.
  files: its certificate.
  address: host and port.
  images: random images, uint8 [N, H, W, C].
  classes: their classes by the integer model.
  """

  process: Any
  processes: list[int]
  pipe: Any
  files: tls.CertificateFiles
  address: tuple[str, int]
  images: np.ndarray
  classes: list[int]


@contextlib.contextmanager
def serving(
  mode: str, plan: str, width: float, count: int, *, processes: int = 0
) -> Iterator[Serving]:
  """A server of a random model until the end of the block.

  Args:
    mode, plan, width: of the model.
    count: of images.
    processes: with 1 or more, so many processes serve, which have no JAX. They give every
      client a place, and the pipe gives no records.
  """
  with tempfile.TemporaryDirectory() as directory:
    files = tls.insecure_test_certificate(directory)
    spawn = multiprocessing.get_context('spawn')
    ours, theirs = spawn.Pipe()
    arguments = theirs, mode, plan, width, count, files, processes
    process = spawn.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    theirs.close()
    try:
      port, ids, shape, classes = ours.recv()
      yield Serving(process, ids, ours, files, (_HOST, port), _images(count, shape), classes)
    finally:
      ours.close()
      process.join()


def _images(count: int, shape: tuple[int, ...]) -> np.ndarray:
  return np.random.default_rng(_SEED).integers(0, 256, (count, *shape), dtype=np.uint8)


def _serve(
  pipe,
  mode: str,
  plan: str,
  width: float,
  count: int,
  files: tls.CertificateFiles,
  processes: int,
) -> None:
  """The server's process: sessions until the other end of the pipe is closed."""
  model = random_model(
    architectures.build(NETWORK, width=width), plans.from_twentieths(*PLANS[plan])
  )
  classes = model.run(_images(count, model.public.input_shape)).argmax(-1).tolist()
  if processes:
    several = ServerProcesses(
      model,
      files=files,
      count=processes,
      options=servers.ServerOptions(mode=mode, sessions=_MOST, address_sessions=_MOST),
    )
    with several, contextlib.suppress(EOFError):
      pipe.send((several.address[1], several.processes, model.public.input_shape, classes))
      pipe.recv()
    return
  context = tls.server_context(*files)
  ended: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
  options = servers.ServerOptions(mode=mode)
  with servers.Server(model, context=context, options=options, on_record=ended.put) as server:
    pipe.send((server.address[1], [os.getpid()], model.public.input_shape, classes))
    threading.Thread(target=_hand_out, args=(ended, pipe), daemon=True).start()
    try:
      pipe.recv()
    except EOFError:
      return


def _hand_out(ended: queue.SimpleQueue, pipe) -> None:
  with contextlib.suppress(OSError):  # nobody reads any more
    while True:
      pipe.send(ended.get())


def random_model(net: Network, plan: plans.Plan, *, fitted: bool = False) -> FixedPointModel:
  """The network with random weights and the batch statistics of random images.

  Its polynomials are those that training starts from, or with `fitted` they are fitted to
  their inputs. A deep network needs the latter: without training, its values would not fit
  any format.
  """
  variables = net.init(jax.random.key(0))
  images = np.random.default_rng(1).integers(0, 256, (32, *net.input_shape), dtype=np.uint8)
  mean, std = (0.5,) * 3, (0.3,) * 3
  normal = data.normalise(jnp.asarray(images), mean, std)
  start = activation.initial_coefficients(activation_channels(net))
  if fitted:
    start = activation.fitted_coefficients(net, variables, normal)
  approximation = activation.approximate(plan, importance.ranks(net, variables), start)

  @jax.jit
  def update(variables):
    _, state = net.apply(variables, normal, approximation, train=True, mutable=['batch_stats'])
    return {'params': variables['params'], **state}

  for _ in range(60):
    variables = update(variables)
  return quantize.quantize(net, variables, approximation, images, mean=mean, std=std)

"""Private inference by two processes over TLS on the loopback: seconds and bytes.

Rows `<network>/<plan>/<quantity>`, in Gazelle's mode `<network>/gazelle_<plan>/<quantity>`, for one
image of 32 x 32. `offline_s`, `online_s` and `total_s` are wall seconds that the client waits,
`<phase>_linear_s` the part of them in steps of linear layers, `offline_mb` and `online_mb` what
goes both ways, `<phase>_cpu_<party>_s` CPU seconds, and `agree` the share of classes that equal
the integer model's. Weights are random: neither bytes nor time depend on them. Homomorphic
encryption runs in the server's session thread.
"""

from collections.abc import Container, Iterator, Mapping
import json
import multiprocessing
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import benchmarks
from experiments.benchmarks import Row
from safenet_jax.approximation import activation
from safenet_jax.approximation import importance
from safenet_jax.approximation import plan as plans
from safenet_jax.models import architectures
from safenet_jax.models.network import activation_channels
from safenet_jax.protocol import client as clients
from safenet_jax.protocol import ledger as ledgers
from safenet_jax.protocol import quantize
from safenet_jax.protocol import server as servers
from safenet_jax.protocol import tls
from safenet_jax.protocol.formats import FixedPointModel
from safenet_jax.report import costs

NETWORK = 'cnn7'
# Ratios in twentieths and degrees by layer.
PLANS = {
    'all_relu': ([0] * 7, [2] * 7),
    'channel_80': ([16] * 7, [2] * 7),
    'layerwise': ([20] * 5 + [0] * 2, [2] * 7),
    'all_polynomial': ([20] * 7, [2] * 7),
    'all_cubic': ([20] * 7, [3] * 7),
}
_SEED = 0
_HOST = '127.0.0.1'


def rows() -> Iterator[Row]:
  quick = benchmarks.QUICK.value
  width, count = (0.125, 1) if quick else (1.0, 4)
  cases = [('delphi', name) for name in PLANS] + [('gazelle', name) for name in list(PLANS)[:2]]
  for mode, name in cases[1:2] if quick else cases:
    record = measure(mode, name, width, count)
    setting = f'{NETWORK} at width {width:g}, {name}, {mode}, mean of {count} images, loopback, TLS'
    at = f'{NETWORK}/{"" if mode == "delphi" else f"{mode}_"}{name}'
    for quantity, (value, unit) in quantities(record).items():
      yield Row('inference', f'{at}/{quantity}', setting, value, unit)


def quantities(record: dict[str, Any]) -> dict[str, tuple[float, str]]:
  """Value and unit of what a joined record says of one image."""
  count = record['images']

  def total(field: str, phase: str, *parties: str, primitives: Container[str] = ()) -> float:
    return sum(
        row[field] for row in record['rows']
        if row['phase'] == phase and row['party'] in parties
        and (not primitives or row['primitive'] in primitives)
    ) / count

  found = {}
  for phase in ('offline', 'online'):
    found[f'{phase}_s'] = total('wall_seconds', phase, 'client'), 's'
    found[f'{phase}_linear_s'] = (
        total('wall_seconds', phase, 'client', primitives=costs.LINEAR), 's'
    )
    found[f'{phase}_mb'] = total('bytes', phase, 'client', 'server') / 1e6, 'MB'
    for party in ('client', 'server'):
      found[f'{phase}_cpu_{party}_s'] = total('cpu_seconds', phase, party), 'CPU s'
  found['total_s'] = found['offline_s'][0] + found['online_s'][0], 's'
  found['agree'] = record['agree'] / count, 'share'
  return found


def measure(mode: str, plan: str, width: float, count: int) -> dict[str, Any]:
  """Both parties' ledgers, joined, of `count` images, one after another; and `agree`."""
  with tempfile.TemporaryDirectory() as directory:
    files = tls.insecure_test_certificate(directory)
    spawn = multiprocessing.get_context('spawn')
    ours, theirs = spawn.Pipe()
    path = pathlib.Path(directory, 'server.json')
    arguments = theirs, mode, plan, width, count, files, path
    process = spawn.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    theirs.close()
    try:
      port, shape, classes = ours.recv()
      agree, context = 0, tls.client_context(files.certificate)
      with clients.Client(_HOST, port, context=context) as client:
        for image, expected in zip(_images(count, shape), classes):
          client.prepare(1)
          agree += int(client.infer(image[None]).argmax() == expected)
      record = client.ledger.record()
    finally:
      ours.close()
      process.join()
    joined = ledgers.join(record, json.loads(path.read_text()))
    return joined | {'images': count, 'agree': agree}


def _images(count: int, shape: tuple[int, ...]) -> np.ndarray:
  return np.random.default_rng(_SEED).integers(0, 256, (count, *shape), dtype=np.uint8)


def _serve(
    pipe, mode: str, plan: str, width: float, count: int, files: tls.CertificateFiles,
    path: pathlib.Path,
) -> None:
  """The server's process: one session, until the other end of the pipe is closed."""
  model = random_model(plan, width)
  classes = model.run(_images(count, model.input_shape)).argmax(-1).tolist()

  def save(record: Mapping[str, Any]) -> None:
    ledgers.save(record, path)

  context = tls.server_context(*files)
  with servers.Server(model, context=context, mode=mode, on_record=save) as server:
    pipe.send((server.address[1], model.input_shape, classes))
    try:
      pipe.recv()
    except EOFError:
      return


def random_model(plan: str, width: float) -> FixedPointModel:
  """A network with random weights and the batch statistics of random images."""
  net = architectures.build(NETWORK, width=width)
  variables = net.init(jax.random.key(0))
  approximation = activation.approximate(
      plans.make(*PLANS[plan]), importance.ranks(net, variables),
      activation.initial_coefficients(activation_channels(net)),
  )
  images = np.random.default_rng(1).integers(0, 256, (32, *net.input_shape), dtype=np.uint8)
  mean, std = (0.5,) * 3, (0.3,) * 3
  normal = jnp.asarray((images / 255 - np.array(mean)) / np.array(std), jnp.float32)

  @jax.jit
  def update(variables):
    _, state = net.apply(variables, normal, approximation, train=True, mutable=['batch_stats'])
    return {'params': variables['params'], **state}

  for _ in range(60):
    variables = update(variables)
  return quantize.quantize(net, variables, approximation, images, mean=mean, std=std)

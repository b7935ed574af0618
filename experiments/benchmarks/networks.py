"""Private inference of the paper's networks and ResNet-18, by the commands of both parties.

In every layer 60 % of the channels are squares. `safenet serve` serves a bundle and `safenet ask`
asks it, one image after another, over TLS on the loopback. Both are processes without JAX, as
they would be deployed. Weights are random: neither bytes nor time depend on them.

Rows are `<network>/channel_60/<quantity>` in the mode `delphi`, and
`<network>/channel_60/ot/<quantity>` in the mode `ot`, for one image:

- `offline_s`, `online_s`, `total_s`: seconds that the client waits;
- `offline_mb`, `online_mb`: what is sent, both ways together;
- `client_peak_mb`, `server_peak_mb`: the most memory of each process;
- `agree`: the share of classes that equal the integer model's.

With --large it has the rows of `large_networks` instead.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments import benchmarks
from experiments.benchmarks import inference, Row
from experiments.lib import large_networks, two_processes
from safenet_jax.approximation import plans
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import architectures
from safenet_jax.models.network import activation_channels

# Name and classes.
NETWORKS = {'cnn7': 10, 'vgg16': 10, 'resnet32': 100, 'resnet18': 100}
PLAN, RATIO = 'channel_60', 12
_IMAGES = 2


def rows() -> Iterator[Row]:
  if large_networks.NAMES.value:
    yield from large_networks.rows(large_networks.NAMES.value)
    return
  quick = benchmarks.QUICK.value
  width = 0.125 if quick else 1.0
  for name, classes in list(NETWORKS.items())[: 1 if quick else None]:
    network = architectures.build(name, classes=classes, width=width)
    layers = len(activation_channels(network))
    plan = plans.from_twentieths([RATIO] * layers, [2] * layers)
    model = inference.random_model(network, plan, fitted=True)
    images = np.random.default_rng(0).integers(
      0, 256, (_IMAGES, *model.public.input_shape), np.uint8
    )
    for mode, place in (('delphi', PLAN), ('ot', f'{PLAN}/ot')):
      setting = f'{name} at width {width:g}, {PLAN}, {mode}, mean of {_IMAGES} images'
      for quantity, (value, unit) in measure(model, images, mode).items():
        yield Row(
          'networks', f'{name}/{place}/{quantity}', f'{setting}, loopback, TLS', value, unit
        )


def measure(
  model: FixedPointModel, images: np.ndarray, mode: str, *, large: bool = False
) -> dict[str, tuple[float, str]]:
  """Value and unit of every quantity, of the mean of some images; `large` as for `ask`."""
  expected = model.run(images).argmax(-1).tolist()
  found = two_processes.ask(model, images, mode=mode, large=large)
  return quantities(found.ledger) | {
    'client_peak_mb': (found.ledger['memory']['peak'] / 1e6, 'MB'),
    'server_peak_mb': (found.server.peak / 1e6, 'MB'),
    'agree': (float(np.mean(np.equal(found.classes, expected))), 'share'),
  }


def quantities(record: dict[str, Any]) -> dict[str, tuple[float, str]]:
  """What a client's ledger says of one image."""
  found = {}
  for phase in ('offline', 'online'):
    sums = record['phases'][phase]
    found[f'{phase}_s'] = sums['wall_seconds'] / record['images'], 's'
    found[f'{phase}_mb'] = sums['bytes'] / 1e6 / record['images'], 'MB'
  return found | {'total_s': (found['offline_s'][0] + found['online_s'][0], 's')}

"""Private inference of networks of ImageNet's size: what it takes, and a picture that it is linear.

The rows of the suite `networks` with --large=NAME,... Every network is measured as those of that
suite are, for one image, with ReLUs everywhere and random weights. The client keeps its
preparation in a directory, as it would where memory does not hold it. Rows are
`<network>/all_relu/<mode>/<quantity>`, with those of `networks.quantities`, and

- `relus`, `macs`: of the network, ReLUs and multiplications;
- `lan_floor_s`, `wan_floor_s`: what bytes and round trips alone take over a link;
- `client_cpu_s`, `server_cpu_s`: of each process, all threads and both phases;
- `disk_mb`: of the client's preparation.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import pathlib

from absl import flags
import numpy as np

from experiments.benchmarks import Row
from experiments.lib import two_processes
from safenet_jax.approximation import plans
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import architectures, imagenet
from safenet_jax.models import layers as records
from safenet_jax.models.network import activation_channels, Network, relu_counts
from safenet_jax.protocol.estimate import links, untrained

# TinyImageNet's ResNet-18 beside those of 224 x 224.
NETWORKS = {
  'resnet18_64': functools.partial(architectures.resnet18, classes=200, input_shape=(64, 64, 3)),
} | imagenet.NETWORKS
MODES = 'delphi', 'ot'
NAMES = flags.DEFINE_list(
  'large', None, f'Measures these large networks instead, minutes each: {", ".join(NETWORKS)}.'
)


def rows(names: Sequence[str]) -> Iterator[Row]:
  """The rows of some of `NETWORKS`; ValueError for an unknown name."""
  if unknown := sorted(set(names) - set(NETWORKS)):
    raise ValueError(f'--large={",".join(unknown)}, want some of {", ".join(NETWORKS)}')
  for name in names:
    network = NETWORKS[name]()
    setting = f'{name}, ReLUs everywhere'
    yield Row('networks', f'{name}/all_relu/relus', setting, sum(relu_counts(network)), 'ReLUs')
    shapes = records.shapes(network.layers, network.input_shape)
    macs = sum(shape.macs for shape in shapes)
    yield Row('networks', f'{name}/all_relu/macs', setting, macs, 'products')
    model = _model(network)
    for mode in MODES:
      for quantity, (value, unit) in _measure(model, mode).items():
        place = f'{name}/all_relu/{mode}/{quantity}'
        yield Row('networks', place, f'{setting}, {mode}, one image, loopback, TLS', value, unit)


def _model(network: Network) -> FixedPointModel:
  """With random weights."""
  layers = len(activation_channels(network))
  return untrained.model(network, plans.from_twentieths([0] * layers, [2] * layers))


def _measure(model: FixedPointModel, mode: str) -> dict[str, tuple[float, str]]:
  """Value and unit of every quantity."""
  image = np.random.default_rng(0).integers(0, 256, (1, *model.public.input_shape), np.uint8)
  found = two_processes.ask(model, image, mode=mode, large=True)
  phases = found.ledger['phases']
  quantities = {
    f'{phase}_{unit}': (phases[phase][field] * scale, unit.rpartition('_')[2])
    for phase in ('offline', 'online')
    for field, unit, scale in (('wall_seconds', 's', 1.0), ('bytes', 'mb', 1e-6))
  }
  for link in (links.LAN, links.WAN):
    seconds = sum(
      8 * max(sums['sent'].values()) / link.bits_per_second + sums['rounds'] * link.round_trip
      for sums in (phases['offline'], phases['online'])
    )
    quantities[f'{link.name.lower()}_floor_s'] = seconds, 's'
  agree = float(found.classes == model.run(image).argmax(-1).tolist())
  return quantities | {
    'client_cpu_s': (sum(sums['cpu_seconds'] for sums in phases.values()), 's'),
    'server_cpu_s': (found.server_cpu, 's'),
    'client_peak_mb': (found.ledger['memory']['peak'] / 1e6, 'MB'),
    'server_peak_mb': (found.server.peak / 1e6, 'MB'),
    'disk_mb': (found.disk / 1e6, 'MB'),
    'agree': (agree, 'share'),
  }


def draw(found: Sequence[Row], path: pathlib.Path) -> None:
  """Draws bytes and CPU seconds of all networks against their ReLUs and multiplications, as PNG.

  Each dotted line goes through zero, nearest to its points. Networks with garbled max pools stand
  above it: each window of 9 takes 8 maxima, which no ReLU counts.
  """
  import matplotlib.figure

  values = {row.name: row.value for row in found}
  names = [name for name in NETWORKS if f'{name}/all_relu/relus' in values]
  figure = matplotlib.figure.Figure((9, 3.5), layout='constrained')
  left, right = figure.subplots(1, 2)
  for mode in MODES:
    _points(left, values, names, 'relus', mode, ('offline_mb', 'online_mb'))
    _points(right, values, names, 'macs', mode, ('client_cpu_s', 'server_cpu_s'))
  left.set(xlabel='ReLUs', ylabel='MB, both phases')
  right.set(xlabel='multiplications', ylabel='CPU seconds of both parties')
  for axes in (left, right):
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend()
  figure.savefig(path, dpi=150)


def _points(axes, values: Mapping[str, float], names, quantity: str, mode: str, parts) -> None:
  """One mode's sums of these parts with their names, and the line through zero nearest to them."""
  # Files of several runs may have measured some in one mode only.
  names = [n for n in names if all(f'{n}/all_relu/{mode}/{part}' in values for part in parts)]
  x = np.array([values[f'{name}/all_relu/{quantity}'] for name in names], float)
  y = np.array([sum(values[f'{name}/all_relu/{mode}/{part}'] for part in parts) for name in names])
  (points,) = axes.plot(x, y, 'o', label=mode)
  slope = (x @ y) / (x @ x)
  axes.plot([0, x.max()], [0, slope * x.max()], ':', color=points.get_color())
  for name, *place in zip(names, x, y):
    axes.annotate(name, place, fontsize=7)

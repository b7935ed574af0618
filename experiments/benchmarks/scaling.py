"""One network on images of several sizes, by estimate: what grows with ReLUs and multiplications.

Rows are `resnet50_<side>/<quantity>` for ResNet-50 with all its ReLUs on square images:

- `relus`, `macs`: of one image;
- `<mode>/mb`, `<mode>/s`: bytes both ways and seconds of both phases, both parties on one machine.

Nothing is run: bytes are those that a run would send, and seconds come from unit costs. A picture
beside the file has them against ReLUs, with the line through zero that is nearest.
"""

from collections.abc import Iterator, Sequence
import pathlib

import numpy as np

from experiments import benchmarks
from experiments.benchmarks import Row
from safenet_jax.approximation import plans
from safenet_jax.models import architectures, imagenet
from safenet_jax.models import layers as records
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.protocol.estimate import estimate, untrained

MODES = 'ot', 'delphi'
_SIDES = 64, 96, 128, 160, 192, 224


def rows() -> Iterator[Row]:
  if benchmarks.QUICK.value:
    yield from _rows('cnn7_16', architectures.cnn7(width=0.125, input_shape=(16, 16, 3)))
    return
  for side in _SIDES:
    yield from _rows(f'resnet50_{side}', imagenet.resnet50(input_shape=(side, side, 3)))


def _rows(name: str, network: Network) -> Iterator[Row]:
  shapes = records.shapes(network.layers, network.input_shape)
  relus = sum(shape.activations for shape in shapes)
  macs = sum(shape.macs for shape in shapes)
  yield Row('scaling', f'{name}/relus', f'{name}, one image', float(relus), 'ReLUs')
  yield Row('scaling', f'{name}/macs', f'{name}, one image', float(macs), 'multiplications')
  layers = len(activation_channels(network))
  model = untrained.model(network, plans.all_relu(layers)).public
  for mode in MODES:
    found = estimate.inference(model, mode)
    setting = f'{name}, all ReLUs, {mode}, estimated'
    sent = sum(found.bytes(phase) for phase in ('offline', 'online')) / 1e6
    seconds = sum(found.seconds(phase) for phase in ('offline', 'online'))
    yield Row('scaling', f'{name}/{mode}/mb', setting, sent, 'MB')
    yield Row('scaling', f'{name}/{mode}/s', setting, seconds, 's')


def draw(found: Sequence[Row], path: pathlib.Path) -> None:
  """Draws bytes and seconds against ReLUs and multiplications, as PNG."""
  import matplotlib.figure

  values = {row.name: row.value for row in found if row.suite == 'scaling'}
  names = list(dict.fromkeys(name.partition('/')[0] for name in values))
  figure = matplotlib.figure.Figure((9, 3.5), layout='constrained')
  panels = figure.subplots(1, 2)
  for axes, x_name, y_name, labels in zip(
    panels,
    ('relus', 'macs'),
    ('mb', 's'),
    (('ReLUs', 'MB, both phases'), ('multiplications', 'seconds, both phases')),
  ):
    x = np.array([values[f'{name}/{x_name}'] for name in names])
    for mode in MODES:
      y = np.array([values[f'{name}/{mode}/{y_name}'] for name in names])
      (points,) = axes.plot(x, y, 'o', label=mode)
      slope = (x @ y) / (x @ x)
      axes.plot([0, x.max()], [0, slope * x.max()], ':', color=points.get_color())
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
  figure.savefig(path, dpi=150)

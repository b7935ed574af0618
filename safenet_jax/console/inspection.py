"""`safenet inspect`: what a bundle is, and what one inference of it will cost."""

import argparse
from collections.abc import Iterator
import os

from safenet_jax.console import options, tables
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import layers as records
from safenet_jax.protocol.estimate import estimate as estimates
from safenet_jax.protocol.estimate import unit_costs
from safenet_jax.protocol.layers import structure
from safenet_jax.protocol.service import bundle as bundles
from safenet_jax.protocol.service import sessions

USAGE = 'BUNDLE [options]'
DESCRIPTION = (
  'Says what the model in a bundle is: its layers, which channels of an activation are '
  'garbled ReLUs and which are polynomials, its formats and outputs. Then what one private '
  'inference of one image will cost in each mode: bytes, round trips and memory, and with '
  '--costs also seconds. Nothing is run for it.'
)


def add_options(parser: argparse.ArgumentParser) -> None:
  """The options of the command."""
  parser.add_argument('bundle', type=options.text, metavar='BUNDLE', help='file of the model')
  parser.add_argument(
    '--costs',
    type=options.text,
    metavar='FILE',
    help="a machine's costs, for seconds: JSON of the benchmark's suite units",
  )


def run(arguments: argparse.Namespace) -> None:
  """Prints what the bundle is, and then what an inference costs."""
  path = os.path.expanduser(arguments.bundle)
  costs = unit_costs.load(os.path.expanduser(arguments.costs)) if arguments.costs else None
  model = bundles.load(path)
  size = os.stat(path).st_size
  amount = f'{size / 1e6:.2f} MB' if size >= 1e5 else f'{size / 1e3:.2f} kB'
  print(f'{path}: {amount}, with the weights: for its owner alone\n')
  for line in (*facts(model), '', *price(model, costs)):
    print(line)


def facts(model: FixedPointModel) -> Iterator[str]:
  """Lines of text that say what a model is: layers, input, formats, outputs."""
  public, rows = model.public, []
  for shape in records.shapes(public.layers, public.input_shape):
    garbled = polynomial = degree = ''
    if isinstance(shape.layer, records.Activation):
      form = public.activations[shape.name]
      garbled, polynomial = str(form.relu), str(form.polynomial)
      degree = str(form.degree) if form.polynomial else '-'
    rows.append([shape.name, _kind(shape.layer), _size(shape.output_shape)])
    rows[-1] += [garbled, polynomial, degree]
  yield from tables.lines(
    ['layer', 'kind', 'output', 'garbled', 'polynomial', 'degree'], rows, left=2
  )
  yield ''
  yield f'input    uint8 {_size(public.input_shape)}, {public.input_fraction} fraction bits'
  yield f'outputs  {", ".join(structure.outputs_of(public))} of {rows[-1][2]} classes'
  yield (
    f'formats  shares of {public.precision.ring} bits, logits with '
    f'{public.output_fraction} fraction bits'
  )
  widths = sorted({form.sign_bits for form in public.activations.values() if form.relu})
  if widths:
    yield f'         ReLUs take the signs of values of {_span(widths)} bits'
  chance = public.truncation_failure
  yield f'failures {f"at most {chance:.1e}" if chance else "none"} expected an inference'


def price(model: FixedPointModel, costs: unit_costs.UnitCosts | None) -> Iterator[str]:
  """Lines of text on what one inference costs in every mode; seconds too if costs are given."""
  seconds = ['s here', 's LAN', 's WAN'] if costs else []
  rows, held = [], []
  for mode in sessions.MODES:
    try:
      found = estimates.inference(model.public, mode, costs or unit_costs.DEFAULT)
    except ValueError as error:
      held.append(f'{mode}: not served, {error}')
      continue
    for phase in ('setup', 'offline', 'online'):
      parties = (f'{found.bytes(phase, party) / 1e6:.2f}' for party in ('client', 'server'))
      rounds = f'{found.record["phases"][phase]["rounds"]}'
      links = (None, estimates.LAN, estimates.WAN) if costs else ()
      rows.append([mode, phase, *parties, rounds])
      rows[-1] += [f'{found.seconds(phase, link):.2f}' for link in links]
    sizes = (f'{party} {size / 1e6:.0f} MB' for party, size in found.memory.items())
    held.append(f'{mode}: memory at most, {", ".join(sizes)}')
  yield 'one private inference of one image, for its logits; setup is once a connection'
  header = ['mode', 'phase', 'MB up', 'MB down', 'rounds', *seconds]
  yield from tables.lines(header, rows, left=2)
  yield from held
  if costs:
    yield 'seconds: of both parties, one core each, one after the other'
    yield from (str(link) for link in (estimates.LAN, estimates.WAN))


def _kind(layer: records.Layer) -> str:
  """The kind of a layer in a few words."""
  match layer:
    case records.Conv():
      stride = f', stride {layer.stride}' if layer.stride > 1 else ''
      return f'{layer.kernel}x{layer.kernel} convolution{stride}'
    case records.Dense():
      return 'fully connected'
    case records.AveragePool() | records.MaxPool():
      kind = 'maximum' if isinstance(layer, records.MaxPool) else 'mean'
      return f'{kind} of {f"{layer.window}x{layer.window}" if layer.window else "the map"}'
    case records.Gather():
      return 'chosen channels'
  return type(layer).__name__.lower()


def _size(shape: tuple[int, ...]) -> str:
  return 'x'.join(map(str, shape))


def _span(widths: list[int]) -> str:
  return str(widths[0]) if len(widths) == 1 else f'{widths[0]} to {widths[-1]}'

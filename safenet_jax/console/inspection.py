"""`safenet inspect`: what a bundle is, and what one inference of it will cost."""

import argparse
from collections.abc import Iterator
import os

from safenet_jax.console import options, tables
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import layers as records
from safenet_jax.protocol.estimate import estimate as estimates
from safenet_jax.protocol.estimate import links, unit_costs
from safenet_jax.protocol.layers import structure
from safenet_jax.protocol.service import bundle as bundles

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
  parser.add_argument(
    '--link',
    type=options.text,
    metavar='LINK',
    help='lan, wan, or RATE,RTT (bits a second, seconds): which mode is cheapest over it',
  )


def run(arguments: argparse.Namespace) -> None:
  """Prints what the bundle is, and then what an inference costs."""
  path = os.path.expanduser(arguments.bundle)
  costs = unit_costs.load(os.path.expanduser(arguments.costs)) if arguments.costs else None
  link = links.parse(arguments.link) if arguments.link else None
  model = bundles.load(path)
  size = os.stat(path).st_size
  amount = f'{size / 1e6:.2f} MB' if size >= 1e5 else f'{size / 1e3:.2f} kB'
  print(f'{path}: {amount}, with the weights: for its owner alone\n')
  for line in (*facts(model), '', *price(model, costs, link)):
    print(line)


def facts(model: FixedPointModel) -> Iterator[str]:
  """Lines of text that say what a model is: layers, input, formats, outputs."""
  public, rows = model.public, []
  for shape in records.shapes(public.layers, public.input_shape):
    garbled = polynomial = degree = ''
    if shape.name in public.activations:
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
    f'{public.output_fraction:g} fraction bits'
  )
  widths = sorted({form.sign_bits for form in public.activations.values() if form.relu})
  if widths:
    yield f'         ReLUs take the signs of values of {_span(widths)} bits'
  chance = public.truncation_failure
  yield f'failures {f"at most {chance:.1e}" if chance else "none"} expected an inference'


def price(
  model: FixedPointModel, costs: unit_costs.UnitCosts | None, link: links.Link | None = None
) -> Iterator[str]:
  """Lines of text on what one inference costs in every mode.

  Seconds too if costs or a link are given. Over a link, the last line names the cheapest mode.
  """
  found, refused = estimates.modes(model.public, costs or unit_costs.DEFAULT)
  over: dict[str, links.Link | None] = {}
  if costs:
    over = {'s here': None, 's LAN': links.LAN, 's WAN': links.WAN}
  if link:
    over['s link'] = link
  rows, held = [], []
  for mode, each in found.items():
    for phase in ('setup', 'offline', 'online'):
      parties = (f'{each.bytes(phase, party) / 1e6:.2f}' for party in ('client', 'server'))
      rows.append([mode, phase, *parties, str(each.rounds(phase))])
      rows[-1] += [f'{each.seconds(phase, way):.2f}' for way in over.values()]
    sizes = (f'{party} {size / 1e6:.0f} MB' for party, size in each.memory.items())
    held.append(f'{mode}: memory at most, {", ".join(sizes)}')
  yield 'one private inference of one image, for its logits; setup is once a connection'
  yield from tables.lines(['mode', 'phase', 'MB up', 'MB down', 'rounds', *over], rows, left=2)
  yield from held
  if not link:
    yield from (f'{mode}: not served, {reason}' for mode, reason in refused.items())
  if over:
    yield 'seconds: of both parties, one core each, one after the other'
    yield from (str(way) for way in over.values() if way)
  if link:
    yield from estimates.verdict(found, refused, link)


def _kind(layer: records.Layer) -> str:
  """The kind of a layer in a few words."""
  match layer:
    case records.Conv():
      stride = f', stride {layer.stride}' if layer.stride > 1 else ''
      groups = f', {layer.groups} groups' if layer.groups > 1 else ''
      return f'{layer.kernel}x{layer.kernel} convolution{stride}{groups}'
    case records.Dense():
      return 'fully connected'
    case records.AveragePool() | records.MaxPool():
      kind = 'maximum' if isinstance(layer, records.MaxPool) else 'mean'
      stride = f', stride {layer.stride}' if layer.stride else ''
      return f'{kind} of {f"{layer.window}x{layer.window}" if layer.window else "the map"}{stride}'
    case records.Activation(limit=limit, slope=slope):
      limited = f', at most {limit:g}' if limit is not None else ''
      return f'activation{limited}{f", slope {slope:g}" if slope else ""}'
    case records.Gather():
      return 'chosen channels'
    case records.Truncate():
      return f'without {layer.shift} low bits'
  return type(layer).__name__.lower()


def _size(shape: tuple[int, ...]) -> str:
  return 'x'.join(map(str, shape))


def _span(widths: list[int]) -> str:
  return str(widths[0]) if len(widths) == 1 else f'{widths[0]} to {widths[-1]}'

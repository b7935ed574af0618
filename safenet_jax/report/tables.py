"""Tables of a run as Markdown."""

from collections.abc import Sequence
from typing import Any

import jax

from safenet_jax.approximation import plans
from safenet_jax.models import layers as records
from safenet_jax.models.network import Network

# Of a private inference, and what their costs are of.
_COSTS_OF = {
  'setup': 'one connection',
  'offline': 'one private inference',
  'online': 'one private inference',
}


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """A Markdown table."""
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines) + '\n'


def size(count: float) -> str:
  """Bytes as a short text."""
  return f'{count / 1e6:.2f} MB' if count >= 1e5 else f'{count / 1e3:.2f} kB'


def test_accuracy(evaluations: Sequence[dict[str, Any]], phase: str) -> str:
  """A phase's accuracy on the test images, from evaluations.json; says if they were seen before."""
  found = [r for r in evaluations if (r['phase'], r['split']) == (phase, 'test')]
  if not found:
    return 'not run'
  marked = f' (test images scored {len(found)} times)' if len(found) > 1 else ''
  return f'{found[-1]["accuracy"]:.2%}{marked}'


def _thin(thin: dict[str, Any] | None, evaluations) -> list[tuple[str, str]]:
  name = 'thin all-ReLU network'
  if thin is None:
    return [(name, 'not run')]
  relus = f'{sum(thin["activations"]):,} where the plan leaves {thin["budget"]:,}'
  return [
    (f'{name}, ReLUs', f'{relus} (width {thin["width"]:.4g})'),
    (f'{name}, accuracy (validation, same training steps)', f'{thin["validation_accuracy"]:.2%}'),
    (f'{name}, accuracy (test)', test_accuracy(evaluations, 'thin')),
  ]


def summary(
  plan: dict[str, Any],
  ledger: dict[str, Any] | None,
  evaluations: Sequence[dict[str, Any]] = (),
  thin: dict[str, Any] | None = None,
) -> list[tuple[str, str]]:
  """What a run achieved, as (quantity, value).

  Args:
    plan, evaluations, thin: contents of the JSON files of these names, where there are any.
    ledger: as `costs.inference` gives it; None if there was no private inference.
  """
  total = sum(plan['activations'])
  pruned = sum(r for r, d in zip(plan['replaced'], plan['degree']) if d == 0)
  polynomial = sum(plan['replaced']) - pruned
  accuracy, wanted = plan['validation_accuracy'], plan.get('threshold')
  verdict = 'not checked'
  if wanted:
    met = 'met' if wanted['feasible'] else 'MISSED'
    verdict = f'{wanted["accuracy"]:.2%}: {met} after fine-tuning'
  rows = [
    ('all-ReLU accuracy (validation, same training steps)', f'{accuracy["control"]:.2%}'),
    ('planned accuracy (validation)', f'{accuracy["planned"]:.2%}'),
    ('accuracy wanted, A_t (validation)', verdict),
    ('planned accuracy (test)', test_accuracy(evaluations, 'finetune')),
    ('ReLUs replaced', f'{sum(plan["replaced"]) / total:.1%} of {total:,}'),
    ('- by polynomials', f'{polynomial / total:.1%}'),
    ('- pruned', f'{pruned / total:.1%}'),
    *_thin(thin, evaluations),
  ]
  if ledger is None:
    return [*rows, ('one private inference', 'not run')]
  for phase in _COSTS_OF:
    if phase in ledger['phases']:
      sums = ledger['phases'][phase]
      cost = f'{size(sums["bytes"])}, {sums["wall_seconds"]:.3f} s'
      # Offline, the simulator's dealer hands both parties what they need, and there are no rounds.
      rounds = f', {sums["rounds"]:g} rounds' if phase == 'online' else ''
      rows.append((f'{_COSTS_OF[phase]}, {phase}', cost + rounds))
  rows += [
    ('private class equals plaintext fixed point', f'{ledger["agreement"]} of {ledger["images"]}'),
    ('private class equals label', f'{ledger["correct"]} of {ledger["images"]}'),
  ]
  return rows


def layers(plan: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
  """Header and rows of the per-layer plan."""
  header = ['layer', 'activations', 'ratio', 'degree', 'replaced', 'channels replaced']
  rows = []
  for t, (count, ratio, degree, replaced, channels) in enumerate(
    zip(plan['activations'], plan['ratio'], plan['degree'], plan['replaced'], plan['channels'])
  ):
    rows.append(
      [
        t + 1,
        f'{count:,}',
        f'{ratio / plans.GRID:.0%}',
        degree if replaced else '-',
        f'{replaced:,}',
        f'{replaced * channels // count} of {channels}',
      ]
    )
  return header, rows


def architecture(network: Network) -> tuple[list[str], list[list[str]]]:
  """Header and rows of a network's layers; the last row holds the totals."""
  shapes = records.shapes(network.layers, network.input_shape)
  params = jax.eval_shape(network.init, jax.random.key(0))['params']
  sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in params.items()}
  counts = [
    (sizes.get(shape.name, 0) + sizes.get(f'{shape.name}_bn', 0), shape.macs, shape.activations)
    for shape in shapes
  ]
  totals = [sum(column) for column in zip(*counts)]

  def numbers(parameters, macs, activations):
    share = activations / totals[2] if totals[2] else 0.0
    texts = [f'{count:,}' if count else '' for count in (parameters, macs, activations)]
    return [*texts, f'{share:.1%}' if activations else '']

  header = ['layer', 'kind', 'output', 'parameters', 'MACs', 'activations', 'share']
  rows = [
    [shape.name, _kind(shape.layer), 'x'.join(map(str, shape.output_shape)), *numbers(*count)]
    for shape, count in zip(shapes, counts)
  ]
  return header, [*rows, ['total', '', '', *numbers(*totals)]]


def _kind(layer: records.Layer) -> str:
  """A record's options in a few words."""
  norm = ', bn' if getattr(layer, 'batch_norm', False) else ''
  match layer:
    case records.Conv(kernel=kernel, stride=stride, groups=groups):
      found = f'{kernel}x{kernel}' + (f', stride {stride}' if stride > 1 else '')
      return found + (f', {groups} groups' if groups > 1 else '') + norm
    case records.Dense():
      return norm.removeprefix(', ')
    case (
      records.AveragePool(window=window, stride=stride)
      | records.MaxPool(window=window, stride=stride)
    ):
      kind = f'{window}x{window}' if window else 'whole map'
      return kind + (f', stride {stride}' if stride else '')
    case records.PadShortcut(stride=stride):
      return f'zeros, stride {stride}'
  return ''


def bytes_by_layer(ledger: dict[str, Any], phase: str, names: Sequence[str]) -> list[int]:
  """Bytes of one phase for each of the named layers."""
  sums = dict.fromkeys(names, 0)
  for row in ledger['rows']:
    if row['phase'] == phase:
      sums[row['layer']] += row['bytes']
  return list(sums.values())


def costs(ledger: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
  """Header and rows of bytes and seconds by phase and primitive."""
  sums: dict[tuple[str, str, str], list[float]] = {}
  for row in ledger['rows']:
    entry = sums.setdefault((row['phase'], row['primitive'], row['party']), [0, 0, 0.0])
    for i, field in enumerate(('bytes', 'messages', 'wall_seconds')):
      entry[i] += row[field]
  header = ['phase', 'primitive', 'party', 'bytes', 'messages', 'seconds']
  return header, [
    [
      *key,
      size(entry[0]) if entry[0] else '-',
      f'{entry[1]:.10g}' if entry[1] else '-',
      f'{entry[2]:.4f}' if entry[2] else '-',
    ]
    for key, entry in sums.items()
  ]

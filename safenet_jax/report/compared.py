"""The systems that `experiments.systems` ran: a table, a picture, and a phrase for Table 1."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from safenet_jax import json_files
from safenet_jax.report import costs, figures, tables
from safenet_jax.report import runs as runs_lib
from safenet_jax.report.document import Block, NOTHING, Picture, Table, Text
from safenet_jax.report.runs import Run

Record = Mapping[str, Any]

_NAMES = {'TAPAS, SHE': ('TAPAS', 'SHE')}
# Data sets of runs as records name them.
_DATASETS = {'fashion_mnist': 'Fashion-MNIST', 'cifar10': 'CIFAR-10', 'cifar100': 'CIFAR-100'}
_HEADER = (
  'system',
  'network',
  'images of',
  'test %',
  'offline (s)',
  'online (s)',
  'online, each image (s)',
  'CPU of both (s)',
  'sent',
  'rounds',
  'as plaintext',
  'beyond the result',
)


def load(directory: pathlib.Path) -> list[Record]:
  """The records of a directory of `experiments.systems`, by file name; others are left out."""
  found = [json_files.read(path) for path in sorted(directory.glob('*.json'))]
  return [record for record in found if 'system' in record]


def phrase(system: str, records: Sequence[Record]) -> str:
  """What was measured of a system of Table 1, '' for nothing."""
  found = []
  for record in records:
    if system not in _NAMES.get(record['system'], (record['system'],)):
      continue
    accuracy = f'{100 * record["accuracy"]:.1f} % on {record["dataset"]}'
    if 'gates' in record:
      cost = f'modelled, {record["modelled_cpu_seconds"]:,.0f} s of CPU'
    else:
      seconds = record['seconds']
      cost = f'{seconds["offline"]:.2f} s offline, {seconds["online"]:.2f} s online'
      if record['images'] > 1:
        cost += f' for {record["images"]:,} images'
    found.append(f'{record["network"]}: {accuracy}, {cost}')
  return '; '.join(found)


def blocks(records: Sequence[Record], runs: Sequence[Run]) -> list[Block]:
  """The table and the picture; none without records."""
  if not records:
    return []
  return [
    Text(
      'The systems below ran whole on one machine, two processes over TLS each, and were compared '
      'with plaintext integers. What the phrase “beyond the result” names is what the client '
      'learns besides the logits. TAPAS and SHE are modelled: gates counted here, times the '
      'measured time of one bootstrapped gate.'
    ),
    table(records),
    Picture(
      'systems_accuracy', 'Test accuracy against seconds an image', _draw(records, runs), (7.4, 4.4)
    ),
  ]


def table(records: Sequence[Record]) -> Table:
  """A row for each network."""
  return Table('systems', 'Other systems, measured here', _HEADER, [_row(r) for r in records])


def _row(record: Record) -> list[str]:
  head = [record['system'], record['network'], record['dataset'], f'{100 * record["accuracy"]:.1f}']
  if 'gates' in record:
    cost = f'modelled: {record["modelled_cpu_seconds"]:,.0f}'
    gates = f'{record["gates"]:,} gates'
    return [*head, NOTHING, NOTHING, NOTHING, cost, NOTHING, '1', gates, 'shape of the network']
  phases, seconds, images = record['ledger']['phases'], record['seconds'], record['images']
  online = f'{seconds["online"]:.2f}' + (f' for {images:,} images' if images > 1 else '')
  return [
    *head,
    f'{seconds["offline"]:.2f}',
    online,
    f'{seconds["online"] / images:.3g}',
    f'{sum(phase["cpu_seconds"] for phase in phases.values()):.1f}',
    tables.size(sum(phase['bytes'] for phase in phases.values())),
    str(sum(phase['rounds'] for phase in phases.values())),
    f'{record["agreement"]:,} of {record["checked"]:,}',
    record['shown'],
  ]


def _draw(records: Sequence[Record], runs: Sequence[Run]) -> figures.Draw:
  points = []
  for record in records:
    name = f'{record["system"]} {record["network"].partition(":")[0].partition(",")[0]}'
    if 'gates' in record:
      points.append((f'{name} (modelled)', record['dataset'], record['modelled_cpu_seconds']))
    else:
      if record['images'] > 1:
        name += f' (each of {record["images"]:,})'
      points.append((name, record['dataset'], record['seconds']['online'] / record['images']))
  accuracies = [100 * record['accuracy'] for record in records]
  for run in runs:
    measured, accuracy = costs.of_run(run), runs_lib.best_accuracy(run)
    if measured and accuracy and 'online' in measured[1]:
      dataset = _DATASETS.get(run.dataset, run.dataset)
      points.append((run.name, dataset, measured[1]['online'].seconds))
      accuracies.append(100 * accuracy[0])

  def draw(axes):
    return figures.accuracy_against_seconds(axes, points, accuracies)

  return draw

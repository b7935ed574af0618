"""Accuracy against the number of ReLUs left: the paper's, later results, and ours."""

from collections.abc import Sequence
import math

from safenet_jax.report import paper_figures, published
from safenet_jax.report import runs as runs_lib
from safenet_jax.report.document import Block, Heading, NOT_RUN, NOTHING, Picture, Table, Text
from safenet_jax.report.paper_figures import Reached
from safenet_jax.report.runs import Run

DATASETS = ('cifar10', 'cifar100')


def reached(runs: Sequence[Run], dataset: str) -> list[Reached]:
  """Where the runs on a data set ended; all-ReLU runs only at full size, which says their ReLUs."""
  found = []
  for run in runs:
    accuracy = runs_lib.best_accuracy(run)
    if run.dataset != dataset or accuracy is None:
      continue
    if run.plan:
      left = sum(run.plan['activations']) - sum(run.plan['replaced'])
    elif run.network in runs_lib.FULL_SIZE and run.is_full_size(run.network, dataset):
      left = runs_lib.FULL_SIZE[run.network]
    else:
      continue
    found.append(Reached(f'{run.title}, {run.algorithm}', left, *accuracy))
  return found


def blocks(runs: Sequence[Run]) -> list[Block]:
  """A figure and a table of each data set that others have published for."""
  found: list[Block] = [
    Heading(2, 'Accuracy against ReLUs left'),
    Text(
      'Later results keep single ReLUs of wider networks and make the others linear or '
      'polynomials. Networks, training and budgets differ; results on other images than these '
      'are in the table of runs.'
    ),
  ]
  for dataset in DATASETS:
    later, ours = published.later(dataset), reached(runs, dataset)
    found += [
      _picture(dataset, [row for row in later if row.traced], ours),
      _table(dataset, later, ours),
    ]
  return found


def _picture(dataset: str, later: Sequence[published.Later], ours: Sequence[Reached]) -> Picture:
  return Picture(
    f'accuracy_{dataset}',
    f'Accuracy against ReLUs left, {dataset}',
    lambda axes: paper_figures.accuracy_at_budget(axes, later, ours),
    (6.4, 4.6),
  )


def _table(dataset: str, later: Sequence[published.Later], ours: Sequence[Reached]) -> Table:
  rows: list[tuple[float, list[str]]] = [
    (
      row.relus,
      [
        f'{row.relus:,}',
        row.system or 'unknown',
        row.network or NOTHING,
        f'{row.accuracy:g}',
        NOTHING,
        row.source + (f' ({row.note})' if row.note else ''),
      ],
    )
    for row in later
  ]
  rows += [
    (
      run.relus,
      [
        f'{run.relus:,}',
        run.label,
        NOTHING,
        NOTHING,
        f'{100 * run.accuracy:.2f}',
        f'this report, {run.split} images',
      ],
    )
    for run in ours
  ]
  if not ours:
    rows.append((math.inf, [NOTHING, 'safenet_jax', NOTHING, NOTHING, NOT_RUN, 'this report']))
  header = ('ReLUs left', 'system', 'network', 'published (%)', 'measured (%)', 'source')
  ordered = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
  title = f'Accuracy at a ReLU budget, {dataset}'
  return Table(f'accuracy_{dataset}_table', title, header, ordered)

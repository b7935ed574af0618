"""The paper's figures as blocks of the report.

They show the values that the paper's text names, what its cost model says, and our runs.
The last figure is not the paper's: accuracy against the number of ReLUs left, with results
that others published later. `paper_drawings` draws them all.
"""

from collections.abc import Sequence
import functools
import math
import re

from safenet_jax.approximation import plans
from safenet_jax.models import architectures
from safenet_jax.models import network as networks
from safenet_jax.report import paper_drawings, published, sweeps
from safenet_jax.report import runs as runs_lib
from safenet_jax.report.document import Block, Heading, NOT_RUN, NOTHING, Picture, Table, Text
from safenet_jax.report.paper_drawings import Planned, Reached
from safenet_jax.report.runs import Run
from safenet_jax.search import pbt, score
from safenet_jax.search.planners import btpbt

# Data sets for which others have published later results.
BUDGET_DATASETS = ('cifar10', 'cifar100')


def breakdown(runs: Sequence[Run]) -> list[Block]:
  """Figure 1b: what the cost model says when the last k layers are replaced, and accuracies."""
  printed = {row.system: row.seconds for row in published.tables() if row.table == 2}
  counts = networks.relu_counts(architectures.cnn7(pool_before_activation=True))
  total = len(counts)
  replaced = [sum(counts[total - k :]) / sum(counts) for k in range(total + 1)]
  saved = score.PUBLISHED.reduction()[plans.DEGREES.index(2)]
  linear = [printed['delphi']['offline_he_linear_s']] * len(replaced)
  offline, online = (
    [(1 - share * saved) * printed['gazelle'][f'{phase}_mpc_act_s'] for share in replaced]
    for phase in ('offline', 'online')
  )
  named = {
    int(value.series.split()[0]): value.value / 100
    for value in published.named('1b')
    if value.quantity == 'accuracy'
  }
  accuracies = {'published (6L: at least)': named}
  for run in runs:
    found = layerwise_accuracy(run)
    if found:
      accuracies[f'measured, {run.title} ({run.name})'] = found
  picture = Picture(
    'figure_1b',
    'Figure 1b: latency of CNN-7 with its last layers replaced, and accuracy',
    lambda axes: paper_drawings.latency_breakdown(
      axes,
      range(total + 1),
      replaced,
      linear,
      offline,
      online,
      accuracies,
    ),
    (6.4, 4.6),
  )
  measured = any(source.startswith('measured') for source in accuracies)
  return [
    picture,
    Text(
      'Seconds come from the published cost model applied to Table 2. Shares are those of a '
      'network that pools before its activations: there, the last six layers have 41 % of the '
      'activations, as the paper’s text says. For the first bar, the text says that activations '
      'take 72.5 % of the latency. '
      + ('' if measured else 'Measured accuracy: not run (`search.algorithm=layerwise`, CNN-7).')
    ),
  ]


def layerwise_accuracy(run: Run) -> dict[int, float]:
  """Validation accuracy of CNN-7 by the number of last layers replaced, from a search's log."""
  if run.network != 'cnn7' or run.config.get('search', {}).get('algorithm') != 'layerwise':
    return {}
  found = {}
  start = runs_lib.accuracy(run, 'pretrain')
  if start:
    found[0] = start[0]
  for cycle in run.log('search'):  # a later cycle takes an earlier one's place: it trained longer
    for ratio, accuracy in zip(cycle['ratio'], cycle['accuracy']):
      k = ratio.count(plans.GRID)
      if ratio == [0] * (len(ratio) - k) + [plans.GRID] * k:
        found[k] = accuracy
  return found


def neuron_ratio() -> list[Block]:
  """Figure 2: where the activations of CNN-7 are, with its pools after or before them."""
  counts = {}
  for before in (True, False):
    mine = networks.relu_counts(architectures.cnn7(pool_before_activation=before))
    counts[f'pools {"before" if before else "after"} activations ({sum(mine):,})'] = mine
  return [
    Picture(
      'figure_2',
      'Figure 2: share of every layer in the activations of CNN-7',
      lambda axes: paper_drawings.neuron_ratio(axes, counts, published.named('2')),
    )
  ]


def learning_curves(runs: Sequence[Run]) -> list[Block]:
  """Figure 4b: a picture of each network and data set that was searched."""
  named = published.named('4b')
  groups: dict[tuple, list[Run]] = {}
  for run in runs:
    if run.plan and run.log('search'):
      groups.setdefault((run.title, tuple(run.plan['activations'])), []).append(run)
  if not groups:
    return [_curves('figure_4b', 'not run', [], named)]
  found: list[Block] = []
  for (title, counts), mine in groups.items():
    channels = mine[0].plan['channels']  # type: ignore[index]
    sizes = score.Activations(counts, tuple(channels))
    curves = sweeps.curves(
      [
        # Runs of a sweep are told apart by what it sets; others are never seeds of one.
        (
          run.overrides or {'search.algorithm': run.algorithm, 'run': run.name},
          run.config['search'],
          run.log('search'),
        )
        for run in mine
      ],
      sizes,
    )
    slug = re.sub(r'\W+', '_', title)
    found.append(_curves(f'figure_4b_{slug}', title, curves, named))
  return found


def _curves(name: str, title: str, curves, named) -> Picture:
  return Picture(
    name,
    f'Figure 4b: activations that the best feasible member replaces, {title}',
    lambda axes: paper_drawings.approximation_ratio(axes, curves, named),
    (6.4, 4.6),
  )


def ablations(runs: Sequence[Run]) -> list[Block]:
  """Figure 5: a picture of each of the paper's networks, and of others that were searched."""
  found: list[Block] = []
  known = list(dict.fromkeys(['cnn7', 'vgg16', *(run.network for run in runs if run.plan)]))
  for network in known:
    named = published.named('5', network)
    drawn = known_plans(network) + [_planned(run) for run in _one_of_each(runs, network)]
    totals = {
      f'{v.series} (paper): {v.value:g} % in all': v.value / 100
      for v in named
      if not any(plan.published and plan.label.startswith(v.series) for plan in drawn)
    }
    letter = {'cnn7': 'Figure 5a: ', 'vgg16': 'Figure 5b: '}.get(network, '')
    found.append(
      Picture(
        f'figure_5_{network}',
        f'{letter}channels that plans for {network} replace; crosses are '
        'pruned, triangles of degree 2, squares of degree 3',
        functools.partial(paper_drawings.ablation, plans=drawn, totals=totals),
        (6.4, 4.6 if drawn else 2.6),
      )
    )
  return found


def known_plans(network: str) -> list[Planned]:
  """The plans that the paper's text gives layer by layer: two for CNN-7, none for others."""
  if network != 'cnn7':
    return []
  return [
    Planned('Delphi (paper): ~41 % in all', [0.0] + [1.0] * 6, [2] * 7, True),
    Planned('CW (paper): 50 % in all', [0.5] * 7, [2] * 7, True),
  ]


def _one_of_each(runs: Sequence[Run], network: str) -> list[Run]:
  """The first run of every algorithm, network and data set."""
  first: dict[tuple[str, str], Run] = {}
  for run in runs:
    if run.plan and run.network == network:
      first.setdefault((run.algorithm, run.title), run)
  return list(first.values())


def _planned(run: Run) -> Planned:
  plan = run.plan or {}
  share = runs_lib.replaced_share(plan)
  return Planned(
    f'{run.algorithm}, {run.title}: {share:.0%} in all',
    [ratio / plans.GRID for ratio in plan['ratio']],
    plan['degree'],
  )


def search_order() -> list[Block]:
  """Figure 6: PBT and BTPBT on a network of four layers, drawn from this package's schedules."""
  searches = {'PBT': pbt.schedule(4, 1), 'BTPBT': btpbt.schedule(4, 1, 1)}
  return [
    Picture(
      'figure_6',
      'Figure 6: PBT and BTPBT on a network of four layers; joined layers share a ratio '
      'and a degree',
      lambda axes: paper_drawings.search_order(axes, searches),
      (6.4, 3.4),
    )
  ]


def reached(runs: Sequence[Run], dataset: str) -> list[Reached]:
  """Where the runs on a data set ended.

  All-ReLU runs are taken at full size only, because otherwise their ReLUs are not known here.
  """
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


def accuracy_at_budget(runs: Sequence[Run]) -> list[Block]:
  """A figure and a table of each data set that others have published for."""
  found: list[Block] = [
    Heading(2, 'Accuracy against ReLUs left'),
    Text(
      'Later results keep single ReLUs of wider networks and make the others linear or '
      'polynomials. Networks, training and budgets differ; results on other images than these '
      'are in the table of runs.'
    ),
  ]
  for dataset in BUDGET_DATASETS:
    later, ours = published.later(dataset), reached(runs, dataset)
    found += [
      _budget_picture(dataset, [row for row in later if row.traced], ours),
      _budget_table(dataset, later, ours),
    ]
  return found


def _budget_picture(
  dataset: str, later: Sequence[published.Later], ours: Sequence[Reached]
) -> Picture:
  return Picture(
    f'accuracy_{dataset}',
    f'Accuracy against ReLUs left, {dataset}',
    lambda axes: paper_drawings.accuracy_at_budget(axes, later, ours),
    (6.4, 4.6),
  )


def _budget_table(dataset: str, later: Sequence[published.Later], ours: Sequence[Reached]) -> Table:
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

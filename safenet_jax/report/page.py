"""The report: what the paper prints beside what its cost model says and what was measured."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from safenet_jax.report import (
  compared,
  costs,
  document,
  measurements,
  one_run,
  paper_figures,
  paper_tables,
  published,
  tables,
)
from safenet_jax.report import runs as runs_lib
from safenet_jax.report.document import Block, Details, Heading, NOT_RUN, NOTHING, Table, Text
from safenet_jax.report.runs import Run

INTRODUCTION = (
  'Published is what others print. Modelled is the published cost model (20.1 µs a ReLU, 0.2 µs '
  'degree 3, 0.105 µs degree 2, nothing for a pruned channel) applied to plans found here. '
  'Measured is what ran here: seconds and bytes from ledgers, accuracy on the images that are '
  'named. A cell says “not run” where a run would fill it, and “–” where nothing could.'
)


def write(
  directory: pathlib.Path,
  runs: Sequence[Run],
  benchmarks: Mapping[str, Mapping[str, Any]],
  others: Sequence[Mapping[str, Any]] = (),
) -> None:
  """Writes report.md, report.html and the folder `report` of pictures and csv files.

  Args:
    directory: where to, made if need be.
    runs: of one or several workdirs.
    benchmarks: files of `experiments.benchmark` by name.
    others: records of `experiments.systems` (`compared.load`).
  """
  title = runs[0].title if len(runs) == 1 else 'SAFENet: published, modelled, measured'
  document.write(directory, title, blocks(runs, benchmarks, others))


def blocks(
  runs: Sequence[Run],
  benchmarks: Mapping[str, Mapping[str, Any]],
  others: Sequence[Mapping[str, Any]] = (),
) -> list[Block]:
  """All blocks of the report, from what `write` takes."""
  rows = [row for file in benchmarks.values() for row in file['rows']]
  return [
    Text(INTRODUCTION),
    *_runs(runs),
    *_fixed_point(runs),
    Heading(2, 'Systems'),
    paper_tables.systems(runs, rows, others),
    *compared.blocks(others, runs),
    Heading(2, 'Latency and accuracy'),
    Text(
      'Modelled MPC-Act is Gazelle’s printed cell times the share of time that the cost model '
      'leaves a plan, so that Gazelle itself is not modelled; linear layers are Delphi’s printed '
      'cells, as the model says nothing of them. Only runs of the paper’s networks at full size on '
      'its images fill these tables.'
    ),
    *(paper_tables.latency(number, runs, rows) for number in (2, 3, 4)),
    Text(
      'The paper claims 61, 48 and 47 % less latency for SAFENet; its tables have that much '
      'less than Gazelle. Measured on one machine the savings are smaller, or none: a garbled '
      'ReLU takes a fraction of 20.1 µs here, so that most of the time is in linear layers and '
      'in preparing polynomials. What replaced ReLUs save is traffic, and with it seconds over '
      'a slow network.'
    ),
    Table(
      'slips',
      'Where the paper does not agree with itself',
      published.Slip._fields,
      published.slips(),
    ),
    Heading(2, 'Figures'),
    Text(
      'The paper publishes no data of its figures. Values drawn as published are those that its '
      'text, captions or legends name.'
    ),
    *paper_figures.breakdown(runs),
    *paper_figures.neuron_ratio(),
    *paper_figures.learning_curves(runs),
    *paper_figures.ablations(runs),
    *paper_figures.search_order(),
    *paper_figures.accuracy_at_budget(runs),
    *measurements.blocks(benchmarks),
  ]


def _runs(runs: Sequence[Run]) -> list[Block]:
  if len(runs) == 1:
    return [Heading(2, f'Run {runs[0].name}'), *one_run.blocks(runs[0])]
  return [
    Heading(2, 'Runs'),
    _summary(runs),
    *(Details(f'{run.name}: {runs_lib.result(run)}', one_run.blocks(run, 4)) for run in runs),
  ]


def _summary(runs: Sequence[Run]) -> Table:
  header = (
    'run',
    'network',
    'plan',
    'ReLUs left',
    'replaced',
    'accuracy',
    'all-ReLU control',
    'A_t',
    'activations, modelled (s)',
    'online, measured',
  )
  rows = []
  for run in runs:
    found, plan = runs_lib.best_accuracy(run), run.plan
    accuracy = f'{found[0]:.2%} ({found[1]})' if found else NOT_RUN
    cells = [NOT_RUN] * 2 + [accuracy] + [NOT_RUN] * 2 + [NOT_RUN]
    if plan:
      left = sum(plan['activations']) - sum(plan['replaced'])
      wanted = plan.get('threshold')
      cells = [
        f'{left:,}',
        f'{runs_lib.replaced_share(plan):.1%}',
        accuracy,
        f'{plan["validation_accuracy"]["control"]:.2%} (validation)',
        NOTHING if not wanted else 'met' if wanted['feasible'] else 'MISSED',
        f'{runs_lib.seconds_of(plan):.3g}',
      ]
    measured = costs.of_run(run)
    online = NOT_RUN
    if measured and 'online' in measured[1]:
      cost = measured[1]['online']
      online = f'{cost.seconds:.3f} s, {tables.size(cost.bytes)} ({measured[0]})'
    rows.append([run.name, run.title, run.algorithm, *cells, online])
  return Table('runs', 'What was run', header, rows)


def _fixed_point(runs: Sequence[Run]) -> list[Block]:
  """What the served arithmetic costs, of all runs; nothing if there is no plan."""
  planned = [run for run in runs if run.plan]
  if not planned:
    return []
  return [
    Heading(2, 'Fixed point'),
    Text(
      'A network is served in fixed point. Here are all test images in the clear, in float and in '
      'these integers. “Left” counts images of which a value left its format in some activation '
      'layer, “distrusted” those whose logits show it, so that a checked class is -1, and “missed” '
      'those that left and are not distrusted. “Failures” are the expected failures of local '
      'truncation of one image. “Private” says for how many images the class of a private '
      'inference, by two processes or simulated, was that of the integers.'
    ),
    Table(
      'fixed_point',
      'All test images in float and in fixed point',
      (
        'run',
        'network',
        'replaced',
        'images',
        'float right',
        'integers right',
        'classes equal',
        'left',
        'distrusted',
        'missed',
        'failures',
        'private',
      ),
      [_fixed_point_row(run) for run in planned],
    ),
  ]


def _fixed_point_row(run: Run) -> list[str]:
  assert run.plan
  found = run.fixed_point
  names = ('images', 'float_correct', 'correct', 'agreement', 'left', 'distrusted', 'missed')
  cells = [f'{found[name]:,}' for name in names] if found else [NOT_RUN] * len(names)
  failures = f'{found["truncation_failure"]:.1e}' if found else NOT_RUN
  private = [
    f'{ledger["agreement"]:,} of {ledger["images"]:,}{how}'
    for ledger, how in ((run.client, ''), (run.ledger, ' simulated'))
    if ledger and 'agreement' in ledger
  ]
  replaced = f'{runs_lib.replaced_share(run.plan):.1%}'
  return [run.name, run.title, replaced, *cells, failures, '; '.join(private) or NOT_RUN]

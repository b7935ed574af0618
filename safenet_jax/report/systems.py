"""Table 1: the systems that the paper compares, what each offers, and what runs here."""

from collections.abc import Mapping, Sequence
from typing import Any

from safenet_jax.report import costs, published
from safenet_jax.report import runs as runs_lib
from safenet_jax.report.document import NOT_RUN, NOTHING, Table
from safenet_jax.report.runs import Run

MARKS = {True: '✓', False: '✗', None: NOTHING}
HERE = {
  'TAPAS': 'nothing: no binary networks, no TFHE',
  'Gazelle': '`serve --mode=gazelle`: linear layers homomorphic online',
  'NASS': 'nothing: no architecture search',
  'CONAD': '`search.algorithm=partial`: one given ratio in all layers',
  'Delphi': 'its protocol in `serve`; its planners `layerwise`, `layerwise_fast` and '
  '`layerwise_released`',
  'CryptoNAS': '`search.algorithm=budget`: its ReLU budget, on a given architecture',
  'InstaHide': 'nothing: no encryption',
  'SAFENet': '`btpbt` (`cw_mp_md`), and with less of it `cw_mp` and `cw`',
  'MiniONN': 'its network, `cnn7`; not its protocol',
  'CryptoNets': 'plans without any ReLU (`finetune --plan`), in the same protocol',
  'XONN': 'nothing: no binary networks',
  'SHE': 'nothing: no TFHE',
  'Soteria': 'nothing: no binary networks',
  'TextHide': 'nothing: no encryption',
}
# Whose plans the runs of an algorithm are.
ALGORITHMS = {
  'Gazelle': ('all-ReLU',),
  'CONAD': ('partial',),
  'Delphi': ('layerwise', 'layerwise_fast', 'layerwise_released'),
  'CryptoNAS': ('budget',),
  'SAFENet': ('btpbt', 'cw_mp_md', 'cw_mp', 'cw'),
}
# Rows of the suite inference that are a system's own way.
BENCHMARKS = {'Gazelle': ('cnn7/gazelle_all_relu',), 'Delphi': ('cnn7/all_relu', 'cnn7/layerwise')}
# Runs that a cell lists at most.
LONGEST = 4


def table(runs: Sequence[Run], benchmark: Sequence[Mapping[str, Any]] = ()) -> Table:
  """Table 1 with every system of the paper, those that only its text has at the end."""
  rows = []
  for system in published.systems():
    marks = [MARKS[system.marks[feature]] for feature in published.FEATURES]
    results = _results(system.name, runs, benchmark)
    name = system.name + ('' if system.in_table else ' *')
    rows.append([name, *marks, system.what, HERE[system.name], results, system.reference])
  features = [feature.replace('_', ' ').replace(' he', ' HE') for feature in published.FEATURES]
  return Table(
    'table_1',
    'Table 1: systems, what each offers (published), and what runs here (* not in the '
    "paper's table; it has the marks that the text gives it)",
    ('system', *features, 'what it is', 'what runs here', 'measured here', 'reference'),
    rows,
  )


def _results(system: str, runs: Sequence[Run], benchmark: Sequence[Mapping[str, Any]]) -> str:
  if system not in ALGORITHMS:
    return NOTHING
  found = []
  for plan in BENCHMARKS.get(system, ()):
    phases = costs.of_benchmark(benchmark, plan)
    if phases:
      seconds = ', '.join(f'{cost.seconds:.2f} s {phase}' for phase, cost in phases.items())
      found.append(f'`{plan}`, random weights: {seconds}')
  mine = [result(run) for run in runs if run.algorithm in ALGORITHMS[system]]
  found += mine[:LONGEST]
  if len(mine) > LONGEST:
    found.append(f'and {len(mine) - LONGEST} more runs')
  return '; '.join(found) or NOT_RUN


def result(run: Run) -> str:
  """What a run achieved, in a few words."""
  found = runs_lib.best_accuracy(run)
  reached = f'{found[0]:.1%} {found[1]}' if found else 'unfinished'
  if run.plan is None:
    return f'{run.title}: {reached}'
  share = f'{runs_lib.replaced_share(run.plan):.1%} replaced'
  return f'{run.title}, {run.algorithm}: {share}, {reached}'

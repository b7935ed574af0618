"""The paper's tables: what it prints, what its cost model says, and what was measured.

Table 1 has the systems that it compares, what each offers, and what of it runs here. Tables 2
to 4 have latency and accuracy. Published, modelled and measured never mix: a row has one
column for each.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safenet_jax.protocol.estimate import links
from safenet_jax.report import compared, costs, published
from safenet_jax.report import runs as runs_lib
from safenet_jax.report.document import NOT_RUN, NOTHING, Table
from safenet_jax.report.runs import Run
from safenet_jax.search import score

MARKS = {True: '✓', False: '✗', None: NOTHING}
HERE = {
  'TAPAS': '`experiments.systems`: gates of a binary network counted, one of them timed',
  'Gazelle': '`serve --mode=gazelle`: linear layers homomorphic online',
  'NASS': 'nothing: no architecture search',
  'CONAD': '`search.algorithm=partial`: one given ratio in all layers',
  'Delphi': 'its protocol in `serve`; its planners `layerwise`, `layerwise_fast` and '
  '`layerwise_released`',
  'CryptoNAS': '`search.algorithm=budget`: its ReLU budget, on a given architecture',
  'InstaHide': 'nothing: no encryption',
  'SAFENet': '`btpbt` (`cw_mp_md`), and with less of it `cw_mp` and `cw`',
  'MiniONN': '`serve --mode=minionn`: circuits garbled online; its network, `cnn7`',
  'CryptoNets': '`experiments.systems`: its network and encryption, without interaction',
  'XONN': '`experiments.systems`: three of its networks, garbled whole',
  'SHE': 'the gates of TAPAS; its shifts are not here',
  'Soteria': '`experiments.systems`: ternary networks, without its search',
  'TextHide': 'nothing: no encryption',
}
# For each system, the algorithms of `search.algorithm` whose runs count as its plans.
ALGORITHMS = {
  'Gazelle': ('all-ReLU',),
  'CONAD': ('partial',),
  'Delphi': ('layerwise', 'layerwise_fast', 'layerwise_released'),
  'CryptoNAS': ('budget',),
  'SAFENet': ('btpbt', 'cw_mp_md', 'cw_mp', 'cw'),
}
# Rows of the benchmark's suite `inference` that are measured as the system itself would do it.
BENCHMARKS = {'Gazelle': ('cnn7/gazelle_all_relu',), 'Delphi': ('cnn7/all_relu', 'cnn7/layerwise')}
# The most runs that a cell lists.
LONGEST = 4


def systems(
  runs: Sequence[Run],
  benchmark: Sequence[Mapping[str, Any]] = (),
  others: Sequence[Mapping[str, Any]] = (),
) -> Table:
  """Table 1 with every system of the paper; those that only its text names come last."""
  rows = []
  for system in published.systems():
    marks = [MARKS[system.marks[feature]] for feature in published.FEATURES]
    results = _results_of(system.name, runs, benchmark)
    results = compared.phrase(system.name, others) or results
    name = system.name + ('' if system.in_table else ' *')
    rows.append([name, *marks, system.what, HERE[system.name]])
    rows[-1] += [results, system.printed or NOTHING, system.reference]
  features = [feature.replace('_', ' ').replace(' he', ' HE') for feature in published.FEATURES]
  return Table(
    'table_1',
    'Table 1: systems, what each offers (published), and what runs here (* not in the '
    "paper's table; it has the marks that the text gives it)",
    ('system', *features, 'what it is', 'what runs here', 'measured here', 'printed', 'reference'),
    rows,
  )


def _results_of(system: str, runs: Sequence[Run], benchmark: Sequence[Mapping[str, Any]]) -> str:
  if system not in ALGORITHMS:
    return NOTHING
  found = []
  for plan in BENCHMARKS.get(system, ()):
    phases = costs.of_benchmark(benchmark, plan)
    if phases:
      seconds = ', '.join(f'{cost.seconds:.2f} s {phase}' for phase, cost in phases.items())
      found.append(f'`{plan}`, random weights: {seconds}')
  mine = [runs_lib.result(run) for run in runs if run.algorithm in ALGORITHMS[system]]
  found += mine[:LONGEST]
  if len(mine) > LONGEST:
    found.append(f'and {len(mine) - LONGEST} more runs')
  return '; '.join(found) or NOT_RUN


class System(NamedTuple):
  """A row of Tables 2 to 4.

  algorithms: values of `search.algorithm` whose plans count as its plans; none if its networks
    are all-ReLU.
  benchmark: name of its plan in the benchmark's suite `inference`.
  instead: other algorithms, whose plans stand in where none is by `algorithms`; the row says so.
  """

  name: str
  algorithms: tuple[str, ...]
  benchmark: str = ''
  instead: tuple[str, ...] = ()


SYSTEMS = {
  'gazelle': System('Gazelle', (), 'gazelle_all_relu'),
  'delphi': System('Delphi', ('layerwise', 'layerwise_released')),
  'delphi_fast': System('Delphi-Fast', ('layerwise_fast',)),
  'safenet': System('SAFENet', ('btpbt', 'cw_mp_md'), instead=('gates', 'gates_budget')),
}
COST_MODEL = 'activations at 20.1, 0.2 and 0.105 µs (s)'
LABELS = {
  'offline_he_linear_s': 'offline, HE-Linear (s)',
  'offline_mpc_act_s': 'offline, MPC-Act (s)',
  'offline_total_s': 'offline, total (s)',
  'online_he_linear_s': 'online, HE-Linear (s)',
  'online_mpc_act_s': 'online, MPC-Act (s)',
  'online_total_s': 'online, total (s)',
  'total_s': 'total (s)',
}
SLOW = f'total over {links.WAN} (s)'
# How much less a total is than the same of another row, by both: the paper's 61, 48 and 47 % are of
# SAFENet, less than Gazelle.
LESS = {
  ('Gazelle', LABELS['total_s']): 'total less than Gazelle (%)',
  ('Delphi', LABELS['total_s']): 'total less than Delphi (%)',
  ('Gazelle', SLOW): 'over that network less than Gazelle (%)',
  ('Delphi', SLOW): 'over that network less than Delphi (%)',
}
QUANTITIES = (
  'activations replaced (%)',
  *LABELS.values(),
  *list(LESS.values())[:2],
  SLOW,
  *list(LESS.values())[2:],
  COST_MODEL,
  'offline traffic (MB)',
  'online traffic (MB)',
  'accuracy (%)',
  'taken from',
)

# A cell's text by quantity; a quantity that is missing gets a dash.
Cells = dict[str, str]


def latency(number: int, runs: Sequence[Run], benchmark: Sequence[Mapping[str, Any]] = ()) -> Table:
  """Table 2, 3 or 4 beside the runs and benchmark rows of the same network and images."""
  printed = [row for row in published.tables() if row.table == number]
  network, dataset = printed[0].network, printed[0].dataset
  mine = [run for run in runs if run.is_full_size(network, dataset)]
  columns_of: dict[str, list[Cells]] = {}
  for row in printed:
    system = SYSTEMS[row.system]
    found = matching(system, mine)
    columns_of[system.name] = [
      printed_cells(row),
      modelled_cells(row, printed, found[0] if found else None),
      measured_cells(system, network, found, benchmark),
    ]
  for (name, total), label in LESS.items():
    _less(columns_of, name, total, label)
  rows = []
  for row in printed:
    system = SYSTEMS[row.system]
    columns = columns_of[system.name]
    for quantity in QUANTITIES:
      cells = [column.get(quantity, NOTHING) for column in columns]
      if set(cells) - {NOTHING, NOT_RUN}:
        rows.append([system.name, quantity, *cells])
  title = f'Table {number}: {network} on {dataset}'
  return Table(
    f'table_{number}',
    title,
    ('system', 'quantity', 'published', 'modelled', 'measured'),
    rows,
    grouped=True,
  )


def _less(columns_of: dict[str, list[Cells]], other: str, total: str, label: str) -> None:
  """Adds how much less the totals of other systems are than that of one, column by column."""
  # The model says nothing of Gazelle's linear layers, so the printed total stands in for it.
  printed = columns_of[other][0].get(total)
  for name, columns in columns_of.items():
    if name in (other, 'Gazelle'):
      continue
    for cells, base in zip(columns, columns_of[other]):
      mine, theirs = cells.get(total), base.get(total, printed)
      if {mine, theirs} & {None, NOTHING}:
        continue
      assert mine is not None and theirs is not None
      known = NOT_RUN not in (mine, theirs)
      cells[label] = f'{100 * (1 - float(mine) / float(theirs)):.0f}' if known else NOT_RUN


def matching(system: System, runs: Sequence[Run]) -> list[Run]:
  """The runs of a system, those with a measured inference first."""
  planned = [run for run in runs if run.plan]
  mine = [run for run in planned if run.algorithm in system.algorithms]
  mine = mine or [run for run in planned if run.algorithm in system.instead]
  if not system.algorithms:
    # Every run begins with the all-ReLU network; one that replaces nothing serves it as well.
    mine = [run for run in runs if runs_lib.accuracy(run, 'pretrain')]
    mine = [run for run in mine if _serves_gazelle(run)] or mine
  return sorted(mine, key=lambda run: costs.of_run(run) is None)


def printed_cells(row: published.Row) -> Cells:
  """A row as printed, even where its sums do not add up, and what the text says was replaced."""
  cells = {label: f'{row.seconds[name]:g}' for name, label in LABELS.items()}
  system = SYSTEMS[row.system].name
  named = {
    value.series: f'{value.relation.strip("=")}{value.value:g}'
    for value in published.named('5', row.network)
  }
  if row.network == 'cnn7':
    named['SAFENet'] = next(
      f'{v.relation}{v.value:g}' for v in published.named('4b') if v.series == 'BTPBT'
    )
  if system in named:
    cells['activations replaced (%)'] = named[system]
  return cells | {'accuracy (%)': f'{row.accuracy:g}'}


def modelled_cells(row: published.Row, printed: Sequence[published.Row], run: Run | None) -> Cells:
  """The published cost model applied to a run's plan.

  Gazelle's printed cell MPC-Act is the time of a network in which every activation is a
  ReLU. It is multiplied by the share of that time which, by the cost model, the plan still
  takes. SAFENet's printed cells follow from the ReLUs it keeps in the same way. The model
  says nothing of linear layers, so theirs are Delphi's printed cells.
  """
  gazelle, delphi = (
    next(r.seconds for r in printed if r.system == name) for name in ('gazelle', 'delphi')
  )
  count = runs_lib.FULL_SIZE[row.network]
  if row.system == 'gazelle':
    return {COST_MODEL: f'{1e-6 * count * score.PUBLISHED.relu:.3g}'}
  if run is None or run.plan is None:
    return dict.fromkeys((*LABELS.values(), COST_MODEL), NOT_RUN)
  seconds = runs_lib.seconds_of(run.plan)
  share = seconds / runs_lib.seconds_of(runs_lib.all_relu(run.plan['activations']))
  values = {'offline_he_linear_s': delphi['offline_he_linear_s'], 'online_he_linear_s': 0.0}
  for phase in ('offline', 'online'):
    values[f'{phase}_mpc_act_s'] = share * gazelle[f'{phase}_mpc_act_s']
    values[f'{phase}_total_s'] = values[f'{phase}_he_linear_s'] + values[f'{phase}_mpc_act_s']
  values['total_s'] = values['offline_total_s'] + values['online_total_s']
  cells = {LABELS[name]: f'{value:.3g}' for name, value in values.items()}
  return cells | {COST_MODEL: f'{seconds:.3g}'}


def measured_cells(
  system: System, network: str, runs: Sequence[Run], benchmark: Sequence[Mapping[str, Any]]
) -> Cells:
  """Wall seconds and bytes from ledgers or the benchmark, and accuracy from runs' records.

  All but the accuracy is of the first run.
  """
  cells = {name: NOT_RUN for name in QUANTITIES if name not in (COST_MODEL, *LESS.values())}
  sources = []
  run = runs[0] if runs else None
  if run:
    phase = 'finetune' if system.algorithms else 'pretrain'
    scored = [found for found in (runs_lib.accuracy(run, phase) for run in runs) if found]
    # All runs of a pretraining have one score.
    texts = dict.fromkeys(f'{100 * accuracy:.2f} ({split})' for accuracy, split in scored)
    cells['accuracy (%)'] = ', '.join(texts) or NOT_RUN
    share = runs_lib.replaced_share(run.plan) if system.algorithms and run.plan else 0.0
    cells['activations replaced (%)'] = f'{100 * share:.1f}'
    instead = f', by {run.algorithm} instead' if run.algorithm in system.instead else ''
    sources.append(f'run {run.name}{instead}')
  phases: dict[str, costs.Cost] = {}
  if system.benchmark and not (run and _serves_gazelle(run)):
    # The benchmark measures Gazelle's way with random weights, of which seconds do not depend.
    found_rows = costs.of_benchmark(benchmark, f'{network}/{system.benchmark}')
    if found_rows:
      phases = found_rows
      sources.append('benchmark, random weights, two processes')
  elif run and (measured := costs.of_run(run)):
    sources.append(measured[0])
    phases = measured[1]
  for phase, cost in phases.items():
    cells |= _measured_phase(phase, cost)
  if len(phases) == 2:
    cells[LABELS['total_s']] = f'{sum(cost.seconds for cost in phases.values()):.3g}'
    slow = [cost.over(links.WAN) for cost in phases.values()]
    cells[SLOW] = NOTHING if None in slow else f'{sum(s for s in slow if s is not None):.3g}'
  if sources:
    cells['taken from'] = '; '.join(sources)
  return cells


def _serves_gazelle(run: Run) -> bool:
  """Whether a run's all-ReLU network was served in Gazelle's way."""
  mode = run.client and run.client.get('served')
  return mode == 'gazelle' and run.plan is not None and not any(run.plan['replaced'])


def _measured_phase(phase: str, cost: costs.Cost) -> Cells:
  cells = {
    LABELS[f'{phase}_total_s']: f'{cost.seconds:.3g}',
    f'{phase} traffic (MB)': f'{cost.bytes / 1e6:.3g}',
  }
  if cost.linear_seconds is None:
    apart = dict.fromkeys(('he_linear', 'mpc_act'), 'not counted apart')
  else:
    other = cost.seconds - cost.linear_seconds
    apart = {'he_linear': f'{cost.linear_seconds:.3g}', 'mpc_act': f'{other:.3g}'}
  return cells | {LABELS[f'{phase}_{name}_s']: text for name, text in apart.items()}

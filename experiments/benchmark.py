"""Measures the primitives beside their floors: a table, and one JSON object in a file.

  python -m experiments.benchmark --suite=garbling,ot,he --out=FILE
  python -m experiments.benchmark --suite=all --out=FILE

With --requests=200 two clients keep a server busy beside it (the suite `sustained`).
--quick takes the smallest sizes once, to see that it runs. With the suite `activations` the
file is also what a search with --config.search.cost=measured reads.
"""

from collections.abc import Sequence
import importlib
import json
import pathlib
import pkgutil

from absl import flags
import rich.console
import rich.table

from experiments import benchmarks
from experiments.lib import launcher, load_test, machine

KNOWN = tuple(sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__)))
SUITE = flags.DEFINE_list('suite', None, f'Suites to run, of: {", ".join(KNOWN)}; or all.')


def chosen(names: Sequence[str]) -> list[str]:
  """The suites that --suite names, each once; ValueError if there is one that is unknown."""
  suites = list(dict.fromkeys(names))
  if suites == ['all']:
    return list(KNOWN)
  if not suites or not set(suites) <= set(KNOWN):
    raise ValueError(f"--suite='{','.join(suites)}', want all, or some of: {','.join(KNOWN)}")
  return suites


def main() -> None:
  suites = chosen(SUITE.value or ())
  if load_test.REQUESTS.value and 'sustained' not in suites:
    suites.append('sustained')
  if not launcher.OUT.value:
    raise ValueError('no --out, want --out=FILE')
  try:
    # Before minutes of measuring.
    pathlib.Path(launcher.OUT.value).open('a').close()
  except OSError as error:
    raise ValueError(f'--out={launcher.OUT.value}: {error.strerror}') from error
  rows: list[benchmarks.Row] = []
  for suite in suites:
    for row in importlib.import_module(f'experiments.benchmarks.{suite}').rows():
      print(f'{row.name}: {row.setting}', flush=True)
      rows.append(row)
    # After every suite: what was measured before an interruption is kept.
    pathlib.Path(launcher.OUT.value).write_text(json.dumps(_record(rows), indent=2) + '\n')
  table = rich.table.Table('name', 'value', 'unit', 'floor', 'ratio')
  for row in rows:
    floor, ratio = ('' if n is None else f'{n:.4g}' for n in (row.floor, row.ratio))
    table.add_row(row.name, f'{row.value:.4g}', row.unit, floor, ratio)
  rich.console.Console().print(table)
  print(f'benchmark: {len(rows)} rows in {launcher.OUT.value}')


def _record(rows: Sequence[benchmarks.Row]) -> dict:
  """What the file holds of these rows."""
  record = machine.record() | {'rows': [row.record() for row in rows]}
  costs = {
    row.name.removeprefix(benchmarks.COSTS): row.value
    for row in rows
    if row.name.startswith(benchmarks.COSTS)
  }
  units = {
    kind: {row.name.removeprefix(prefix): row.value for row in rows if row.name.startswith(prefix)}
    for kind, prefix in benchmarks.UNIT_COSTS.items()
  }
  record |= {'unit_costs': units} if units['seconds'] else {}
  return record | ({'seconds_per_activation': costs} if costs else {})


if __name__ == '__main__':
  launcher.run(main, needs_config=False)

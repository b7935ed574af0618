"""Measures the primitives beside their floors: a table, and one JSON object in a file.

  python -m experiments.benchmark --suite=garbling,ot,he --out=FILE

--quick takes the smallest sizes once, to see that it runs. With the suite `activations` the
file is also what a search with --config.search.cost=measured reads.
"""

import importlib
import json
import pathlib
import pkgutil

from absl import flags
import rich.console
import rich.table

from experiments import benchmarks
from experiments import environment
from experiments import launcher

KNOWN = tuple(sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__)))
SUITE = flags.DEFINE_list('suite', None, f'Suites to run, of: {", ".join(KNOWN)}.')
OUT = flags.DEFINE_string('out', None, 'JSON file to write; one that is there is replaced.')


def main() -> None:
  suites = list(dict.fromkeys(SUITE.value or ()))
  if not suites or not set(suites) <= set(KNOWN):
    raise ValueError(f"--suite='{','.join(suites)}', want some of: {','.join(KNOWN)}")
  if not OUT.value:
    raise ValueError('no --out, want --out=FILE')
  try:
    # Before minutes of measuring.
    pathlib.Path(OUT.value).open('a').close()
  except OSError as error:
    raise ValueError(f'--out={OUT.value}: {error.strerror}') from error
  rows = []
  for suite in suites:
    for row in importlib.import_module(f'experiments.benchmarks.{suite}').rows():
      print(f'{row.name}: {row.setting}', flush=True)
      rows.append(row)
  table = rich.table.Table('name', 'value', 'unit', 'floor', 'ratio')
  for row in rows:
    floor, ratio = ('' if n is None else f'{n:.4g}' for n in (row.floor, row.ratio))
    table.add_row(row.name, f'{row.value:.4g}', row.unit, floor, ratio)
  rich.console.Console().print(table)
  record = environment.record() | {'rows': [row.record() for row in rows]}
  costs = {
    row.name.removeprefix(benchmarks.COSTS): row.value
    for row in rows if row.name.startswith(benchmarks.COSTS)
  }
  if costs:
    record['seconds_per_activation'] = costs
  if 'units' in suites:
    record['unit_costs'] = {
      kind: {
        row.name.removeprefix(prefix): row.value for row in rows if row.name.startswith(prefix)
      } for kind, prefix in benchmarks.UNIT_COSTS.items()
    }
  pathlib.Path(OUT.value).write_text(json.dumps(record, indent=2) + '\n')
  print(f'benchmark: {len(rows)} rows in {OUT.value}')


if __name__ == '__main__':
  launcher.run(main, needs_config=False)

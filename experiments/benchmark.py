"""Measures primitives, inferences and training: a table, and one JSON object in a file.

  python -m experiments.benchmark --suite=garbling,ot,he --out=FILE
  python -m experiments.benchmark --suite=all --out=FILE

A measurement stands beside its floor where there is one: the time of a limit that it cannot
beat, or of a peer, measured in the same run. --quick measures the smallest sizes once, to see
that it runs.

With --large=resnet18_64,resnet50 the suite `networks` measures networks of ImageNet's size instead,
for minutes each, and draws what they take beside its file.

With --requests=200 the suite `sustained` is added: --clients keep a server busy with so many
requests.
"""

from collections.abc import Sequence
import importlib
import pkgutil

from absl import flags
import rich.console
import rich.table

from experiments import benchmarks
from experiments.benchmarks import scaling
from experiments.lib import large_networks, launcher, load_test, machine
from safenet_jax import atomic_files

KNOWN = tuple(sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__)))
SUITE = flags.DEFINE_list('suite', None, f'Suites to run, of: {", ".join(KNOWN)}; or all.')


def chosen(names: Sequence[str]) -> list[str]:
  """The suites that --suite names, each once; ValueError for an unknown one."""
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
  path = launcher.output_file()
  rows: list[benchmarks.Row] = []
  for suite in suites:
    for row in importlib.import_module(f'experiments.benchmarks.{suite}').rows():
      print(f'{row.name}: {row.setting}', flush=True)
      rows.append(row)
    # Written after every suite, so that an interruption loses only the one that was running.
    atomic_files.write_json(path, _record(rows))
  if 'networks' in suites and large_networks.NAMES.value:
    large_networks.draw(rows, path.with_suffix('.png'))
  elif 'scaling' in suites:
    scaling.draw(rows, path.with_suffix('.png'))
  table = rich.table.Table('name', 'value', 'unit', 'floor', 'ratio')
  for row in rows:
    floor, ratio = ('' if n is None else f'{n:.4g}' for n in (row.floor, row.ratio))
    table.add_row(row.name, f'{row.value:.4g}', row.unit, floor, ratio)
  rich.console.Console().print(table)
  print(f'benchmark: {len(rows)} rows in {path}')


def _record(rows: Sequence[benchmarks.Row]) -> dict:
  """What the file holds of these rows."""
  record = machine.record() | {'rows': [row.record() for row in rows]}
  units = {
    kind: {row.name.removeprefix(prefix): row.value for row in rows if row.name.startswith(prefix)}
    for kind, prefix in benchmarks.UNIT_COSTS.items()
  }
  return record | ({'unit_costs': units} if units['seconds'] else {})


if __name__ == '__main__':
  launcher.run(main, needs_config=False)

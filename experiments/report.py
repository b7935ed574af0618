"""Writes the report of one or several runs: Markdown, one HTML page, pictures and csv.

  python -m experiments.report --workdir=runs/demo
  python -m experiments.report --workdir=runs/demo,runs/figure4b --out=runs/comparison

A workdir is that of a run or of a sweep, finished or not; the report says what is missing. It is
written into the directory --out, by default the first workdir. --benchmark names files that
`experiments.benchmark` wrote, by default those in experiments/results. What `experiments.systems`
measured is taken from experiments/results/systems.
"""

import os
import pathlib

from absl import flags
import rich.console
import rich.table

from experiments.lib import launcher
from safenet_jax import json_files
from safenet_jax.report import compared, costs, measurements, page, tables
from safenet_jax.report import runs as runs_lib
from safenet_jax.workdir import Workdir

BENCHMARK = flags.DEFINE_list('benchmark', None, 'Files of experiments.benchmark to show.')
RESULTS = pathlib.Path(__file__).parent / 'results'


def workdirs(values: list[str]) -> list[str]:
  """The directories that --workdir names: several with commas between, or in several flags."""
  found: list[str] = []
  for value in map(os.path.expanduser, values):
    # The folders of a sweep have commas in their names.
    found += [value] if pathlib.Path(value).is_dir() else map(os.path.expanduser, value.split(','))
  return list(dict.fromkeys(filter(None, found)))


def benchmarks(names: list[str] | None) -> dict[str, dict]:
  """The benchmark files to show, by name."""
  if names is not None:
    paths = [pathlib.Path(name).expanduser() for name in names]
    return {path.name: measurements.load(path) for path in paths}
  files = {path.name: json_files.read(path) for path in sorted(RESULTS.glob('*.json'))}
  return {name: file for name, file in files.items() if 'rows' in file}


def main() -> None:
  paths = workdirs(launcher.given('workdir'))
  if not paths:
    raise ValueError('no --workdir, want the directory of a run, or several with commas between')
  found = benchmarks(BENCHMARK.value)
  for path in paths if launcher.CONFIG.value else ():
    _check(launcher.CONFIG.value, Workdir(path))
  runs = runs_lib.distinct([run for path in paths for run in runs_lib.load(path)])
  out = pathlib.Path(launcher.OUT.value or paths[0])
  page.write(out, runs, found, compared.load(RESULTS / 'systems'))
  console = rich.console.Console()
  for run in runs if len(runs) == 1 else ():
    if run.plan:
      _print(console, 'plan', *tables.layers(run.plan))
      summary = tables.summary(run.plan, costs.inference(run), run.evaluations, run.thin)
      _print(console, 'result', ('quantity', 'value'), summary)
  print(f'report: {out / "report.md"}, {out / "report.html"}')


def _check(config, workdir: Workdir) -> None:
  """Refuses a config that the run was not made with; writes nothing."""
  recorded = workdir.read_json('config.json', 'pretrain')
  sections = ('model', 'data', 'teacher', 'pretrain', 'search', 'finetune', 'secure')
  workdir.check({name: config[name].to_dict() for name in sections if name in recorded})


def _print(console: rich.console.Console, title: str, header, rows) -> None:
  table = rich.table.Table(*header, title=title)
  for row in rows:
    table.add_row(*map(str, row))
  console.print(table)


if __name__ == '__main__':
  launcher.run(main, needs_config=False)

"""Accuracy against ReLUs over the sweep of a config, with intervals over its seeds.

  python -m experiments.pareto --config=experiments/configs/cnn7_fashion.py --workdir=runs/pareto

Every setting that the config's `sweep(add)` adds is pretrained and searched in a
workdir of its own below --workdir. Runs whose settings differ only in search and
fine-tuning share their pretraining. The same command continues a sweep that was stopped.

pareto.png and .csv show the ReLUs that are left, and the accuracy. served_bytes.png and
served_seconds.png, with their .csv, show the accuracy against what a private inference under each
plan will take, estimated, offline and online together. search_progress.png and .csv show how the
best score of every setting grew with its budget (Figure 4b of the paper). Only plans that reach the
accuracy threshold of their search count for it.
"""

import functools
import math
import runpy
import shutil
import subprocess
import sys
from typing import Any

from absl import flags, logging
import rich.console
import rich.table

from experiments.lib import from_config, launcher
from experiments.lib import settings as checks
from safenet_jax.approximation import plans
from safenet_jax.protocol.estimate import estimate, links, untrained
from safenet_jax.report import figures, sweeps
from safenet_jax.workdir import Workdir

THIN = flags.DEFINE_bool('thin', False, 'Train a thin all-ReLU network beside every plan.')


def settings(config_path: str) -> list[dict[str, Any]]:
  """What `sweep(add)` of a config file adds, in order; ValueError if it has none."""
  sweep = runpy.run_path(config_path).get('sweep')
  if sweep is None:
    raise ValueError(f'{config_path} has no sweep(add)')
  found: list[dict[str, Any]] = []
  sweep(lambda **overrides: found.append(overrides))
  if not found:
    raise ValueError(f'sweep(add) of {config_path} adds nothing')
  return found


def _config(overrides: dict[str, Any]):
  config = launcher.CONFIG.value.copy_and_resolve_references()
  config.update_from_flattened_dict(overrides)
  return config


def _check(overrides: dict[str, Any]) -> None:
  """ValueError for a setting of the sweep that its own run would refuse, hours later."""
  try:
    checks.check(_config(overrides))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(f'sweep(add) with {overrides}: {error}') from None


def name(overrides: dict[str, Any]) -> str:
  """A folder name for a setting: algorithm-btpbt,seed-0."""
  parts = (f'{k.split(".")[-1]}-{v}' for k, v in sorted(overrides.items()))
  return ','.join(parts).replace('/', '_') or 'default'


def _command(phase: str, overrides: dict[str, Any], workdir, *options: str) -> None:
  flags = [f'--config.{key}={value}' for key, value in overrides.items()]
  flags = [*launcher.config_arguments(), *flags, f'--workdir={workdir}', *options]
  command = [sys.executable, '-m', f'experiments.{phase}', *flags]
  code = subprocess.run(command).returncode
  if code:
    raise RuntimeError(f'{phase} in {workdir} ended with code {code}; its error is above')


def _searched(root: Workdir, overrides: dict[str, Any], earlier: list[Workdir]) -> Workdir:
  """The workdir of one setting's search, which is run unless it is done.

  Runs that are finished `earlier` lend their all-ReLU control where it is the same.
  """
  run = Workdir(root / name(overrides))
  if not (run / 'plan.json').exists():
    shared = {k: v for k, v in overrides.items() if not k.startswith(('search.', 'finetune.'))}
    pretrained = root / f'pretrain {name(shared)}'
    _command('pretrain', shared, pretrained)
    if not (run / 'config.json').exists():
      # Copied beside and renamed: a run is there whole or not at all.
      copy = root / f'.{name(overrides)}'
      shutil.rmtree(copy, ignore_errors=True)
      shutil.copytree(pretrained, copy)
      copy.replace(run.path)
    _command('search', overrides, run.path, *(f'--controls={lender.path}' for lender in earlier))
  if THIN.value and not (run / 'thin/thin.json').exists():
    _command('thin', overrides, run.path)
  return run


def _thin(overrides: dict[str, Any], run: Workdir) -> tuple[dict[str, Any], dict[str, Any]]:
  """A thin network as `sweeps.points` takes it: a plan that replaces nothing."""
  found = run.read_json('thin/thin.json', 'thin')
  algorithm = f'thin beside {overrides.get("search.algorithm", "search")}'
  accuracy = {'planned': found['validation_accuracy']}
  plan = {'activations': found['activations'], 'replaced': [], 'validation_accuracy': accuracy}
  return overrides | {'search.algorithm': algorithm}, plan


def _served(overrides: dict[str, Any], plan: dict[str, Any]) -> sweeps.Served:
  """What a private inference under a plan will take; NaN if it cannot be served."""
  megabytes = seconds = math.nan
  try:
    model = untrained.model(
      from_config.network(_config(overrides)),
      plans.from_twentieths(plan['ratio'], plan['degree']),
    )
    found = estimate.inference(model.public)
    megabytes = sum(map(found.bytes, ('offline', 'online'))) / 1e6
    seconds = sum(found.seconds(phase, links.LAN) for phase in ('offline', 'online'))
  except ValueError as error:  # such as polynomial channels before a max pool
    logging.warning('%s: %s', name(overrides), str(error))
  accuracy = plan['validation_accuracy']['planned']
  return sweeps.Served(
    sweeps.label(overrides), overrides.get('seed', 0), accuracy, megabytes, seconds
  )


def main() -> None:
  root = Workdir(launcher.WORKDIR.value or '.')
  config_path = launcher.config_path()
  everything = settings(config_path)
  for overrides in everything:
    _check(overrides)
  root.claim({'sweep': {'settings': everything} | {'config': launcher.CONFIG.value.to_dict()}})
  runs: list[tuple[dict[str, Any], Workdir]] = []
  for overrides in everything:
    runs.append((overrides, _searched(root, overrides, [run for _, run in runs])))
  results = [(overrides, run.read_json('plan.json', 'search')) for overrides, run in runs]
  if THIN.value:
    results += [_thin(*pair) for pair in runs]
  points = sweeps.points(results)
  figures.save(root / 'pareto', lambda axes: figures.pareto(axes, points))
  served = [_served(overrides, run.read_json('plan.json', 'search')) for overrides, run in runs]
  for file, quantity in (('served_bytes', 'megabytes'), ('served_seconds', 'seconds')):
    figures.save(root / file, functools.partial(figures.served, served=served, quantity=quantity))
  curves = sweeps.curves(
    [
      (overrides, run.read_json('config.json', 'search')['search'], run.metrics('search'))
      for overrides, run in runs
    ]
  )
  figures.save(root / 'search_progress', lambda axes: figures.search_progress(axes, curves))
  table = rich.table.Table('setting', 'seeds', 'ReLUs left', 'validation accuracy', title='pareto')
  for p in points:
    table.add_row(
      p.label,
      str(p.seeds),
      sweeps.interval(p.relus, p.relus_interval, '{:.0f}'),
      sweeps.interval(100 * p.accuracy, 100 * p.accuracy_interval, '{:.2f}') + ' %',
    )
  rich.console.Console().print(table)
  print(f'figures: {root / "pareto.png"}, {root / "search_progress.png"}')


if __name__ == '__main__':
  launcher.run(main)

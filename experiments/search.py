"""Searches a plan, then fine-tunes the planned network beside an all-ReLU control.

python -m experiments.search --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
"""

import dataclasses
import functools

from experiments.lib import from_config, launcher, search_table
from safenet_jax.search import algorithms, fit, pbt, population, schedule, score, strategy
from safenet_jax.search import member as members


def main() -> None:
  config = launcher.CONFIG.value
  settings = config.search
  images = from_config.dataset(config)
  net = from_config.network(config, images)
  algorithm = functools.partial(
    algorithms.build,
    settings.algorithm,
    score.activations(net),
    node_cycles=settings.node_cycles,
    joint_cycles=settings.joint_cycles,
    partial_ratio=settings.partial_ratio,
    subset_layers=settings.subset_layers,
    relu_budget=settings.relu_budget,
  )
  degrees = tuple(settings.degrees)
  algorithm(pbt.Evolution(settings.population, degrees=degrees))  # refuses bad settings first
  mesh = population.mesh(settings.population) if settings.mesh else None
  cost = score.cost_model(settings.cost, settings.cost_ledger)
  workdir = launcher.workdir(config, *from_config.SECTIONS)
  workdir.claim({'plan': {'source': 'search'}})
  first = from_config.trained(config, net, workdir, 'pretrain')
  options = from_config.training(settings)
  teacher = from_config.teacher(config, images, options, (net, first))
  task = from_config.task(
    net, images, options, from_config.variables(first), teacher, settings.validation_images
  )

  baseline = fit.evaluate(first, task, task.validation_images, task.validation_labels)
  start = members.restart(
    from_config.fitted(first, net, images), settings.learning_rate, net, options
  )
  start = start.replace(accuracy=baseline, score=baseline)
  evolution = pbt.Evolution(
    population=settings.population,
    iterations=settings.iterations,
    threshold=float(baseline) - settings.accuracy_drop,
    literal=settings.literal,
    reduction=cost.reduction(),
    degrees=degrees,
    strategy=settings.strategy,
    mesh=mesh,
  )
  chosen = strategy.resolve(evolution, start, task, workdir)
  search = algorithm(dataclasses.replace(evolution, strategy=chosen))
  with search_table.search_table() as report:
    winner = schedule.run(
      from_config.key(config, 'search'),
      start,
      task,
      search.steps,
      search.evolution,
      workdir,
      proposer=search.proposer,
      report=report,
    )
  searched = search.longest_line() * settings.iterations
  from_config.finish(config, net, images, workdir, first, winner, searched)


if __name__ == '__main__':
  launcher.run(main)

"""Searches a plan, then fine-tunes the planned network beside an all-ReLU control.

  python -m experiments.search --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
"""

import dataclasses
import functools

from experiments import launcher
from experiments import live
from experiments import pipeline
from safenet_jax.search import algorithms
from safenet_jax.search import fit
from safenet_jax.search import member as members
from safenet_jax.search import pbt
from safenet_jax.search import population
from safenet_jax.search import schedule
from safenet_jax.search import score
from safenet_jax.search import strategy


def main() -> None:
  config = launcher.CONFIG.value
  settings = config.search
  images = pipeline.dataset(config)
  net = pipeline.network(config, images)
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
  workdir = launcher.workdir(config, 'model', 'data', 'teacher', 'pretrain', 'search')
  workdir.claim({'plan': {'source': 'search'}})
  first = pipeline.trained(config, net, workdir, 'pretrain', 'pretrain')
  options = pipeline.training(settings)
  teacher = pipeline.teacher(config, images, options, (net, first))
  task = pipeline.task(
    net, images, options, pipeline.variables(first), teacher, settings.validation_images
  )

  baseline = fit.evaluate(first, task, task.validation_images, task.validation_labels)
  start = members.restart(pipeline.fitted(first, net, images), settings.learning_rate, net, options)
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
  with live.search_table() as report:
    winner = schedule.run(
      pipeline.key(config, 'search'), start, task, search.steps, search.evolution, workdir,
      proposer=search.proposer, report=report,
    )
  searched = search.longest_line() * settings.iterations
  pipeline.finish(config, net, images, workdir, first, winner, searched)


if __name__ == '__main__':
  launcher.run(main)

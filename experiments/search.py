"""Searches a plan, then fine-tunes the planned network beside an all-ReLU control.

  python -m experiments.search --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
"""

from experiments import launcher
from experiments import pipeline
from safenet_jax.models import network as networks
from safenet_jax.search import fit
from safenet_jax.search import member as members
from safenet_jax.search import pbt
from safenet_jax.search import schedule


def main() -> None:
  config = launcher.CONFIG.value
  settings = config.search
  images = pipeline.dataset(config)
  net = pipeline.network(config, images)
  layers = len(networks.activation_channels(net))
  steps = schedule.steps(
    settings.algorithm, layers, settings.node_cycles, settings.joint_cycles
  )
  workdir = launcher.workdir(config, 'model', 'data', 'pretrain', 'search')
  workdir.claim({'plan': {'source': 'search'}})
  first = pipeline.trained(config, net, workdir, 'pretrain', 'pretrain')
  teacher = pipeline.variables(first)
  options = pipeline.training(settings)
  task = pipeline.task(net, images, options, teacher, teacher, settings.validation_images)

  baseline = fit.evaluate(first, task, task.validation_images, task.validation_labels)
  start = members.restart(first, settings.learning_rate, options)
  start = start.replace(accuracy=baseline, score=baseline)
  evolution = pbt.Evolution(
    population=settings.population,
    iterations=settings.iterations,
    threshold=float(baseline) - settings.accuracy_drop,
    literal=settings.literal,
    strategy=settings.strategy,
  )
  with launcher.progress_bar('search') as report:
    winner = schedule.run(
      pipeline.key(config, 'search'), start, task, steps, evolution, workdir, report=report
    )
  # A member has seen the mini-batches of all its ancestors.
  searched = sum(step.cycles for step in steps) * settings.iterations
  pipeline.finish(config, net, images, workdir, first, winner, searched)


if __name__ == '__main__':
  launcher.run(main)

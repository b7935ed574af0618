"""Searches a plan, then fine-tunes the planned network beside an all-ReLU control.

A plan says which channels of each activation layer become polynomials, and of which degree. The
control is the pretrained network with all its ReLUs, trained for as many more steps.

  python -m experiments.search --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
"""

import functools

from experiments.lib import controls, from_config, launcher, search_table
from safenet_jax.search import fit, members, pbt, phases, population, score
from safenet_jax.search.members import Task
from safenet_jax.search.planners import algorithms


def main() -> None:
  config = launcher.CONFIG.value
  settings = config.search
  images = from_config.dataset(config)
  net = from_config.network(config, images)
  from_config.check_served(net)
  algorithm = functools.partial(
    algorithms.build,
    settings.algorithm,
    score.activations(net),
    node_cycles=settings.node_cycles,
    joint_cycles=settings.joint_cycles,
    partial_ratio=settings.partial_ratio,
    subset_layers=settings.subset_layers,
    relu_budget=settings.relu_budget,
    node_patience=settings.node_patience,
    supernet_draws=settings.supernet_draws,
    fresh_nodes=settings.fresh_nodes,
  )
  # Fine-tuning comes hours later, so its batches are checked first as well.
  fit.steps_per_epoch(len(images.train.labels), config.finetune.batch_size)
  degrees = tuple(settings.degrees)
  algorithm(pbt.Evolution(settings.population, degrees=degrees))  # refuses bad settings first
  mesh = population.mesh(settings.population) if settings.mesh else None
  cost = from_config.cost_model(settings, net)
  workdir = launcher.workdir(config, *from_config.SECTIONS)
  workdir.claim({'plan': {'source': 'search'}})
  first = from_config.trained(config, net, workdir, 'pretrain')
  options = from_config.training(settings)
  task = Task.of(
    net,
    images,
    members.variables(first),
    options,
    teacher=from_config.teacher(config, images, options, (net, first)),
    validation_images=settings.validation_images,
  )
  with search_table.search_table() as report:
    found = phases.search(
      phases.key(config.seed, 'search'),
      members.fitted(first, net, images),
      task,
      workdir,
      build=algorithm,
      evolution=pbt.Evolution(
        population=settings.population,
        iterations=settings.iterations,
        literal=settings.literal,
        reduction=cost.reduction(),
        degrees=degrees,
        strategy=settings.strategy,
        mesh=mesh,
      ),
      accuracy_drop=settings.accuracy_drop,
      learning_rate=settings.learning_rate,
      report=report,
    )
  ranks = found.ranks if settings.algorithm.startswith('gates') else None
  from_config.finish(
    config,
    images,
    net,
    first,
    found.member,
    workdir,
    searched=found.batches,
    ranks=ranks,
    lend=functools.partial(controls.lend, config, workdir),
  )


if __name__ == '__main__':
  launcher.run(main)

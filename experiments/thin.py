"""Trains a thin all-ReLU network with as many ReLUs as the plan left, to set beside it.

  python -m experiments.thin --config=... --workdir=...

It comes after search or finetune. Every layer is narrowed by one factor, the largest that has no
more ReLUs than the plan left. The thin network trains for as many steps as the planned one did in
all, and the same full all-ReLU network teaches it by soft labels. The run is in folder thin/ of
the workdir. Its test score is taken once, and is in the workdir's evaluations.json.
"""

from typing import Any, NamedTuple

from experiments.lib import from_config, launcher, scores
from safenet_jax.data import Dataset
from safenet_jax.models import architectures
from safenet_jax.models import network as networks
from safenet_jax.models.network import Network
from safenet_jax.search import fit, members
from safenet_jax.search.members import Task
from safenet_jax.workdir import Workdir


class Thin(NamedTuple):
  """The thin network of a run: its config, itself, and where it is trained."""

  config: Any
  network: Network
  workdir: Workdir
  budget: int  # ReLUs that the plan leaves


def of(config, images: Dataset, workdir: Workdir) -> Thin:
  """The thin network beside the plan in `workdir`; ValueError for one that has no width."""
  if 'width' not in config.model:
    raise ValueError(f"network '{config.model.name}' has no width, want one that can be narrowed")
  plan = workdir.read_json('plan.json', 'search or finetune')
  budget = sum(plan['activations']) - sum(plan['replaced'])
  thin = config.copy_and_resolve_references().unlock()

  def network(width):
    thin.model.width = width
    return from_config.network(thin, images)

  net = network(architectures.widest(network, budget, config.model.width))
  return Thin(thin.lock(), net, Workdir(workdir / 'thin'), budget)


def main() -> None:
  config = launcher.CONFIG.value
  images = from_config.dataset(config)
  full = from_config.network(config, images)
  workdir = launcher.workdir(config, *from_config.SECTIONS)
  first = from_config.trained(config, full, workdir, 'pretrain')
  thin, net, folder, budget = of(config, images, workdir)
  # The control was trained for as many steps as the plan: its length is not in the config.
  batch = from_config.training(config.finetune).batch_size
  epochs = workdir.steps('control') // fit.steps_per_epoch(len(images.train.labels), batch)
  folder.claim(
    {'seed': {'seed': thin.seed}, 'thin': {'budget': budget, 'epochs': epochs}}
    | {name: thin[name].to_dict() for name in from_config.SECTIONS}
  )

  teacher = from_config.teacher(thin, images, from_config.training(thin.pretrain))
  trained = from_config.pretrain(thin, net, images, teacher, folder).variables
  options = from_config.training(thin.finetune)
  teacher = from_config.teacher(thin, images, options, (full, first))
  task = Task.of(net, images, trained, options, teacher=teacher)
  member = members.all_relu(trained, thin.finetune.learning_rate, net, options)
  member = from_config.tune(thin, 'control', member, task.without_polynomials(), folder, epochs)

  counts = networks.relu_counts(net)
  folder.write_json(
    'thin.json',
    {
      'network': thin.model.name,
      'width': thin.model.width,
      'budget': budget,
      'activations': counts,
      'channels': networks.activation_channels(net),
      'steps': {phase: folder.steps(phase) for phase in ('pretrain', 'control')},
      'validation_accuracy': float(member.accuracy),
    },
  )
  test = scores.tested(workdir, 'thin', member, task, net, images)
  print(
    f'thin: {sum(counts)} ReLUs at width {thin.model.width:.4g}, the plan leaves {budget}; '
    f'validation accuracy {float(member.accuracy):.2%}, test {test["accuracy"]:.2%}'
  )


if __name__ == '__main__':
  launcher.run(main)

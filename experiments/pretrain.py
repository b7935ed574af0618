"""Trains the all-ReLU network.

  python -m experiments.pretrain --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
"""

from experiments import launcher
from experiments import pipeline
from safenet_jax.search import fit


def main() -> None:
  config = launcher.CONFIG.value
  images = pipeline.dataset(config)
  net = pipeline.network(config, images)
  options = pipeline.training(config.pretrain)
  member = pipeline.start(config, net, options)
  task = pipeline.task(net, images, options, pipeline.variables(member))
  fit.steps_per_epoch(task)
  workdir = launcher.workdir(config, 'model', 'data', 'pretrain')
  member = pipeline.pretrain(config, member, task, workdir)
  print(f'pretrain: all-ReLU validation accuracy {float(member.accuracy):.2%} in {workdir.path}')


if __name__ == '__main__':
  launcher.run(main)

"""Trains the all-ReLU network.

  python -m experiments.pretrain --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
"""

import dataclasses

from experiments import launcher
from experiments import pipeline
from safenet_jax.search import fit


def main() -> None:
  config = launcher.CONFIG.value
  images = pipeline.dataset(config)
  net = pipeline.network(config, images)
  options = dataclasses.replace(pipeline.training(config.pretrain), polynomials=False)
  member = pipeline.start(config, net, options)
  task = pipeline.task(net, images, options, pipeline.variables(member))
  fit.steps_per_epoch(task)
  workdir = launcher.workdir(config, 'model', 'data', 'pretrain')
  with launcher.progress_bar('pretrain') as report:
    member = fit.fit(
        pipeline.key(config, 'pretrain'), member, task, workdir, phase='pretrain',
        epochs=config.pretrain.epochs, warmup_epochs=config.pretrain.warmup_epochs,
        progress=report,
    )
  print(f'pretrain: all-ReLU validation accuracy {float(member.accuracy):.2%} in {workdir.path}')


if __name__ == '__main__':
  launcher.run(main)

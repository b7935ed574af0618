r"""Trains the all-ReLU network.

  python -m experiments.pretrain --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo

A larger network may teach it, and later the networks with plans. `teacher.weights` names an .npz
file: either of what `safenet_jax.flatten_variables` returns, or the state_dict of a PyTorch ResNet,
as `safenet_jax.convert_torch_resnet` takes it. For example, with a public ResNet-32:

  --config.teacher.network=resnet32 --config.teacher.weights=resnet32.npz \
  --config.teacher.mean='(0.485,0.456,0.406)' --config.teacher.std='(0.229,0.224,0.225)' \
  --config.pretrain.distillation=0.9 --config.search.distillation=0.9
"""

from experiments.lib import from_config, launcher
from safenet_jax.search import fit


def main() -> None:
  config = launcher.CONFIG.value
  images = from_config.dataset(config)
  net = from_config.network(config, images)
  from_config.check_served(net)
  options = from_config.training(config.pretrain)
  teacher = from_config.teacher(config, images, options)
  # Refuses a batch that is too large before anything is written.
  fit.steps_per_epoch(len(images.train.labels), options.batch_size)
  workdir = launcher.workdir(config, *from_config.SECTIONS[:4])
  trained = from_config.pretrain(config, net, images, teacher, workdir)
  print(f'pretrain: all-ReLU validation accuracy {trained.accuracy:.2%} in {workdir.path}')


if __name__ == '__main__':
  launcher.run(main)

r"""ResNet-18 on CIFAR-10.

  for phase in pretrain search; do
    python -m experiments.$phase --config=experiments/configs/resnet18_cifar10.py \
      --workdir=runs/resnet18_cifar10
  done

The preset `smoke` trains a narrow network on a few images.
"""

from ml_collections import config_dict

from experiments.configs import base


def get_config(preset: str = '') -> config_dict.ConfigDict:
  return base.cifar(preset, 'cifar10', {'name': 'resnet18'})

r"""VGG-16 on CIFAR-10.

  for phase in pretrain search infer report; do
    python -m experiments.$phase --config=experiments/configs/vgg16_cifar10.py \
      --workdir=runs/vgg16_cifar10
  done

The preset `smoke` trains a narrow network on a few images.
"""

from ml_collections import config_dict

from experiments.configs import base


def get_config(preset: str = '') -> config_dict.ConfigDict:
  return base.cifar(preset, 'cifar10', {'name': 'vgg16', 'max_pool': False})

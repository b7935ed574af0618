r"""CNN-7 on CIFAR-10.

  for phase in pretrain search infer report; do
    python -m experiments.$phase --config=experiments/configs/cnn7_cifar10.py \
      --workdir=runs/cnn7_cifar10
  done

The preset `smoke` trains a narrow network on a few images.
"""

from ml_collections import config_dict

from experiments.configs import base


def get_config(preset: str = '') -> config_dict.ConfigDict:
  return base.cifar(preset, 'cifar10', {'name': 'cnn7', 'pool_before_activation': False})

r"""ResNet-32 on CIFAR-100.

  for phase in pretrain search; do
    python -m experiments.$phase --config=experiments/configs/resnet32_cifar100.py \
      --workdir=runs/resnet32_cifar100
  done

The preset `smoke` trains a narrow network on a few images.
"""

from ml_collections import config_dict

from experiments.configs import base


def get_config(preset: str = '') -> config_dict.ConfigDict:
  return base.cifar(preset, 'cifar100', {'name': 'resnet32'})

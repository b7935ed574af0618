r"""ResNet-18 on CIFAR-100.

  for phase in pretrain search; do
    python -m experiments.$phase --config=experiments/configs/resnet18_cifar100.py \
      --workdir=runs/resnet18_cifar100
  done

Time and accuracy: not run at full size yet. Training images, to divide by the images/s of the
progress bar: pretrain 200 epochs x 45,000 = 9.0 M;
search 50 members x 380 epochs x 45,000 = 855.0 M;
fine-tuning 40 x 45,000 = 1.8 M; its all-ReLU control 420 x 45,000 = 18.9 M.

The preset `smoke` trains a narrow network on a few images.
"""

from ml_collections import config_dict

from experiments.configs import base


def get_config(preset: str = '') -> config_dict.ConfigDict:
  return base.cifar(preset, 'cifar100', {'name': 'resnet18'})

r"""ResNet-32 on CIFAR-100.

  for phase in pretrain search; do
    python -m experiments.$phase --config=experiments/configs/resnet32_cifar100.py \
      --workdir=runs/resnet32_cifar100
  done

Time and accuracy: not run at full size yet. Training images, to divide by the images/s of the
progress bar: pretrain 200 epochs x 45,000 = 9.0 M;
search 50 members x 660 epochs x 45,000 = 1,485.0 M;
fine-tuning 40 x 45,000 = 1.8 M; its all-ReLU control 700 x 45,000 = 31.5 M.

The preset `smoke` trains a narrow network on a few images: 142 CPU seconds for its search.
"""

from ml_collections import config_dict

from experiments.configs import base


def get_config(preset: str = '') -> config_dict.ConfigDict:
  return base.cifar(preset, 'cifar100', {'name': 'resnet32'})

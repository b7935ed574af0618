"""What options of fine-tuning do where every channel is a square, three seeds each.

  python -m experiments.pareto --config=experiments/configs/ablation.py --workdir=runs/ablation

The network is CNN-7 at quarter width on CIFAR-10. Squares in every layer are the hardest plan to
train, because a value that is too large grows from layer to layer. The settings are the defaults,
and in turn: polynomials that are clipped while they train (`range_clip`), ReLUs that become squares
slowly (`anneal_epochs`), no soft labels, and a narrow range with a strong penalty. The last one
learns from a public ResNet-32 from the first epoch of its all-ReLU network on. It is there if the
environment variable SAFENET_WEIGHTS_DIR names the folder of resnet32_cifar10.npz.

Accuracies are in pareto.csv. How many test images leave the range of the served numbers is said by
`experiments.export` and `experiments.fixed_point`, run on every folder.
"""

import os
from typing import Any

from ml_collections import config_dict

from experiments.configs import base


def get_config(preset: str = '') -> config_dict.ConfigDict:
  config = base.cifar(preset, 'cifar10', {'name': 'cnn7', 'pool_before_activation': False})
  config.unlock()
  # Nothing is searched: every layer has the ratio that is given.
  config.search.update(
    {
      'algorithm': 'partial',
      'partial_ratio': 1.0,
      'degrees': (2,),
      'population': 1,
      'iterations': 1,
      'node_cycles': 1,
      'joint_cycles': 1,
      'validation_images': 250,
    }
  )
  if not preset:
    config.model.width = 0.25
    config.pretrain.update({'epochs': 12, 'warmup_epochs': 1.0})
    config.finetune.update({'epochs': 6})
  return config.lock()


def settings() -> list[dict[str, Any]]:
  """What differs from the defaults, in turn."""
  found: list[dict[str, Any]] = [
    {},
    {'finetune.range_clip': 8.0},
    {'finetune.anneal_epochs': 2.0},
    {'finetune.distillation': 0.0},
    {'finetune.range_clip': 8.0, 'finetune.range_limit': 4.0, 'finetune.range_penalty': 10.0},
  ]
  if folder := os.environ.get('SAFENET_WEIGHTS_DIR'):
    teacher = {
      'teacher.weights': os.path.join(folder, 'resnet32_cifar10.npz'),
      # It was trained on images that were normalised by the statistics of ImageNet.
      'teacher.mean': (0.485, 0.456, 0.406),
      'teacher.std': (0.229, 0.224, 0.225),
    }
    found.append(teacher | {'pretrain.distillation': 0.9, 'finetune.distillation': 0.9})
  return found


def sweep(add):
  """One seed of all settings after the other, so that what is there can be compared."""
  for seed in range(3):
    for setting in settings():
      add(seed=seed, **setting)

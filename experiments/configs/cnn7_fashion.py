"""CNN-7 at quarter width on the embedded Fashion-MNIST images: the demo.

  for phase in pretrain search infer report; do
    python -m experiments.$phase --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
  done

The four commands take 3 min 12 s on two quiet cores, 4 min 29 s on busy ones. How many of the
ReLUs they replace, and at which accuracy, is in README, section Results.
Training images: pretrain 8 epochs x 8,000; search 6 members x 360 iterations x 64; fine-tuning
4 epochs x 8,000; its control 7 epochs x 8,000. The preset `smoke` takes about a minute.
"""

from ml_collections import config_dict

from experiments.configs import base
from experiments.lib import launcher


def get_config(preset: str = '') -> config_dict.ConfigDict:
  smoke = launcher.preset(preset, ('smoke',)) == 'smoke'
  config = base.create(
    {'name': 'cnn7', 'width': 0.25, 'pool_before_activation': False},
    'fashion_mnist',
    {'epochs': 8, 'warmup_epochs': 0.5, 'batch_size': 64, 'augment': False},
    {
      'population': 6,
      'node_cycles': 2,
      'joint_cycles': 4,
      'relu_budget': 10000,
      'validation_images': 1000,
      'batch_size': 64,
      'augment': False,
    },
    {'epochs': 4},
  )
  if smoke:
    config.pretrain.update({'epochs': 1})
    config.search.update(
      {
        'population': 2,
        'iterations': 2,
        'node_cycles': 1,
        'joint_cycles': 1,
        'validation_images': 250,
      }
    )
    config.finetune.update({'epochs': 1})
    config.secure.update({'images': 2, 'calibration_images': 50})
  return config.lock()


def sweep(add):
  """Three seeds of plans at three thresholds, by the tree and by plain PBT."""
  for algorithm in ('btpbt', 'pbt'):
    for drop in (0.005, 0.01, 0.02):
      for seed in range(3):
        add(**{'seed': seed, 'search.algorithm': algorithm, 'search.accuracy_drop': drop})

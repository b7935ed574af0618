"""Six planners at one budget on CIFAR-10, three seeds each.

  python -m experiments.pareto --config=experiments/configs/planners.py --workdir=runs/planners

They are the binary tree (`btpbt`), population based training without it (`pbt`), gates that one
network learns with its weights (`gates`), a controller trained by reinforcement learning
(`controller`), one ratio for all layers (`cw`), and whole layers as in Delphi (`layerwise`). The
network is CNN-7 at quarter width. All searches of a seed start from the same all-ReLU network,
train on 138,240 images in all, and have the same accuracy threshold. The results are in pareto.csv
and .png (ReLUs left and accuracy) and in search_progress.csv and .png (best score by images).
"""

from ml_collections import config_dict

from experiments.configs import base

ALGORITHMS = ('btpbt', 'pbt', 'gates', 'controller', 'cw', 'layerwise')


def get_config(preset: str = '') -> config_dict.ConfigDict:
  config = base.cifar(preset, 'cifar10', {'name': 'cnn7', 'pool_before_activation': False})
  if preset:
    return config
  config.unlock()
  config.model.width = 0.25
  config.pretrain.update({'epochs': 12, 'warmup_epochs': 1.0})
  config.search.update(
    {
      'population': 6,
      'iterations': 10,
      'node_cycles': 2,
      'joint_cycles': 4,
      'validation_images': 1000,
      'recalibration_batches': 4,
      # The learning rate never decays in a search, and A_t has to be below what that costs.
      'accuracy_drop': 0.05,
    }
  )
  config.finetune.update({'epochs': 1, 'recalibration_batches': 16})
  return config.lock()


def sweep(add):
  """One seed of all planners after the other, so that what is there can be compared."""
  for seed in range(3):
    for algorithm in ALGORITHMS:
      add(**{'seed': seed, 'search.algorithm': algorithm})

"""BTPBT beside PBT and the DRL controller at one budget, three seeds each (Figure 4b).

  python -m experiments.pareto --config=experiments/configs/figure4b.py --workdir=runs/figure4b

CNN-7 at quarter width on the embedded Fashion-MNIST images. All searches of a seed start from
one all-ReLU network and train as many members for as many iterations. It leaves
search_progress.csv and .png.
"""

from ml_collections import config_dict

from experiments.configs import cnn7_fashion


def get_config(preset: str = '') -> config_dict.ConfigDict:
  config = cnn7_fashion.get_config(preset).copy_and_resolve_references().unlock()
  config.finetune.epochs = 1  # what is compared is the search
  return config.lock()


def sweep(add):
  """Three algorithms, three seeds."""
  for algorithm in ('btpbt', 'pbt', 'controller'):
    for seed in range(3):
      add(**{'seed': seed, 'search.algorithm': algorithm})

"""Three searches at one budget, three seeds each (the paper's Figure 4b).

  python -m experiments.pareto --config=experiments/configs/figure4b.py --workdir=runs/figure4b

They are binary-tree PBT (`btpbt`), population based training without the tree (`pbt`), and a
controller trained by reinforcement learning (`controller`). The network is CNN-7 at quarter width,
the images are the embedded ones of Fashion-MNIST. All searches of a seed start from the same
all-ReLU network, and train equally many members for equally many iterations. The results are in
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

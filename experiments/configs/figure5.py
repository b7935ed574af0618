"""Delphi's layers, channels, a ratio per layer, and degrees too: what each adds (Figure 5).

  python -m experiments.pareto --config=experiments/configs/figure5.py --workdir=runs/figure5

CNN-7 at quarter width on the embedded Fashion-MNIST images, three seeds of every setting. All
searches of a seed start from one all-ReLU network, train as many members for as many iterations
and have the same A_t. It leaves pareto.csv and .png: ReLUs left and accuracy.
"""

from ml_collections import config_dict

from experiments.configs import cnn7_fashion


def get_config(preset: str = '') -> config_dict.ConfigDict:
  return cnn7_fashion.get_config(preset)


def sweep(add):
  """The four settings of section 4.1, three seeds."""
  for algorithm in ('layerwise', 'cw', 'cw_mp', 'cw_mp_md'):
    for seed in range(3):
      add(**{'seed': seed, 'search.algorithm': algorithm})

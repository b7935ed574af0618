"""What a larger space of plans adds, in four steps (the paper's Figure 5).

  python -m experiments.pareto --config=experiments/configs/figure5.py --workdir=runs/figure5

The spaces are whole layers as in Delphi (`layerwise`), one ratio of channels for all layers (`cw`),
a ratio for every layer (`cw_mp`), and a ratio and a degree for every layer (`cw_mp_md`). There are
three seeds of each. The network is CNN-7 at quarter width on CIFAR-10. All searches of a seed start
from the same all-ReLU network, train on 138,240 images in all, and have the same accuracy
threshold. The results, ReLUs left and accuracy, are in pareto.csv and .png.
"""

from ml_collections import config_dict

from experiments.configs import planners


def get_config(preset: str = '') -> config_dict.ConfigDict:
  return planners.get_config(preset)


def sweep(add):
  """The four settings of section 4.1, three seeds."""
  for seed in range(3):
    for algorithm in ('layerwise', 'cw', 'cw_mp', 'cw_mp_md'):
      add(**{'seed': seed, 'search.algorithm': algorithm})

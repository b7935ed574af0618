"""CNN-7 at quarter width on the embedded Fashion-MNIST images: the demo.

  for phase in pretrain search infer report; do
    python -m experiments.$phase --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
  done

About four minutes on two cores; the preset `smoke` about one.
"""

from ml_collections import config_dict

from experiments import launcher


def get_config(preset: str = '') -> config_dict.ConfigDict:
  smoke = launcher.preset(preset, ('smoke',)) == 'smoke'
  config = config_dict.ConfigDict({
      'seed': 0,
      'model': {'name': 'cnn7', 'width': 0.25, 'pool_before_activation': False},
      'data': {'name': 'fashion_mnist', 'directory': '', 'download': False},
      'pretrain': {
          'epochs': 8,
          'warmup_epochs': 0.5,
          'learning_rate': 0.1,
          'batch_size': 64,
          'augment': False,
      },
      'search': {
          'algorithm': 'btpbt',
          'population': 6,
          'iterations': 20,
          'node_cycles': 2,
          'joint_cycles': 4,
          'accuracy_drop': 0.02,  # A_t is this much below the all-ReLU network
          'literal': False,
          'cost': 'published',  # or measured: seconds_per_activation of cost_ledger
          'cost_ledger': '',
          'partial_ratio': 0.5,  # of algorithm partial: share of every layer's channels
          'subset_layers': 0,  # of layerwise_released: layers replaced, 0 tries every number
          'relu_budget': 10000,  # of budget: ReLUs left per image
          'strategy': 'map',  # or vmap, unroll, auto: how a device runs its members
          'mesh': True,  # shard members over all devices of all processes
          'validation_images': 1000,
          'learning_rate': 0.02,
          'batch_size': 64,
          'augment': False,
          'distillation': 0.5,
          'finetune_epochs': 4,
          'finetune_rate': 0.02,
      },
      'secure': {
          'images': 32,
          'calibration_images': 200,
      },
  })
  if smoke:
    config.pretrain.update({'epochs': 1})
    config.search.update({
        'population': 2, 'iterations': 2, 'node_cycles': 1, 'joint_cycles': 1,
        'validation_images': 250, 'finetune_epochs': 1,
    })
    config.secure.update({'images': 2, 'calibration_images': 50})
  return config.lock()


def sweep(add):
  """Three seeds of plans at three thresholds, by the tree and by plain PBT."""
  for algorithm in ('btpbt', 'pbt'):
    for drop in (0.005, 0.01, 0.02):
      for seed in range(3):
        add(**{'seed': seed, 'search.algorithm': algorithm, 'search.accuracy_drop': drop})

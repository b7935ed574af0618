r"""CNN-7 on CIFAR-10.

  for phase in pretrain search infer report; do
    python -m experiments.$phase --config=experiments/configs/cnn7_cifar10.py \
      --workdir=runs/cnn7_cifar10
  done

Time and accuracy: not run at full size yet. Training images, to divide by the images/s of the
progress bar: pretrain 200 epochs x 45,000 = 9.0 M;
search 50 members x 180 epochs x 45,000 = 405.0 M;
fine-tuning 40 x 45,000 = 1.8 M; its all-ReLU control 220 x 45,000 = 9.9 M.

The preset `smoke` trains a narrow network on a few images. The preset `two_cores` has full width,
and training short enough for two CPU cores: some 35 minutes for `pretrain` and 40 for `search`. Its
teacher is a ResNet-32: --config.teacher.weights has to name an .npz of that network's PyTorch
state_dict. The results are in experiments/results/README.md.
"""

from ml_collections import config_dict

from experiments.configs import base
from experiments.lib import launcher


def get_config(preset: str = '') -> config_dict.ConfigDict:
  reduced = launcher.preset(preset, ('smoke', 'two_cores')) == 'two_cores'
  model = {'name': 'cnn7', 'pool_before_activation': False}
  config = base.cifar('' if reduced else preset, 'cifar10', model)
  if not reduced:
    return config
  config.unlock()
  # The teacher was trained on images that were normalised by the statistics of ImageNet.
  config.teacher.update({'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)})
  config.pretrain.update({'epochs': 24, 'warmup_epochs': 1.0, 'distillation': 0.9})
  # The learning rate never decays in a search, and A_t has to be below what that costs: with A_t
  # two points below the all-ReLU network, searches stayed near 12 % of the channels.
  config.search.update(
    {
      'accuracy_drop': 0.06,
      'learning_rate': 0.01,
      'population': 6,
      'iterations': 10,
      'node_cycles': 5,
      'joint_cycles': 10,
      'validation_images': 1000,
      'recalibration_batches': 4,
      # The search itself goes without its teacher, to train more steps.
      'distillation': 0.0,
    }
  )
  config.finetune.update({'epochs': 7, 'recalibration_batches': 16, 'distillation': 0.9})
  return config.lock()

r"""ResNet-32 on CIFAR-100.

  for phase in pretrain search; do
    python -m experiments.$phase --config=experiments/configs/resnet32_cifar100.py \
      --workdir=runs/resnet32_cifar100
  done

Time and accuracy: not run at full size yet. Training images, to divide by the images/s of the
progress bar: pretrain 200 epochs x 45,000 = 9.0 M;
search 50 members x 660 epochs x 45,000 = 1,485.0 M;
fine-tuning 40 x 45,000 = 1.8 M; its all-ReLU control 700 x 45,000 = 31.5 M.

The preset `smoke` trains a narrow network on a few images: 142 CPU seconds for its search. The
preset `two_cores` has full width, and training short enough for two CPU cores: 36 epochs of some
two minutes for `pretrain`, and 45 minutes for `search`: gates with a budget, fine-tuning, and a
control. The results are in experiments/results/README.md.
"""

from ml_collections import config_dict

from experiments.configs import base
from experiments.lib import launcher


def get_config(preset: str = '') -> config_dict.ConfigDict:
  reduced = launcher.preset(preset, ('smoke', 'two_cores')) == 'two_cores'
  config = base.cifar('' if reduced else preset, 'cifar100', {'name': 'resnet32'})
  if not reduced:
    return config
  config.unlock()
  config.pretrain.update({'epochs': 36, 'warmup_epochs': 2.0})
  config.search.update(
    {
      'algorithm': 'gates_budget',
      'relu_budget': 121241,  # 40 % of 303,104
      'accuracy_drop': 0.06,
      # 40 cycles of 27 mini-batches: three epochs of one network.
      'population': 1,
      'iterations': 27,
      'node_cycles': 1,
      'joint_cycles': 9,
      'learning_rate': 0.01,
      'validation_images': 500,
      'recalibration_batches': 4,
      # Sums behind shortcuts reach farther out than the inputs of other activations.
      'range_limit': 16.0,
      'range_clip': 16.0,
    }
  )
  config.finetune.update({'epochs': 6, 'recalibration_batches': 16, 'distillation': 0.9})
  # Over 31 layers the rounding of weights adds up, most of all that of weights before squares.
  config.secure.weight_bits = 10
  return config.lock()

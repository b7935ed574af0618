"""A network that was trained elsewhere, from its ONNX file, and images of your own.

  for phase in pretrain search infer; do
    python -m experiments.$phase --config=experiments/configs/imported.py --workdir=runs/mine \\
      --config.model.onnx=mine.onnx --config.data.name=images
  done

docs/onnx.md goes through it. `pretrain` scores the network as it is; with pretrain.epochs it is
trained on first. Images are normalised with data.mean and data.std: those that the network was
trained with. The preset `smoke` takes two minutes at most with a small network.
"""

from ml_collections import config_dict

from experiments.configs import base
from experiments.lib import imported, launcher


def get_config(preset: str = '') -> config_dict.ConfigDict:
  smoke = launcher.preset(preset, ('smoke',)) == 'smoke'
  config = base.create(
    # `size` is (H, W) of the images, for a file that leaves it open.
    {'name': imported.NAME, 'onnx': '', 'size': ()},
    '',
    {'epochs': 0, 'warmup_epochs': 0.0, 'learning_rate': 0.01, 'batch_size': 32, 'augment': False},
    {
      'algorithm': 'gates',
      'population': 6,
      'node_cycles': 2,
      'joint_cycles': 4,
      'batch_size': 32,
      'learning_rate': 0.01,
      'augment': False,
    },
    {'epochs': 4, 'learning_rate': 0.01},
  )
  if smoke:
    config.search.update({'population': 2, 'iterations': 2, 'node_cycles': 1, 'joint_cycles': 1})
    config.finetune.update({'epochs': 1})
    config.secure.update({'images': 2, 'calibration_images': 50})
  return config.lock()

"""Writes a run's planned network to one file, which a server needs nothing else with.

  python -m experiments.export --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo \
    --out=model.safenet
  python -m experiments.serve --bundle=model.safenet --certificate=server.pem --key=server_key.pem

The file holds the weights, and is for its owner's eyes only. Its formats are chosen from
validation images, as `experiments.serve` chooses them.
"""

import pathlib

from experiments import launcher
from experiments import planned
from safenet_jax.protocol import bundle as bundles



def main() -> None:
  if not launcher.OUT.value:
    raise ValueError('no --out, want a file for the model')
  if not pathlib.Path(launcher.OUT.value).parent.is_dir():
    # Before calibration.
    raise ValueError(f'--out={launcher.OUT.value}: no such directory')
  bundles.save(launcher.OUT.value, planned.served(launcher.CONFIG.value).model)
  model = bundles.load(launcher.OUT.value)
  size = pathlib.Path(launcher.OUT.value).stat().st_size
  print(f'export: {len(model.linear)} linear and {len(model.activations)} activation layers, '
        f'{size / 1e6:.2f} MB in {launcher.OUT.value}')


if __name__ == '__main__':
  launcher.run(main)

"""Writes a run's planned network to one file, which is all that a server needs.

  python -m experiments.export --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo \
    --out=model.safenet
  safenet serve --bundle=model.safenet --certificate=server.pem --key=server_key.pem

The file holds the weights, so only its owner should read it. The network is in fixed point; how
many bits each layer has is chosen from validation images, as `experiments.serve` does it. With
--out=model.npz the file holds the network in float32, for `safenet_jax.load_planned`.
"""

import pathlib
from typing import Any

import numpy as np

from experiments.lib import launcher, served_model
from safenet_jax.approximation import planned_weights
from safenet_jax.console import directories
from safenet_jax.protocol.service import bundle as bundles
from safenet_jax.search import members


def main() -> None:
  if not launcher.OUT.value:
    raise ValueError('no --out, want a file for the model')
  directories.check_file('out', launcher.OUT.value)
  run = served_model.served(launcher.CONFIG.value)
  if launcher.OUT.value.endswith('.npz'):
    arrays: dict[str, Any] = planned_weights.flatten_planned(
      members.variables(run.planned), members.approximation(run.planned, run.task)
    )
    np.savez(launcher.OUT.value, **arrays)
  else:
    bundles.save(launcher.OUT.value, run.model)
    bundles.load(launcher.OUT.value)
  size = pathlib.Path(launcher.OUT.value).stat().st_size
  print(
    f'export: {len(run.model.linear)} linear and {len(run.model.public.activations)} activation '
    f'layers, {size / 1e6:.2f} MB in {launcher.OUT.value}'
  )


if __name__ == '__main__':
  launcher.run(main)

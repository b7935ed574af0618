"""Writes a run's planned network to one file, which is all that a server needs.

  python -m experiments.export --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo \
    --out=model.safenet
  safenet serve --bundle=model.safenet --certificate=server.pem --key=server_key.pem

The file holds the weights, so only its owner should read it. The network is in fixed point; how
many bits each layer has is chosen from validation images, as `experiments.serve` does it. With
--out=model.npz the file holds the network in float32, for `safenet_jax.load_planned`.
"""

from typing import Any

import numpy as np

from experiments.lib import launcher, served_model
from safenet_jax import atomic_files
from safenet_jax.approximation import planned_weights
from safenet_jax.protocol.service import bundle as bundles
from safenet_jax.search import members


def main() -> None:
  path = launcher.output_file()
  run = served_model.served(launcher.CONFIG.value)
  if path.suffix == '.npz':
    arrays: dict[str, Any] = planned_weights.flatten_planned(
      members.variables(run.planned), members.approximation(run.planned, run.task)
    )
    with atomic_files.writing(path, private=True) as file:
      np.savez(file, **arrays)
  else:
    bundles.save(path, run.model)
    bundles.load(path)
  size = path.stat().st_size
  print(
    f'export: {len(run.model.linear)} linear and {len(run.model.public.activations)} activation '
    f'layers, {size / 1e6:.2f} MB in {path}'
  )


if __name__ == '__main__':
  launcher.run(main)

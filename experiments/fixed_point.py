"""Scores a planned network in fixed point, as it is served, on all test images.

  python -m experiments.export --config=... --workdir=DIR --out=DIR/model.npz
  python -m experiments.fixed_point --workdir=DIR

Nothing is private here: these are the integers that a private inference would compute, in the
clear. The network comes from model.npz, its settings from config.json, so that neither a config nor
checkpoints are needed. fixed_point.json gets how many images are right in float and in fixed point,
how many classes are the same, and which images leave the range of the served numbers.
"""

import numpy as np

from experiments.configs import base
from experiments.lib import from_config, imported, launcher, served_model, test_sets
from safenet_jax.approximation import planned_weights
from safenet_jax.workdir import Workdir


def recorded(workdir: Workdir):
  """The config of a run with its recorded network, images and fixed point.

  ValueError where the network is in a file of its own, of which the run has the digest alone.
  """
  found = workdir.read_json('config.json', 'pretrain')
  if found['model']['name'] == imported.NAME:
    raise ValueError(f'the network of {workdir.path} is in an ONNX file, want one of the package')
  config = base.create(found['model'], found['data']['name'], {}, {})
  for section in ('data', 'secure'):
    known = {k: v for k, v in found.get(section, {}).items() if k in config[section]}
    config[section].update(known)
  return config


def main() -> None:
  if not launcher.WORKDIR.value:
    raise ValueError('no --workdir, want the directory of a run with model.npz')
  workdir = Workdir(launcher.WORKDIR.value)
  config = recorded(workdir)
  images = from_config.dataset(config)
  net = from_config.network(config, images)
  path = workdir / 'model.npz'
  if not path.exists():
    raise FileNotFoundError(f'no {path}: run experiments.export --out={path} first')
  launcher.claim(workdir, {})
  with np.load(path) as arrays:
    variables, approximation = planned_weights.load_planned(net, arrays)
  model = served_model.in_fixed_point(config, net, images, variables, approximation)
  with launcher.progress_bar('fixed point') as progress:
    found = test_sets.score(
      model,
      net,
      variables,
      approximation,
      *(np.asarray(part) for part in images.test),
      report=progress,
    )
  workdir.write_json('fixed_point.json', found._asdict())
  print(
    f'fixed_point: of {found.images} test images {found.float_correct} are right in float and '
    f'{found.correct} in fixed point, {found.agreement} classes are the same; {found.left} left '
    f'their formats, {found.distrusted} are distrusted, {found.missed} of the first are not'
  )


if __name__ == '__main__':
  launcher.run(main, needs_config=False)

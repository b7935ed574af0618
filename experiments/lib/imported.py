"""Networks and weights from a user's own files, which a config names."""

import functools
import hashlib
import os
from typing import Any

import numpy as np

from safenet_jax.approximation import planned_weights
from safenet_jax.models import architectures, weights
from safenet_jax.models.network import Network
from safenet_jax.onnx_files import file as onnx_file
from safenet_jax.onnx_files import reader

NAME = 'imported'
# Settings that name a file; a workdir records what is in it.
FILES = {'model': 'onnx', 'pretrain': 'weights'}


def read(model) -> reader.Imported | None:
  """The network that section `model` imports; None if it names none."""
  path = model.get('onnx', '')
  if not path:
    return None
  return _read(os.path.expanduser(path), tuple(model.get('size', ())))


@functools.lru_cache(maxsize=1)
def _read(path: str, size: tuple[int, ...]) -> reader.Imported:
  if len(size) not in (0, 2):
    raise ValueError(f'model.size {size}, want (H, W)')
  return reader.from_onnx(path, size=size or None)  # type: ignore[arg-type]


def build(classes: int, input_shape, onnx: str, size: tuple[int, ...] = ()) -> Network:
  """The network of an ONNX file, for `architectures.register`; the file says its shape."""
  del classes, input_shape
  found = read({'onnx': onnx, 'size': size})
  if found is None:
    raise ValueError('no --config.model.onnx, want the ONNX file of a trained network')
  return found.network


def start(config, net: Network) -> dict[str, Any] | None:
  """The weights that training starts with: those of pretrain.weights, else of model.onnx.

  A file of `experiments.export` will do, if its plan replaces nothing. ValueError for another plan
  or another network.
  """
  path = os.path.expanduser(config.pretrain.weights)
  if not path:
    found = read(config.model)
    return None if found is None else found.variables
  if path.endswith('.onnx'):
    given = _read(path, tuple(config.model.get('size', ()))).variables
    return weights.load_variables(net, weights.flatten_variables(given))
  arrays = weights.read(path)
  if 'activation0/mask' not in arrays:
    return weights.load(net, path)
  variables, approximation = planned_weights.load_planned(net, arrays)
  if any(np.asarray(layer.mask).any() for layer in approximation):
    raise ValueError(f'{path} has polynomials, want the weights of an all-ReLU network')
  return variables


def recorded(section: str, settings: dict[str, Any]) -> dict[str, Any]:
  """The settings of a section as a workdir records them: files by name and digest.

  So a run goes on with the same network, wherever its file is now, and with no other.
  """
  key = FILES.get(section, '')
  if not settings.get(key):
    return settings
  path = os.path.expanduser(settings[key])
  if path.endswith('.onnx'):
    digest = onnx_file.digest(path)
  else:
    with open(path, 'rb') as content:
      digest = hashlib.file_digest(content, 'sha256').hexdigest()
  return settings | {key: f'{os.path.basename(path)}, SHA-256 {digest[:16]}'}


architectures.register(NAME, build)

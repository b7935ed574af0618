"""A network's variables as a flat mapping of names to arrays, and back.

Names are those of `models.network` without the collection's. So an .npz file that
numpy.savez writes can hold a trained network:

    conv0/kernel [k, k, I / groups, O], dense0/kernel [I, O] (rows in the order h, w, c)
    conv0/bias, dense0/bias [O] where there is no batch norm, else
    conv0_bn/scale, conv0_bn/bias, conv0_bn/mean, conv0_bn/var [O]
    batch_norm0/scale, batch_norm0/bias, batch_norm0/mean, batch_norm0/var [C]
"""

from collections.abc import Mapping
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.models.network import Network


def flatten_variables(variables) -> dict[str, np.ndarray]:
  """The inverse of `load_variables`: numpy arrays by name; ValueError for what is no such tree."""
  try:
    return {name: np.asarray(array) for name, array in _leaves(variables).items()}
  except (AttributeError, TypeError):
    raise ValueError(
      f'variables of type {type(variables).__name__}, want those of network.init or load_variables'
    ) from None


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The arrays of an .npz file by name.

  Raises:
    OSError: it cannot be read.
    ValueError: it is no .npz file, or a damaged one.
  """
  with open(path, 'rb') as file:
    try:
      with np.load(file, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}
    # zipfile and numpy.format raise a dozen unrelated types on damaged input.
    except Exception:
      raise ValueError(
        f'{path} is damaged or of another kind, want an .npz file of plain arrays'
      ) from None


def load(network: Network, path: str | os.PathLike[str]) -> dict[str, Any]:
  """Variables of a network from an .npz file, in the names of this module or of a PyTorch ResNet.

  OSError and ValueError as of `read` and `load_variables`.
  """
  arrays = read(path)
  torch = any(name.endswith('running_mean') for name in arrays)
  return load_variables(network, convert_torch_resnet(arrays) if torch else arrays)


def load_variables(network: Network, arrays: Mapping[str, Any]) -> dict[str, Any]:
  """Variables of a network from arrays by name, such as an opened .npz.

  Args:
    network: whose variables are wanted.
    arrays: real numbers under the names and in the layouts of this module;
      'params/' or 'batch_stats/' may stand in front of a name.

  Returns:
    The tree that `network.apply` takes, float32.

  Raises:
    ValueError: weights that do not fit. It names every array that is missing, unknown,
      of another shape or not finite.
  """
  given, twice = {}, []
  for full in arrays:
    name = re.sub('^(params|batch_stats)/', '', full)
    if name in given:
      twice.append(f'{name} twice')
    given[name] = np.asarray(arrays[full])
  _check(network, given, twice)
  wanted = jax.eval_shape(network.init, jax.random.key(0))
  return {
    collection: {
      layer: {name: jnp.asarray(given[f'{layer}/{name}'], jnp.float32) for name in names}
      for layer, names in layers.items()
    }
    for collection, layers in wanted.items()
  }


def check(network: Network, variables) -> None:
  """ValueError unless these are finite variables of the network, as it takes them."""
  _check(network, flatten_variables(variables), [])


def _check(network: Network, given: Mapping[str, np.ndarray], wrong: list[str]) -> None:
  """ValueError if something is `wrong` already, or for arrays that do not fit; it names all."""
  shapes = array_shapes(network)
  wrong += [f'missing {name} {shape}' for name, shape in shapes.items() if name not in given]
  wrong += [f'unknown {name}' for name in given if name not in shapes]
  for name in shapes.keys() & given.keys():
    array = given[name]
    if array.shape != shapes[name]:
      wrong.append(f'{name} of shape {array.shape}, want {shapes[name]}')
    elif array.dtype.kind not in 'fiu' or not np.isfinite(array).all():
      wrong.append(f'{name} of {array.dtype}, want finite numbers')
    elif name.endswith('/var') and (array < 0).any():
      wrong.append(f'{name} of negative numbers, want variances')
  if wrong:
    raise ValueError(f'weights do not fit the network: {"; ".join(sorted(wrong))}')


def array_shapes(network: Network) -> dict[str, tuple[int, ...]]:
  """The shape of every array of a network's variables, by the names of this module."""
  found: dict[str, tuple[int, ...]] = {}
  for shape in records.shapes(network.layers, network.input_shape):
    layer, inputs, owner = shape.layer, shape.input_shape[-1], shape.name
    kinds: tuple[str, ...] = ('scale', 'bias', 'mean', 'var')
    if isinstance(layer, records.Conv | records.Dense):
      side = (layer.kernel,) * 2 if isinstance(layer, records.Conv) else ()
      found[f'{owner}/kernel'] = *side, inputs // getattr(layer, 'groups', 1), layer.features
      owner, kinds = (f'{owner}_bn', kinds) if layer.batch_norm else (owner, ('bias',))
    elif not isinstance(layer, records.BatchNorm):
      continue
    found |= {f'{owner}/{kind}': shape.output_shape[-1:] for kind in kinds}
  return found


def untrained_variables(network: Network) -> dict[str, Any]:
  """Variables like those of `network.init`: He-normal kernels, and all else as training starts.

  They are the same every time. Nothing that depends on the network is traced or compiled.
  """
  shapes: dict[str, Any] = {}
  for full, shape in array_shapes(network).items():
    layer, name = full.split('/')
    collection = 'batch_stats' if name in ('mean', 'var') else 'params'
    place = shapes.setdefault(collection, {}).setdefault(layer, {})
    place[name] = jax.ShapeDtypeStruct(shape, np.float32)
  flat, tree = jax.tree_util.tree_flatten_with_path(shapes)
  drawn = np.asarray(jax.random.normal(jax.random.key(0), (sum(x.size for _, x in flat),)))
  found, start = [], 0
  for path, x in flat:
    kind, end = path[-1].key, start + x.size
    if kind == 'kernel':
      scale = np.float32(np.sqrt(2 / (x.size // x.shape[-1])))
      found.append(drawn[start:end].reshape(x.shape) * scale)
    else:
      found.append(np.full(x.shape, kind in ('scale', 'var'), np.float32))
    start = end
  return jax.tree_util.tree_unflatten(tree, found)


def convert_torch_resnet(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """A PyTorch state_dict of a CIFAR ResNet of basic blocks, for `load_variables`.

  Save it in PyTorch with

      numpy.savez('resnet.npz', **{k: v.numpy() for k, v in model.state_dict().items()})

  Args:
    arrays: arrays by PyTorch's names. The layers are conv1, bn1,
      layer{1,2,...}.{i}.{conv1,bn1,conv2,bn2}, projections as shortcut.{0,1} or
      downsample.{0,1} (convolution, batch norm), and linear or fc. Kernels are
      [O, I, k, k] and [O, I]; a batch norm has weight, bias, running_mean and
      running_var. DataParallel's prefix 'module.' and num_batches_tracked are dropped.

  Returns:
    Arrays by the names of this module, for `resnet32`, `resnet18` or another
    depth and width of the same layout.

  Raises:
    ValueError: an array is not of that layout; it is named.
  """
  parsed = {
    name: _parse(name.removeprefix('module.'))
    for name in arrays
    if not name.endswith('num_batches_tracked')
  }
  # Records count a block's convolutions in walking order: branch, then shortcut.
  convolutions = sorted({position for position, *_ in parsed.values()} - {_DENSE})
  converted = {}
  for name, (position, norm, parameter) in parsed.items():
    layer = 'dense0' if position == _DENSE else f'conv{convolutions.index(position)}'
    kind = (_BATCH_NORM if norm else _LINEAR).get(parameter)
    if kind is None:
      raise ValueError(f'{name}, want a parameter of a convolution, batch norm or dense layer')
    array = np.asarray(arrays[name])
    if kind == 'kernel':
      array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    converted[f'{layer}_bn/{kind}' if norm else f'{layer}/{kind}'] = array
  return converted


_DENSE = (-1, -1, -1)
_LINEAR = {'weight': 'kernel', 'bias': 'bias'}
_BATCH_NORM = {'weight': 'scale', 'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}
_BLOCK = re.compile(
  r'layer(\d+)\.(\d+)\.(?:(conv|bn)([12])|(?:shortcut|downsample)\.([01]))\.(\w+)'
)


def _parse(name: str) -> tuple[tuple[int, int, int], bool, str]:
  """(stage, block, convolution), whether it is the batch norm behind it, and the parameter."""
  if found := re.fullmatch(r'(?:linear|fc)\.(\w+)', name):
    return _DENSE, False, found[1]
  if found := re.fullmatch(r'(conv|bn)1\.(\w+)', name):
    return (0, 0, 0), found[1] == 'bn', found[2]
  if found := _BLOCK.fullmatch(name):
    stage, block, kind, convolution, projection, parameter = found.groups()
    position = int(stage), int(block), int(convolution or 3)
    return position, kind == 'bn' or projection == '1', parameter
  raise ValueError(f'{name} is not of a CIFAR ResNet: want conv1, bn1, layer1.0.conv1, ... or fc')


def _leaves(variables) -> dict[str, Any]:
  return {
    f'{layer}/{name}': array
    for collection in variables.values()
    for layer, arrays in collection.items()
    for name, array in arrays.items()
  }

"""Weights by name: round trips, what is refused, PyTorch's layout, a public ResNet-32."""

import os
import pathlib

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.models import architectures, layers, weights
from safenet_jax.models import network as networks

OWN = networks.Network(
  (
    layers.Conv(4),
    layers.Activation(),
    layers.Conv(4, batch_norm=False, groups=2),
    layers.BatchNorm(),
    layers.Flatten(),
    layers.BatchNorm(),
    layers.Dense(5, batch_norm=True),
    layers.Activation(),
    layers.Dense(3),
  ),
  (6, 6, 2),
)


def test_what_an_npz_brings_back_is_what_was_saved(tmp_path):
  variables = OWN.init(jax.random.key(0))
  flat = weights.flatten_variables(variables)
  assert set(flat) == {
    'conv0/kernel',
    'conv0_bn/scale',
    'conv0_bn/bias',
    'conv0_bn/mean',
    'conv0_bn/var',
    'conv1/kernel',
    'conv1/bias',
    *(f'batch_norm{i}/{kind}' for i in range(2) for kind in ('scale', 'bias', 'mean', 'var')),
    'dense0/kernel',
    'dense0_bn/scale',
    'dense0_bn/bias',
    'dense0_bn/mean',
    'dense0_bn/var',
    'dense1/kernel',
    'dense1/bias',
  }
  np.savez(tmp_path / 'own.npz', **flat)
  with np.load(tmp_path / 'own.npz') as arrays:
    loaded = weights.load_variables(OWN, arrays)
  jax.tree.map(np.testing.assert_array_equal, loaded, dict(variables))
  images = jnp.ones((1, 6, 6, 2))
  np.testing.assert_array_equal(OWN.apply(loaded, images), OWN.apply(variables, images))


def test_names_may_carry_their_collection():
  flat = weights.flatten_variables(OWN.init(jax.random.key(0)))
  full = {
    f'{"batch_stats" if name.endswith(("mean", "var")) else "params"}/{name}': array
    for name, array in flat.items()
  }
  loaded = weights.load_variables(OWN, full)
  np.testing.assert_array_equal(loaded['params']['conv0']['kernel'], flat['conv0/kernel'])


def test_one_error_names_all_that_is_wrong():
  flat = weights.flatten_variables(OWN.init(jax.random.key(0)))
  del flat['conv1/bias'], flat['conv0_bn/mean']
  flat['conv9/kernel'] = np.zeros(3)
  flat['conv0/kernel'] = flat['conv0/kernel'].transpose(3, 2, 0, 1)
  flat['dense1/bias'] = flat['dense1/bias'] * np.nan
  flat['params/dense1/kernel'] = flat['dense1/kernel']
  with pytest.raises(ValueError) as error:
    weights.load_variables(OWN, flat)
  for message in (
    r'missing conv1/bias (4,)',
    'missing conv0_bn/mean',
    'unknown conv9/kernel',
    'conv0/kernel of shape (4, 2, 3, 3), want (3, 3, 2, 4)',
    'dense1/bias of float32',
    'dense1/kernel twice',
  ):
    assert message in str(error.value)
  assert '\n' not in str(error.value)


def torch_state(planes, blocks, classes, projected, seed=0):
  """A state_dict in PyTorch's names and layouts, of random numbers."""
  rng = np.random.default_rng(seed)
  state = {}

  def conv(name, norm, size, out, into):
    state[f'{name}.weight'] = rng.normal(0, 1 / np.sqrt(into * size**2), (out, into, size, size))
    state[f'{norm}.weight'] = rng.uniform(0.5, 1.5, out)
    state[f'{norm}.bias'] = rng.normal(0, 0.1, out)
    state[f'{norm}.running_mean'] = rng.normal(0, 0.1, out)
    state[f'{norm}.running_var'] = rng.uniform(0.5, 1.5, out)
    state[f'{norm}.num_batches_tracked'] = np.asarray(7)

  conv('conv1', 'bn1', 3, planes[0], 3)
  into = planes[0]
  for stage, out in enumerate(planes, 1):
    for block in range(blocks):
      at = f'layer{stage}.{block}'
      conv(f'{at}.conv1', f'{at}.bn1', 3, out, into)
      conv(f'{at}.conv2', f'{at}.bn2', 3, out, out)
      if projected and into != out:
        conv(f'{at}.{projected}.0', f'{at}.{projected}.1', 1, out, into)
      into = out
  state['fc.weight'] = rng.normal(0, 0.3, (classes, into))
  state['fc.bias'] = rng.normal(0, 0.1, classes)
  return {name: np.asarray(array, np.float32) for name, array in state.items()}


def torch_forward(state, x, stages, blocks, projected):
  """The logits as PyTorch defines them: NCHW, OIHW, padding 1, every second from the first."""

  def norm(name, x):
    mean, var, scale, bias = (
      state[f'{name}.{p}'][:, None, None] for p in ('running_mean', 'running_var', 'weight', 'bias')
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

  def conv(name, x, stride, pad):
    return lax.conv_general_dilated(x, state[f'{name}.weight'], (stride,) * 2, [(pad, pad)] * 2)

  x = jax.nn.relu(norm('bn1', conv('conv1', x, 1, 1)))
  for stage in range(1, stages + 1):
    for block in range(blocks):
      at, stride = f'layer{stage}.{block}', 2 if stage > 1 and block == 0 else 1
      y = jax.nn.relu(norm(f'{at}.bn1', conv(f'{at}.conv1', x, stride, 1)))
      y = norm(f'{at}.bn2', conv(f'{at}.conv2', y, 1, 1))
      if stride == 2:
        x = norm(f'{at}.{projected}.1', conv(f'{at}.{projected}.0', x, 2, 0))
      x = jax.nn.relu(x + y)
  return x.mean((2, 3)) @ state['fc.weight'].T + state['fc.bias']


@pytest.mark.parametrize('projected, prefix', [('shortcut', ''), ('downsample', 'module.')])
def test_a_converted_resnet18_computes_what_pytorch_does(projected, prefix):
  state = torch_state((4, 8, 16, 32), 2, 10, projected)
  net = architectures.resnet18(width=1 / 16, input_shape=(16, 16, 3))
  named = {prefix + name: array for name, array in state.items()}
  variables = weights.load_variables(net, weights.convert_torch_resnet(named))
  images = jax.random.normal(jax.random.key(0), (3, 16, 16, 3))
  expected = torch_forward(state, images.transpose(0, 3, 1, 2), 4, 2, projected)
  np.testing.assert_allclose(net.apply(variables, images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('name', ['features.0.weight', 'layer1.0.conv3.weight', 'bn1.scale'])
def test_arrays_of_another_layout_are_named(name):
  with pytest.raises(ValueError, match=name):
    weights.convert_torch_resnet({'conv1.weight': np.zeros((4, 3, 3, 3)), name: np.zeros(4)})


@pytest.mark.parametrize(
  'count, right', [(500, 466), pytest.param(10_000, 9263, marks=pytest.mark.slow)]
)
def test_a_public_resnet32_keeps_its_accuracy(count, right):
  """92.6 % is published for these weights."""
  for variable in ('SAFENET_DATA_DIR', 'SAFENET_WEIGHTS_DIR'):
    if not os.environ.get(variable):
      pytest.skip(f'{variable} is not set: no CIFAR-10 images or no public ResNet-32')
  path = pathlib.Path(os.environ['SAFENET_WEIGHTS_DIR']) / 'resnet32_cifar10.npz'
  with np.load(path) as arrays:
    converted = weights.convert_torch_resnet(arrays)
  net = architectures.resnet32()
  variables = weights.load_variables(net, converted)
  images, labels = data.load('cifar10').test

  @jax.jit
  def classify(images):
    # Trained with the statistics of ImageNet.
    normal = data.normalise(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return net.apply(variables, normal).argmax(-1)

  parts = [slice(first, first + 500) for first in range(0, count, 500)]
  hits = sum((np.asarray(classify(images[part])) == labels[part]).sum() for part in parts)
  # Another machine's rounding may turn an image in a thousand.
  assert abs(hits - right) <= max(1, count // 1000)


def test_untrained_variables_are_those_of_an_initialised_network_but_for_the_draw():
  records = layers.Conv(32), layers.Activation(), layers.Flatten(), layers.Dense(3)
  net = networks.Network(records, (6, 6, 8))
  found, initial = weights.untrained_variables(net), net.init(jax.random.key(1))
  assert jax.tree.structure(found) == jax.tree.structure(initial)
  for (path, ours), theirs in zip(
    jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(initial)
  ):
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    if path[-1].key != 'kernel':
      np.testing.assert_array_equal(ours, theirs)
    elif ours.size > 1000:
      np.testing.assert_allclose(ours.std(), theirs.std(), rtol=0.1)


@pytest.mark.parametrize(
  'net', [OWN, *(architectures.build(n) for n in architectures.ARCHITECTURES)]
)
def test_shapes_are_those_of_what_flax_makes(net):
  made = jax.eval_shape(net.init, jax.random.key(0))
  shapes = {
    f'{layer}/{name}': array.shape
    for collection in made.values()
    for layer, arrays in collection.items()
    for name, array in arrays.items()
  }
  assert weights.array_shapes(net) == shapes


def test_an_npz_file_of_weights_is_read_and_another_file_is_named(tmp_path):
  np.savez(tmp_path / 'a.npz', kernel=np.arange(3.0))
  np.testing.assert_array_equal(weights.read(tmp_path / 'a.npz')['kernel'], np.arange(3.0))
  np.save(tmp_path / 'b.npy', np.arange(3))
  (tmp_path / 'c.npz').write_bytes((tmp_path / 'a.npz').read_bytes()[:100])
  (tmp_path / 'd.npz').write_bytes(b'')
  for name in ('b.npy', 'c.npz', 'd.npz'):
    with pytest.raises(ValueError, match=f'{name} is damaged or of another kind, want an .npz'):
      weights.read(tmp_path / name)
  with pytest.raises(FileNotFoundError):
    weights.read(tmp_path / 'none.npz')

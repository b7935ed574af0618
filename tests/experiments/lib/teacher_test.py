"""Who teaches in a run: a network from elsewhere, its own all-ReLU one, or nobody."""

import pathlib
import re

import jax
import numpy as np
import pytest

from experiments.configs import cnn7_fashion
from experiments.lib import from_config
from safenet_jax.models import architectures, weights
from safenet_jax.search.training import Training
from tests.experiments.commands_test import run, SMALL

DISTILLED = Training(distillation=0.5)


def config(**teacher):
  found = cnn7_fashion.get_config('smoke').copy_and_resolve_references()
  found.unlock()
  found.data.limit = 64
  found.teacher.update(teacher)
  return found


@pytest.fixture(scope='module')
def images():
  return from_config.dataset(config())


def torch_names(variables):
  """A state_dict of a ResNet-32, from our names."""
  parts = {'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
  found = {}
  for name, array in weights.flatten_variables(variables).items():
    layer, part = name.split('/')
    kind, number = re.fullmatch(r'(conv|dense)(\d+)(?:_bn)?', layer).groups()
    block, place = divmod(int(number) - 1, 2)
    prefix = f'layer{block // 5 + 1}.{block % 5}.' if int(number) else ''
    place = place + 1 if int(number) else 1
    if kind == 'dense':
      found['linear.weight' if part == 'kernel' else 'linear.bias'] = array.T
    elif part == 'kernel':
      found[f'{prefix}conv{place}.weight'] = array.transpose(3, 2, 0, 1)
    else:
      found[f'{prefix}bn{place}.{parts[part]}'] = array
  return found


def test_nobody_teaches_without_distillation(images):
  assert from_config.teacher(config(), images, Training()) is None


def test_a_run_is_taught_by_its_own_network(images):
  options = DISTILLED
  given = config()
  net = from_config.network(given, images)
  first = from_config.start(given, net, Training())
  teacher = from_config.teacher(given, images, options, (net, first))
  assert teacher.by_batch and teacher.variables['params'] is first.params
  with pytest.raises(ValueError, match='no teacher.weights, want the .npz'):
    from_config.teacher(given, images, options)


@pytest.mark.parametrize('layout', ['own', 'torch'])
def test_a_network_from_elsewhere_goes_before_it(images, tmp_path, monkeypatch, layout):
  build = architectures.build
  monkeypatch.setattr(
    architectures, 'build', lambda name, **options: build(name, **{'width': 0.25} | options)
  )
  net = architectures.build('resnet32', input_shape=(28, 28, 1))
  variables = jax.jit(net.init)(jax.random.key(3))
  stats = jax.tree.map(lambda a: a + 0.25, variables['batch_stats'])
  variables = {'params': variables['params'], 'batch_stats': stats}
  convert = weights.flatten_variables if layout == 'own' else torch_names
  np.savez(tmp_path / 'teacher.npz', **convert(variables))
  given = config(weights=str(tmp_path / 'teacher.npz'), mean=(0.25,), std=(0.5,))
  own = from_config.network(given, images)
  teacher = from_config.teacher(
    given, images, DISTILLED, (own, from_config.start(given, own, Training()))
  )
  some = np.asarray(images.train.images[:4])
  np.testing.assert_allclose(
    teacher.logits(some), net.apply(variables, (some / 255 - 0.25) / 0.5), rtol=1e-4, atol=1e-4
  )


def test_a_run_is_taught_from_its_first_step(tmp_path):
  net = architectures.cnn7(input_shape=(28, 28, 1))
  path = tmp_path / 'teacher.npz'
  np.savez(path, **weights.flatten_variables(jax.jit(net.init)(jax.random.key(0))))
  taught = '--config.teacher.network=cnn7', f'--config.teacher.weights={path}'
  distilled = '--config.pretrain.distillation=0.9'
  flags = *SMALL, f'--workdir={tmp_path / "run"}', '--config.model.width=0.125', distilled
  missing = run('pretrain', *flags, code=2)
  assert missing.stderr.startswith('error: pretrain.distillation 0.9 and no teacher.weights')
  assert not pathlib.Path(tmp_path / 'run').exists()
  wrong = run('pretrain', *flags, *taught, '--config.teacher.network=resnet32', code=2)
  assert 'weights do not fit the network' in wrong.stderr
  run('pretrain', *flags, *taught)
  other = run('pretrain', *flags, '--config.pretrain.distillation=0', code=2)
  assert 'was written with teacher.' in other.stderr

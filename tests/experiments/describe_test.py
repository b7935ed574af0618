"""`describe` for every config: no images, no workdir, the total on the last line."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from experiments.lib import from_config
from safenet_jax import data
from safenet_jax.models import architectures
from safenet_jax.report import tables

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIGS = sorted((ROOT / 'experiments/configs').glob('*_cifar*.py'))
TOTALS = {'cnn7': 173_056, 'vgg16': 276_992, 'resnet32': 303_104, 'resnet18': 557_056}


def describe(*flags, code=0):
  environment = {k: v for k, v in os.environ.items() if k != 'SAFENET_DATA_DIR'}
  found = subprocess.run(
    [sys.executable, '-m', 'experiments.describe', *flags],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert found.returncode == code, found.stderr[-2000:]
  return found


def test_the_last_line_is_the_total_of_activations():
  lines = describe('--config=experiments/configs/cnn7_cifar10.py').stdout.splitlines()
  assert lines[-2:] == ['served in modes: ot, delphi, gazelle, minionn', 'activations: 173056']
  (row,) = (line.split() for line in lines if 'activation0' in line)
  assert row == ['activation0', '32x32x64', '65,536', '37.9%']
  (total,) = (line.split() for line in lines if 'total' in line)
  assert total == ['total', '165,354', '61,089,792', '173,056', '100.0%']


def test_bad_input_is_one_line_and_code_2():
  flags = '--config=experiments/configs/vgg16_cifar10.py', '--config.model.width=0.0001'
  found = describe(*flags, code=2)
  assert re.search('width', found.stderr) and found.stderr.count('\n') == 1


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_the_papers_network_on_its_data(path):
  module = __import__(f'experiments.configs.{path.stem}', fromlist=['get_config'])
  full, smoke = module.get_config(), module.get_config('smoke')
  name, dataset = path.stem.split('_')
  assert (full.model.name, full.data.name) == (name, dataset) == (smoke.model.name, dataset)
  phases = {'pretrain', 'search', 'finetune', 'secure'}
  assert set(full) == {'seed', 'model', 'data', 'teacher'} | phases
  assert (full.pretrain.batch_size, full.pretrain.augment, full.data.limit) == (128, True, 0)
  assert smoke.model.width < 1 and 0 < smoke.data.limit < 1000
  assert f'configs/{path.name}' in module.__doc__
  _, rows = tables.architecture(from_config.network(full))
  assert rows[-1][-2] == f'{TOTALS[name]:,}'
  with pytest.raises(ValueError, match='smoke'):
    module.get_config('fast')


def test_parameters_and_macs_are_counted_per_layer():
  header, rows = tables.architecture(architectures.resnet18(width=1 / 64, input_shape=(8, 8, 3)))
  by_name = {row[0]: dict(zip(header, row)) for row in rows}
  # A 3x3 kernel from 1 to 2 channels and two numbers of batch norm each.
  conv = by_name['conv5']
  assert conv['kind'] == '3x3, stride 2, bn' and conv['output'] == '4x4x2'
  assert (conv['parameters'], conv['MACs']) == ('22', '288')
  assert by_name['conv7']['kind'] == '1x1, stride 2, bn'
  assert by_name['average_pool0']['kind'] == 'whole map'


def test_published_shapes_are_those_of_the_embedded_images():
  images = data.load('fashion_mnist')
  assert data.SHAPES['fashion_mnist'] == (images.classes, images.train.images.shape[1:])

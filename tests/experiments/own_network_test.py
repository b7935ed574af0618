"""A user's own network through the commands, by a config of theirs; it has no batch norm."""

import json
import pathlib
import re
import shutil

import pytest

from tests.experiments import describe_test
from tests.experiments.commands_test import run

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIG = """
from experiments.configs import base
import safenet_jax as safenet
from safenet_jax import Activation, AveragePool, Conv, Dense, Flatten


def own(classes, input_shape, features):
  layers = (
    AveragePool(4), Conv(features, batch_norm=False), Activation(), Flatten(),
    Dense(16), Activation(), Dense(classes),
  )
  return safenet.Network(layers, input_shape)


safenet.register('own', own)


def get_config(preset=''):
  config = base.create(
    {'name': 'own', 'features': 8}, 'fashion_mnist',
    {'epochs': 2, 'warmup_epochs': 0.0, 'batch_size': 32, 'augment': False, 'ema': 0.9},
    {
      'population': 2, 'iterations': 4, 'node_cycles': 1, 'joint_cycles': 1, 'batch_size': 32,
      'augment': False, 'accuracy_drop': 1.0,
    },
    {'epochs': 1},
  )
  config.data.limit = 512
  config.secure.update({'images': 2, 'calibration_images': 50})
  return config.lock()
"""


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  path = tmp_path_factory.mktemp('own')
  (path / 'config.py').write_text(CONFIG)
  run('pretrain', f'--config={path / "config.py"}', f'--workdir={path / "run"}')
  return path


def test_it_is_searched_scored_and_served(pretrained):
  shutil.copytree(pretrained / 'run', pretrained / 'searched')
  flags = (f'--config={pretrained / "config.py"}', f'--workdir={pretrained / "searched"}')
  for phase in ('search', 'infer'):
    run(phase, *flags)
  plan = json.loads((pretrained / 'searched/plan.json').read_text())
  assert plan['network'] == 'own' and len(plan['ratio']) == 2
  served = json.loads((pretrained / 'searched/client_ledger.json').read_text())
  (scored,) = json.loads((pretrained / 'searched/evaluations.json').read_text())
  assert served['agreement'] == 2
  assert scored['phase'] == 'finetune' and scored['split'] == 'test' and not scored['repeated']


def test_a_plan_of_it_is_trained(pretrained):
  plan = {'network': 'own', 'ratio': [10, 10], 'degree': [2, 3]}
  (pretrained / 'plan.json').write_text(json.dumps(plan))
  run(
    'finetune',
    f'--config={pretrained / "config.py"}',
    f'--workdir={pretrained / "run"}',
    f'--plan={pretrained / "plan.json"}',
  )
  found = json.loads((pretrained / 'run/plan.json').read_text())
  assert {name: found[name] for name in plan} == plan


def test_training_does_not_begin_for_what_nobody_serves(tmp_path):
  # Windows at the border have fewer values: such means have no common divisor.
  odd = 'AveragePool(5, 2, ((2, 2), (2, 2)), count_padding=False)'
  (tmp_path / 'config.py').write_text(CONFIG.replace('AveragePool(4)', odd))
  flags = f'--config={tmp_path / "config.py"}', f'--workdir={tmp_path / "run"}'
  found = run('pretrain', *flags, code=2)
  assert 'error: the network cannot be served: average_pool0: ' in found.stderr
  assert found.stderr.count('\n') == 1
  assert not (tmp_path / 'run').exists()


def test_the_config_of_readme_describes_its_network(tmp_path):
  blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
  (code,) = (block for block in blocks if 'get_config' in block)
  (tmp_path / 'mine.py').write_text(code)
  text = describe_test.describe(f'--config={tmp_path / "mine.py"}').stdout
  # 32 channels of 32 x 32, and of 16 x 16 after the pool.
  assert text.splitlines()[-1] == f'activations: {32 * 32 * 32 + 32 * 16 * 16}'

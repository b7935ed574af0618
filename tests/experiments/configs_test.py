"""Configs name every option of training, and their docstrings hold the sums."""

import dataclasses
import importlib
import pathlib
import re

import pytest

from experiments.configs import base
from experiments.lib import from_config
from safenet_jax.models.network import activation_channels
from safenet_jax.search.planners import btpbt
from safenet_jax.search.training import Training

ROOT = pathlib.Path(__file__).parent.parent.parent
NAMES = sorted(
  path.stem for path in (ROOT / 'experiments/configs').glob('*.py') if path.stem != 'base'
)
OPTIONS = {field.name: field.default for field in dataclasses.fields(Training)}
del OPTIONS['polynomials']  # not for users: a phase decides
# Options of fine-tuning that a config sets, so that they do not follow the search.
OWN = {(name, ''): ('recalibration_batches',) for name in ('planners', 'figure5')}


def config(name, preset=''):
  return importlib.import_module(f'experiments.configs.{name}').get_config(preset)


def other(value):
  """A valid value that is not this one."""
  if isinstance(value, str):
    return 'float32'
  return not value if isinstance(value, bool) else value / 2 + 0.375


@pytest.mark.parametrize('preset', ['', 'smoke'])
@pytest.mark.parametrize('name', NAMES)
def test_every_option_of_training_can_be_overridden_in_every_phase(name, preset):
  for option, default in OPTIONS.items():
    changed = config(name, preset)
    fine = from_config.training(changed.finetune)
    follows = dataclasses.asdict(from_config.training(changed.search))
    for name_ in OWN.get((name, preset), ()):
      follows[name_] = getattr(fine, name_)
    assert dataclasses.asdict(fine) == follows, 'fine-tuning follows the search'
    value = type(default)(other(getattr(fine, option)))
    changed.finetune[option] = value
    assert getattr(from_config.training(changed.finetune), option) == value
    assert getattr(from_config.training(changed.search), option) != value
    if option not in base.POLYNOMIAL:
      changed.pretrain[option] = value
      assert getattr(from_config.training(changed.pretrain), option) == value


def test_fine_tuning_follows_an_override_of_the_search():
  changed = config('cnn7_fashion')
  changed.search.ema = 0.5
  changed.finetune.momentum = 0.8
  changed.search.momentum = 0.7
  fine = from_config.training(changed.finetune)
  assert (fine.ema, fine.momentum) == (0.5, 0.8)
  assert changed.finetune.to_dict()['ema'] == 0.5  # as it is claimed


def test_an_option_that_is_set_no_longer_follows_the_search():
  made = base.create(
    {'name': 'cnn7'}, 'fashion_mnist', {'ema': 0.25}, {'momentum': 0.5}, {'temperature': 2.0}
  )
  made.search.update({'momentum': 0.6, 'temperature': 3.0, 'ema': 0.75})
  fine = from_config.training(made.finetune)
  assert (fine.momentum, fine.temperature, fine.ema) == (0.6, 2.0, 0.75)
  assert made.pretrain.ema == 0.25


@pytest.mark.parametrize('section', ['pretrain', 'search', 'finetune'])
def test_a_config_that_changes_what_is_no_setting_is_refused(section):
  changes = {'pretrain': {}, 'search': {}} | {section: {'finetune_epochs': 1}}
  with pytest.raises(ValueError, match=rf'{section}\.finetune_epochs is no setting, want one of'):
    base.create({'name': 'cnn7'}, 'fashion_mnist', **changes)


@pytest.mark.parametrize('name', [name for name in NAMES if name.endswith(('cifar10', 'cifar100'))])
def test_docstrings_count_the_training_images(name):
  full = config(name)
  text = ' '.join(importlib.import_module(f'experiments.configs.{name}').__doc__.split())
  layers = len(activation_channels(from_config.network(full)))
  steps = btpbt.schedule(layers, full.search.node_cycles, full.search.joint_cycles)
  epochs = round(sum(s.cycles for s in steps) * full.search.iterations / (45_000 // 128))
  assert f'search {full.search.population} members x {epochs} epochs' in text
  tuned = full.finetune.epochs
  total = {
    'pretrain': full.pretrain.epochs,
    'search': full.search.population * epochs,
    'fine-tuning': tuned,
    'control': tuned + epochs,
  }
  for phase, count in total.items():
    assert re.search(rf'\b{phase} [^;]*?= {count * 45_000 / 1e6:,.1f} M', text), (phase, count)
  assert 'not run at full size yet' in text

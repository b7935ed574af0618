"""Every setting of a config is checked when it is read."""

import math
import numbers

import pytest

from experiments.configs import base, cnn7_fashion
from experiments.lib import settings
from safenet_jax import ranges
from tests.experiments import configs_test


def changed(**sections):
  config = cnn7_fashion.get_config('smoke').unlock()
  for name, values in sections.items():
    if isinstance(values, dict):
      config[name].update(values)
    else:
      config[name] = values
  return config


@pytest.mark.parametrize('preset', ['', 'smoke'])
@pytest.mark.parametrize('name', configs_test.NAMES)
def test_every_number_of_every_config_has_a_range_and_is_in_it(name, preset):
  config = configs_test.config(name, preset)
  settings.check(config)
  flat = {'': {'seed': config.seed}} | {k: v for k, v in config.to_dict().items() if k != 'seed'}
  for section, values in flat.items():
    for setting, value in values.items():
      each = value if isinstance(value, tuple) else (value,)
      if any(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in each):
        assert setting in ranges.RANGES, f'{section}.{setting}'


def test_all_faults_of_all_sections_are_in_one_message():
  wrong = changed(
    seed=-1,
    pretrain={'epochs': 0},
    search={'batch_size': 0, 'algorithm': 'annealing', 'degrees': (1,)},
    data={'name': 'mnits'},
    model={'name': 'cnn9'},
    teacher={'mean': (0.5,)},
  )
  with pytest.raises(ValueError) as found:
    settings.check(wrong)
  for part in (
    'seed -1, want an integer in 0..',
    'pretrain.epochs 0, want an integer in 1..',
    'search.batch_size 0, want an integer in 1..',
    "search.algorithm 'annealing', want one of btpbt, pbt",
    'search.degrees (1,), want one of 0, 2, 3',
    "data.name 'mnits', want one of fashion_mnist, cifar10, cifar100 or the path of an .npz file",
    "model.name 'cnn9', want one of cnn7",
    'teacher.mean of 1 numbers and teacher.std of 0',
  ):
    assert part in str(found.value)
  # Fine-tuning only follows the search.
  assert 'finetune' not in str(found.value) and len(str(found.value).split('; ')) == 8


def test_a_fault_of_fine_tuning_alone_is_named():
  with pytest.raises(ValueError, match=r'^finetune\.ema 1\.5, want a number'):
    settings.check(changed(finetune={'ema': 1.5}))


@pytest.mark.parametrize(
  'section, name, value',
  [
    ('search', 'learning_rate', -0.1),
    ('search', 'evaluation_batch', 0),
    ('search', 'validation_images', 0),
    ('search', 'iterations', 0),
    ('search', 'population', 0),
    ('search', 'degrees', ()),
    ('pretrain', 'warmup_epochs', 5.0),
    ('pretrain', 'recalibration_batches', 0),
    ('finetune', 'dtype', 'float16'),
    ('model', 'width', math.nan),
    ('secure', 'report_images', 0),
    ('data', 'limit', -1),
  ],
)
def test_a_value_out_of_range_is_refused_by_its_name(section, name, value):
  with pytest.raises(ValueError, match=rf'^{section}\.{name} .*, want '):
    settings.check(changed(**{section: {name: value}}))


def test_no_fine_tuning_and_images_of_ones_own_are_settings():
  settings.check(changed(finetune={'epochs': 0}, data={'name': 'mine.npz'}, seed=2**40))
  settings.check(base.cifar('smoke', 'cifar10', {'name': 'resnet18', 'blocks': -3}))

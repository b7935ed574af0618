"""A control that one run trained, and another takes if it would train the same."""

import json
import types

import numpy as np
import pytest

from experiments.configs import cnn7_fashion
from experiments.lib import controls
from safenet_jax.workdir import Workdir

SECTIONS = ('model', 'data', 'teacher', 'pretrain', 'finetune')


def claimed(path, config):
  workdir = Workdir(path)
  sections = {name: config[name].to_dict() for name in SECTIONS}
  workdir.claim({'seed': {'seed': config.seed}} | sections)
  return workdir


@pytest.fixture
def config():
  return cnn7_fashion.get_config('smoke').unlock()


@pytest.fixture
def lender(tmp_path, config, monkeypatch):
  """A finished run whose control trained for ten steps; --controls names it."""
  workdir = claimed(tmp_path / 'lender,seed-0', config)
  workdir.log('finetune', 10, epoch=2, validation_accuracy=0.6)
  for epoch in (1, 2):
    workdir.log('control', 5 * epoch, epoch=epoch, validation_accuracy=0.5 + 0.1 * epoch)
  for phase in ('control', 'control_best'):
    checkpoints = workdir.checkpoints(phase)
    checkpoints.save(10, {'member': np.arange(3.0)})
    checkpoints.close()
  workdir.write_json('plan.json', {'activations': [1], 'replaced': [1], 'validation_accuracy': {}})
  flag = types.SimpleNamespace(value=[str(tmp_path / 'missing'), str(workdir.path)])
  monkeypatch.setattr(controls, 'CONTROLS', flag)
  return workdir


def test_a_run_takes_the_control_that_it_would_train(tmp_path, config, lender):
  # The control knows nothing of polynomials, nor how long the plan was searched.
  config.finetune.update({'range_clip': 8.0, 'anneal_epochs': 0.5})
  config.search.algorithm = 'cw'
  run = claimed(tmp_path / 'run', config)
  run.log('finetune', 10, epoch=2, validation_accuracy=0.7)
  controls.lend(config, run, 10)
  assert run.metrics('control') == lender.metrics('control')
  assert [line['validation_accuracy'] for line in run.metrics('finetune')] == [0.7]
  for phase in ('control', 'control_best'):
    assert run.steps(phase) == 10
    found = run.checkpoints(phase).restore({'member': np.zeros(3)})
    np.testing.assert_array_equal(found[1]['member'], np.arange(3.0))
  assert sorted(path.name for path in (run / 'checkpoints').iterdir()) == [
    'control',
    'control_best',
  ]


@pytest.mark.parametrize(
  'changes, steps',
  [
    ({}, 15),
    ({}, 0),
    ({'seed': 1}, 10),
    ({'pretrain.learning_rate': 0.05}, 10),
    ({'finetune.learning_rate': 0.01}, 10),
    ({'finetune.distillation': 0.25}, 10),
    ({'teacher.network': 'resnet18'}, 10),
    ({'data.limit': 99}, 10),
  ],
)
def test_another_control_is_not_taken(tmp_path, config, lender, changes, steps):
  config.update_from_flattened_dict(changes)
  run = claimed(tmp_path / 'run', config)
  controls.lend(config, run, steps)
  assert not run.steps('control') and not run.metrics('control')


def test_a_run_that_is_not_finished_lends_nothing(tmp_path, config, lender):
  (lender / 'plan.json').unlink()
  run = claimed(tmp_path / 'run', config)
  controls.lend(config, run, 10)
  assert not run.steps('control')


def test_a_control_that_was_begun_is_continued(tmp_path, config, lender):
  run = claimed(tmp_path / 'run', config)
  run.log('control', 5, epoch=1, validation_accuracy=0.4)
  checkpoints = run.checkpoints('control')
  checkpoints.save(5, {'member': np.ones(3)})
  checkpoints.close()
  controls.lend(config, run, 10)
  assert run.steps('control') == 5
  assert [line['validation_accuracy'] for line in run.metrics('control')] == [0.4]


def test_a_copy_that_was_interrupted_is_made_again(tmp_path, config, lender, monkeypatch):
  run = claimed(tmp_path / 'run', config)
  copy = controls.shutil.copytree

  def cut(source, to, *rest):  # it calls itself for folders
    if source == lender / 'checkpoints/control':
      (to / '5').mkdir(parents=True)
      raise OSError('the disk is full')
    return copy(source, to, *rest)

  with monkeypatch.context() as patch:
    patch.setattr(controls.shutil, 'copytree', cut)
    with pytest.raises(OSError, match='full'):
      controls.lend(config, run, 10)
  assert not run.steps('control')
  controls.lend(config, run, 10)
  assert run.steps('control') == 10
  assert json.loads((run / 'metrics.jsonl').read_text().splitlines()[-1])['step'] == 10
  assert len(run.metrics('control')) == 2

"""A run's directory: settings, log and checkpoints."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.workdir import Workdir


def test_sections_are_recorded_as_phases_claim_them(tmp_path):
  workdir = Workdir(tmp_path / 'run')
  workdir.claim({'model': {'name': 'cnn7'}})
  workdir.claim({'model': {'name': 'cnn7'}, 'search': {'ratios': (1, 2)}})
  workdir.claim({'search': {'ratios': (1, 2)}})
  assert json.loads((tmp_path / 'run/config.json').read_text()).keys() == {'model', 'search'}


def test_another_config_is_refused_and_nothing_is_overwritten(tmp_path):
  workdir = Workdir(tmp_path / 'run')
  workdir.claim({'model': {'name': 'cnn7', 'width': 1.0}})
  before = (tmp_path / 'run/config.json').read_text()
  with pytest.raises(ValueError, match=r'model\.width=1\.0, got 0\.5'):
    workdir.claim({'model': {'name': 'cnn7', 'width': 0.5}, 'search': {}})
  with pytest.raises(ValueError, match='depth=None, got 3'):
    workdir.claim({'model': {'name': 'cnn7', 'width': 1.0, 'depth': 3}})
  assert (tmp_path / 'run/config.json').read_text() == before


def test_a_directory_of_somebody_else_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').write_text('')
  with pytest.raises(ValueError, match='not empty'):
    Workdir(tmp_path).claim({'model': {}})
  assert not (tmp_path / 'config.json').exists()


def test_a_rewound_log_has_no_line_twice(tmp_path):
  workdir = Workdir(tmp_path)
  for step in (1, 2, 3):
    workdir.log('search', step, accuracy=step / 10)
  workdir.log('finetune', 1, accuracy=0.9)
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"phase": "search", "st')
  workdir.rewind('search', 2)
  workdir.log('search', 2, accuracy=0.25)
  assert [(m['phase'], m['step']) for m in workdir.metrics()] == [
    ('search', 1),
    ('finetune', 1),
    ('search', 2),
  ]
  assert workdir.metrics('search')[-1]['accuracy'] == 0.25


def test_the_latest_checkpoint_comes_back_bit_for_bit(tmp_path):
  tree = {
    'a': jax.random.normal(jax.random.key(0), (3, 4)),
    'n': jnp.int32(7),
    'm': (np.arange(3),),
  }
  checkpoints = Workdir(tmp_path).checkpoints('phase')
  assert checkpoints.restore(tree) is None
  checkpoints.save(1, jax.tree.map(lambda x: x * 0, tree))
  checkpoints.save(2, tree)
  checkpoints.close()
  step, found = Workdir(tmp_path).checkpoints('phase').restore(tree)
  assert step == 2
  for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(tree)):
    np.testing.assert_array_equal(ours, theirs)


def test_a_missing_file_names_the_phase_that_writes_it(tmp_path):
  with pytest.raises(FileNotFoundError, match='no plan.json in .*: run search first'):
    Workdir(tmp_path).read_json('plan.json', 'search')

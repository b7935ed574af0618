"""A run's directory: settings, log and checkpoints."""

import errno
import json
import os
import resource
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax import atomic_files
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


def test_a_cut_log_is_read_without_its_last_line_and_written_on(tmp_path):
  workdir = Workdir(tmp_path)
  workdir.log('search', 1, accuracy=0.1)
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"phase": "search", "step": 2, "acc')
  assert [line['step'] for line in workdir.metrics('search')] == [1]
  workdir.log('search', 2, accuracy=0.2)
  assert [line['accuracy'] for line in workdir.metrics('search')] == [0.1, 0.2]


def test_a_line_damaged_in_the_middle_is_named_by_all_who_read_the_log(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"phase": "a", "st\n{"phase": "a", "step": 2}\n')
  for read in (Workdir(tmp_path).metrics, lambda: Workdir(tmp_path).rewind('a', 2)):
    with pytest.raises(ValueError, match=r'metrics\.jsonl, line 1: .* delete that line'):
      read()


@pytest.mark.parametrize('text', ['', '{"model": {"na', '[1]', '{"model": 1}'])
def test_a_cut_config_says_what_to_do_and_stays_as_it_is(tmp_path, text):
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(ValueError, match=r'config\.json.* restore it from a copy, or use another'):
    Workdir(tmp_path).claim({'model': {}})
  assert [p.name for p in tmp_path.iterdir()] == ['config.json']
  assert (tmp_path / 'config.json').read_text() == text


@pytest.mark.parametrize(
  'name, text',
  [
    ('plan.json', '{"network": "cnn7",\n "rat'),
    ('plan.json', '{"network": "cnn7", "ratio": [1], "degree": [2]}'),
    ('evaluations.json', '[{"phase": "finetune"}]'),
    ('evaluations.json', '{}'),
    ('ledger.json', '[]'),
    ('thin.json', 'null'),
  ],
)
def test_a_damaged_result_says_what_to_run_again(tmp_path, name, text):
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=f'{name}.*: delete it and run this again'):
    Workdir(tmp_path).read_json(name, 'this')


@pytest.mark.parametrize('below', ['', '/run', '/a/b'])
def test_a_workdir_that_is_or_lies_below_a_file_is_refused(tmp_path, below):
  (tmp_path / 'file').write_text('old')
  with pytest.raises(NotADirectoryError, match=f'{tmp_path / "file"} is a file, want a directory'):
    Workdir(f'{tmp_path}/file{below}').claim({})
  assert (tmp_path / 'file').read_text() == 'old'


def test_a_path_may_begin_with_the_home_directory(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert Workdir('~/run').path == tmp_path / 'run'


def test_a_claimed_workdir_is_refused_to_others_but_not_to_readers(tmp_path):
  first, second = Workdir(tmp_path / 'run'), Workdir(tmp_path / 'run')
  first.claim({'model': {'name': 'cnn7'}})
  first.claim({'data': {}})  # its own lock is no obstacle
  before = (tmp_path / 'run/config.json').read_text()
  with pytest.raises(BlockingIOError, match=f'in use by process {os.getpid()} on'):
    second.claim({'model': {'name': 'cnn7'}, 'search': {}})
  assert (tmp_path / 'run/config.json').read_text() == before
  second.check({'model': {'name': 'cnn7'}, 'search': {}})
  assert second.read_json('config.json', 'pretrain').keys() == {'model', 'data'}
  first.release()
  second.claim({'search': {}})
  second.release()


def test_what_a_killed_claim_leaves_behind_does_not_bar_the_next(tmp_path):
  (tmp_path / '.lock').write_text('process 1 on a host that crashed')
  (tmp_path / '.config.json.0a1b.partial').write_text('{"mod')
  workdir = Workdir(tmp_path)
  workdir.claim({'model': {}})
  workdir.release()


def test_the_other_processes_of_a_distributed_run_need_no_lock(tmp_path, monkeypatch):
  first = Workdir(tmp_path / 'run')
  first.claim({'model': {}})
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  Workdir(tmp_path / 'run').claim({'model': {}})
  with pytest.raises(ValueError, match=r'model\.width'):
    Workdir(tmp_path / 'run').claim({'model': {'width': 1}})
  first.release()


def test_a_refused_claim_keeps_no_lock(tmp_path, monkeypatch):
  def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patched:
    patched.setattr(atomic_files, 'write_json', full)
    refused = Workdir(tmp_path / 'run')
    with pytest.raises(OSError, match='No space left'):
      refused.claim({'model': {}})
  again = Workdir(tmp_path / 'run')
  again.claim({'model': {}})
  again.release()


def test_a_full_disk_keeps_the_checkpoint_before_and_the_next_one_is_saved(tmp_path, monkeypatch):
  small, large = {'m': np.arange(3)}, {'m': np.random.default_rng(0).random(100_000)}
  checkpoints = Workdir(tmp_path).checkpoints('phase')
  checkpoints.save(1, small)
  with monkeypatch.context() as patched:
    patched.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=500_000))
    with pytest.raises(OSError, match='No space left') as caught:
      checkpoints.save(2, small)
  assert caught.value.filename == str(tmp_path / 'checkpoints/phase')
  # A limit on the size of a file makes the library fail where it writes arrays.
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
  try:
    with pytest.raises(OSError, match='File too large') as caught:
      checkpoints.save(2, large)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert caught.value.filename == str(tmp_path / 'checkpoints/phase')
  assert [p.name for p in (tmp_path / 'checkpoints/phase').iterdir()] == ['1']
  assert checkpoints.restore(small)[0] == 1
  checkpoints.save(2, large)
  checkpoints.close()
  assert Workdir(tmp_path).steps('phase') == 2 and Workdir(tmp_path).steps('none') == 0
  assert not (tmp_path / 'checkpoints/none').exists()


def test_a_damaged_checkpoint_is_named_and_says_what_to_do(tmp_path):
  tree = {'m': np.arange(3)}
  checkpoints = Workdir(tmp_path).checkpoints('phase')
  checkpoints.save(1, tree)
  for path in (tmp_path / 'checkpoints/phase/1').rglob('manifest*'):
    path.unlink()
  with pytest.raises(ValueError, match='phase/1 cannot be read .* delete it and run phase again'):
    checkpoints.restore(tree)
  checkpoints.close()

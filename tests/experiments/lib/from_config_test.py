"""What a finished phase left behind, by its checkpoint and not by its log."""

import types

from ml_collections import config_dict
import numpy as np
import pytest

from experiments.lib import from_config
from safenet_jax.workdir import Workdir


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A config of three epochs, and a workdir with the log and the checkpoint of two, of 5 steps."""
  monkeypatch.setattr(from_config, 'start', lambda *arguments: np.zeros(3))
  workdir = Workdir(tmp_path)
  for epoch in (1, 2):
    workdir.log('pretrain', 5 * epoch, epoch=epoch)
  checkpoints = workdir.checkpoints('pretrain')
  checkpoints.save(10, {'member': np.arange(3.0)})
  checkpoints.close()
  config = config_dict.ConfigDict({'pretrain': {'epochs': 3}, 'search': {'epochs': 1}})
  return types.SimpleNamespace(workdir=workdir, config=config)


def trained(run, phase='pretrain'):
  return from_config.trained(run.config, None, run.workdir, phase)


def test_an_unfinished_phase_says_how_far_it_came(run):
  with pytest.raises(ValueError, match='stopped after 2 of 3 epochs: run the same command again'):
    trained(run)
  with pytest.raises(FileNotFoundError, match='no search checkpoint in .*: run search first'):
    trained(run, 'search')
  assert not (run.workdir / 'checkpoints/search').exists()


@pytest.mark.parametrize('lines', [2, 1, 0])
def test_a_finished_phase_needs_no_last_line_of_its_log(run, lines):
  run.config.pretrain.epochs = 2
  text = (run.workdir / 'metrics.jsonl').read_text().splitlines(keepends=True)
  (run.workdir / 'metrics.jsonl').write_text(''.join(text[:lines]) + '{"phase": "pre')
  np.testing.assert_array_equal(trained(run), np.arange(3.0))

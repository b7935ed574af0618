"""The live table of a search, and the settings of a sweep."""

import io

import numpy as np
import pytest
import rich.console

from experiments import pareto
from experiments.lib import search_table


def cycle(keys, ratio=5):
  count = len(keys)
  return {
    'node': 'root',
    'key': np.asarray(keys),
    'score': np.asarray(keys) - 1,
    'accuracy': np.full(count, 0.875),
    'ratio': np.tile([ratio, 0], (count, 1)),
    'degree': np.tile([3, 2], (count, 1)),
  }


def test_a_terminal_shows_the_best_score_accuracy_ratios_and_time_left():
  console = rich.console.Console(force_terminal=True, width=120, file=io.StringIO())
  with search_table.search_table(console) as report:
    report(1, 4, cycle([2.2, 2.5]))
    report(2, 4, cycle([2.1, 2.3], ratio=9))
  text = console.file.getvalue()
  last = text[text.rindex('cycle 2 of 4') :]
  assert '1.5000' in last and '87.50%' in last and '25%(3) 0%' in last and '0:00:0' in last


def test_a_cycle_in_which_all_diverged_is_shown():
  console = rich.console.Console(force_terminal=True, width=120, file=io.StringIO())
  with search_table.search_table(console) as report:
    report(1, 4, cycle([-np.inf, -np.inf]))
  assert 'every member diverged' in console.file.getvalue()


def test_nothing_is_shown_without_a_terminal():
  console = rich.console.Console(file=io.StringIO())
  with search_table.search_table(console) as report:
    report(1, 4, cycle([2.0]))
  assert console.file.getvalue() == ''


def test_time_left_follows_from_the_cycles_of_this_session():
  assert search_table.remaining(30.0, 3, 10) == '0:01:10'
  assert search_table.remaining(3600.0, 1, 3) == '2:00:00'


def test_the_demos_sweep_has_three_seeds_of_every_setting():
  found = pareto.settings('experiments/configs/cnn7_fashion.py')
  assert len(found) == len({pareto.name(setting) for setting in found})
  rest = [tuple(sorted((k, v) for k, v in s.items() if k != 'seed')) for s in found]
  assert {rest.count(key) for key in rest} == {3}


def test_a_config_without_a_sweep_is_refused(tmp_path):
  path = tmp_path / 'config.py'
  path.write_text('def get_config(preset=""): pass\n')
  with pytest.raises(ValueError, match='has no sweep'):
    pareto.settings(str(path))

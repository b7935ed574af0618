"""The best feasible score against the budget, over seeds."""

import math

import pytest

from safenet_jax.report import figures, progress
from safenet_jax.search import score

SETTINGS = {'population': 2, 'iterations': 10, 'literal': False}


def cycle(*members, threshold=0.5):
  """A cycle of members (accuracy, score), with the keys they were sorted by."""
  keys = [float(score.selection_key(accuracy, value, threshold)) for accuracy, value in members]
  return {'score': [value for _, value in members], 'key': keys}


def test_only_feasible_members_count_and_the_best_is_kept():
  cycles = [
    cycle((0.4, 0.8), (0.45, 0.6)),
    cycle((0.49, 0.98), (0.6, 0.7)),
    cycle((0.55, 0.65), (0.0, -math.inf)),
    cycle((0.5, 1.0), (0.5, 0.9)),
  ]
  found = progress.best_so_far(cycles)
  assert math.isnan(found[0]) and found[1:] == [0.7, 0.7, 1.0]


def test_a_literal_search_has_no_infeasible_members():
  cycles = [{'score': [0.8, -math.inf], 'key': [0.8, -math.inf]}]
  assert progress.best_so_far(cycles, literal=True) == [0.8]


def test_a_curve_is_the_mean_and_the_range_over_seeds():
  first = [cycle((0.4, 0.5)), cycle((0.6, 0.7)), cycle((0.6, 0.8))]
  second = [cycle((0.6, 0.7)), cycle((0.6, 0.9)), cycle((0.6, 0.6)), cycle((0.6, 1.0))]
  curve, other = progress.curves(
    [
      ({'seed': 0, 'search.algorithm': 'pbt'}, SETTINGS, first),
      ({'seed': 1, 'search.algorithm': 'pbt'}, SETTINGS, second),
      ({'seed': 0, 'search.algorithm': 'cw'}, SETTINGS, first),
    ]
  )
  assert (curve.label, curve.seeds, curve.budget) == ('algorithm=pbt', 2, (20, 40, 60))
  assert math.isnan(curve.mean[0]) and math.isnan(curve.low[0])
  assert curve.mean[1:] == pytest.approx((0.8, 0.85))
  assert curve.low[1:] == (0.7, 0.8) and curve.high[1:] == (0.9, 0.9)
  assert other.seeds == 1 and other.low[1:] == other.mean[1:] == other.high[1:]


def test_what_is_replaced_is_the_best_members_in_whole_channels():
  sizes = score.Activations((800, 100), (8, 10))
  first = cycle((0.6, 0.7), (0.6, 0.9)) | {'ratio': [[20, 20], [10, 1]]}
  worse = cycle((0.6, 0.8), (0.4, 1.0)) | {'ratio': [[20, 0], [20, 20]]}
  infeasible = cycle((0.4, 0.5), (0.4, 0.6)) | {'ratio': [[5, 5], [5, 5]]}
  # Half of eight channels, and of ten one twentieth, which rounds to one.
  expected = (400 + 10) / 900
  found = progress.replaced_so_far([infeasible, first, worse], sizes)
  assert math.isnan(found[0]) and found[1:] == pytest.approx([expected] * 2)
  (curve,) = progress.curves([({'seed': 0}, SETTINGS, [first, worse])], sizes)
  assert curve.budget == (20, 40) and curve.mean == pytest.approx((expected,) * 2)


def test_seeds_of_different_populations_are_not_averaged():
  runs = [({'seed': s}, SETTINGS | {'population': 2 + s}, [cycle((0.6, 0.7))]) for s in range(2)]
  with pytest.raises(ValueError, match=r'\[20, 30\] member-iterations'):
    progress.curves(runs)


def test_the_figure_has_its_data_beside_it(tmp_path):
  curves = progress.curves(
    [({'seed': s}, SETTINGS, [cycle((0.6, 0.7)), cycle((0.6, 0.7 + s / 10))]) for s in range(3)]
  )
  figures.save(tmp_path / 'curves', lambda axes: figures.search_progress(axes, curves))
  assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')
  header, first, last = (tmp_path / 'curves.csv').read_text().splitlines()
  assert header == 'setting,seeds,member_iterations,mean,low,high'
  assert first.split(',')[:3] == ['default', '3', '20']
  assert [float(v) for v in first.split(',')[3:]] == pytest.approx([0.7] * 3)
  assert last.split(',')[:3] == ['default', '3', '40']
  assert [float(v) for v in last.split(',')[3:]] == pytest.approx([0.8, 0.7, 0.9])

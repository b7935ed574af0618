"""Runs over seeds: points with intervals, and curves of the best score so far."""

import math

from matplotlib import pyplot as plt
import pytest

from safenet_jax.report import figures, sweeps
from safenet_jax.search import score

# The cycles below are of one member each, as those of gates are whatever the population.
SETTINGS = {'population': 6, 'iterations': 20, 'literal': False}


def plan(replaced, accuracy):
  return {
    'activations': [100, 50],
    'replaced': replaced,
    'validation_accuracy': {'planned': accuracy},
  }


def test_runs_that_differ_in_their_seed_are_one_point():
  results = [
    ({'seed': 0, 'search.algorithm': 'pbt'}, plan([40, 10], 0.80)),
    ({'seed': 1, 'search.algorithm': 'pbt'}, plan([40, 30], 0.90)),
    ({'seed': 0, 'search.algorithm': 'cw'}, plan([0, 0], 0.95)),
  ]
  first, second = sweeps.points(results)
  assert (first.series, first.seeds, first.relus) == ('pbt', 2, 90)
  assert first.accuracy == pytest.approx(0.85)
  # Two values 0.1 apart: t(1) * (0.1 / sqrt 2) / sqrt 2.
  assert first.accuracy_interval == pytest.approx(12.706 * 0.05)
  assert (second.label, second.relus) == ('algorithm=cw', 150)
  assert math.isnan(second.accuracy_interval)


def test_the_figure_of_points_has_its_data_beside_it(tmp_path):
  points = sweeps.points([({'seed': s}, plan([s, 0], 0.9)) for s in range(3)])
  figures.save(tmp_path / 'pareto', lambda axes: figures.pareto(axes, points))
  assert (tmp_path / 'pareto.png').read_bytes().startswith(b'\x89PNG')
  header, row = (tmp_path / 'pareto.csv').read_text().splitlines()
  assert header.split(',') == list(sweeps.Point._fields)
  assert row.split(',')[2:4] == ['3', '149.0']
  assert row.split(',')[-1] == '150:0.9000 149:0.9000 148:0.9000'


def test_no_interval_of_a_figure_goes_below_no_relus():
  axes = plt.figure().subplots()
  figures.pareto(
    axes,
    sweeps.points(
      [
        ({'seed': s}, plan(replaced, 0.9))
        for s, replaced in enumerate([[100, 50], [100, 50], [0, 50]])
      ]
    ),
  )
  (interval,) = axes.collections[0].get_segments()
  assert interval[0][0] == 0 and interval[1][0] > 100


def test_intervals_are_printed_where_there_are_any():
  assert sweeps.interval(3.14159, 0.1, '{:.2f}') == '3.14 ± 0.10'
  assert sweeps.interval(3.14159, math.nan, '{:.2f}') == '3.14'


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
  found = sweeps.best_so_far(cycles)
  assert math.isnan(found[0]) and found[1:] == [0.7, 0.7, 1.0]


def test_a_literal_search_has_no_infeasible_members():
  cycles = [{'score': [0.8, -math.inf], 'key': [0.8, -math.inf]}]
  assert sweeps.best_so_far(cycles, literal=True) == [0.8]


def test_a_curve_is_the_mean_and_the_range_over_seeds():
  first = [cycle((0.4, 0.5)), cycle((0.6, 0.7)), cycle((0.6, 0.8))]
  second = [cycle((0.6, 0.7)), cycle((0.6, 0.9)), cycle((0.6, 0.6)), cycle((0.6, 1.0))]
  curve, other = sweeps.curves(
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
  found = sweeps.replaced_so_far([infeasible, first, worse], sizes)
  assert math.isnan(found[0]) and found[1:] == pytest.approx([expected] * 2)
  (curve,) = sweeps.curves([({'seed': 0}, SETTINGS, [first, worse])], sizes)
  assert curve.budget == (40, 80) and curve.mean == pytest.approx((expected,) * 2)


def test_seeds_of_cycles_of_different_lengths_are_not_averaged():
  runs = [
    ({'seed': s}, SETTINGS | {'iterations': 20 + 10 * s}, [cycle((0.6, 0.7))]) for s in range(2)
  ]
  with pytest.raises(ValueError, match=r'\[20, 30\] member-iterations'):
    sweeps.curves(runs)


def test_the_figure_of_curves_has_its_data_beside_it(tmp_path):
  curves = sweeps.curves(
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

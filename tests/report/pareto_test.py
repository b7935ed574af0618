"""Means and intervals over seeds."""

import math

from matplotlib import pyplot as plt
import pytest

from safenet_jax.report import figures, pareto


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
  first, second = pareto.points(results)
  assert (first.series, first.seeds, first.relus) == ('pbt', 2, 90)
  assert first.accuracy == pytest.approx(0.85)
  # Two values 0.1 apart: t(1) * (0.1 / sqrt 2) / sqrt 2.
  assert first.accuracy_interval == pytest.approx(12.706 * 0.05)
  assert (second.label, second.relus) == ('algorithm=cw', 150)
  assert math.isnan(second.accuracy_interval)


def test_the_figure_has_its_data_beside_it(tmp_path):
  points = pareto.points([({'seed': s}, plan([s, 0], 0.9)) for s in range(3)])
  figures.save(tmp_path / 'pareto', lambda axes: figures.pareto(axes, points))
  assert (tmp_path / 'pareto.png').read_bytes().startswith(b'\x89PNG')
  header, row = (tmp_path / 'pareto.csv').read_text().splitlines()
  assert header.split(',') == list(pareto.Point._fields)
  assert row.split(',')[2:4] == ['3', '149.0']
  assert row.split(',')[-1] == '150:0.9000 149:0.9000 148:0.9000'


def test_no_interval_of_a_figure_goes_below_no_relus():
  axes = plt.figure().subplots()
  figures.pareto(
    axes,
    pareto.points(
      [
        ({'seed': s}, plan(replaced, 0.9))
        for s, replaced in enumerate([[100, 50], [100, 50], [0, 50]])
      ]
    ),
  )
  (interval,) = axes.collections[0].get_segments()
  assert interval[0][0] == 0 and interval[1][0] > 100


def test_intervals_are_printed_where_there_are_any():
  assert pareto.interval(3.14159, 0.1, '{:.2f}') == '3.14 ± 0.10'
  assert pareto.interval(3.14159, math.nan, '{:.2f}') == '3.14'

"""The paper's figures draw what they are given, and return it."""

import matplotlib.pyplot as plt
import pytest

from safenet_jax.report import paper_drawings, published
from safenet_jax.search.planners import btpbt


@pytest.fixture
def axes():
  figure, axes = plt.subplots()
  yield axes
  plt.close(figure)


def lengths(columns):
  return {len(values) for values in columns.values()}


def legend(axes):
  return [text.get_text() for text in axes.get_legend().get_texts()]


def test_bars_of_figure_1b_are_stacked(axes):
  columns = paper_drawings.latency_breakdown(
    axes,
    [0, 1],
    [0.0, 0.5],
    [3.0, 3.0],
    [4.0, 2.0],
    [1.0, 0.5],
    {'published': {0: 0.9}},
  )
  tops = [bar.get_y() + bar.get_height() for bar in axes.patches]
  assert tops == [3, 3, 7, 5, 8, 5.5]
  assert lengths(columns) == {2} and columns['accuracy, published'] == [0.9, '']


def test_shares_of_figure_2_add_to_one_and_the_named_value_is_a_line(axes):
  columns = paper_drawings.neuron_ratio(axes, {'a': [6, 2], 'b': [1, 1]}, published.named('2'))
  assert columns['share, a'] == [0.75, 0.25] and columns['share, b'] == [0.5, 0.5]
  assert 'paper: layer 1 > 58 %' in legend(axes)


def test_series_of_one_published_value_share_a_line(axes):
  columns = paper_drawings.approximation_ratio(axes, [], published.named('4b'))
  assert lengths(columns) == {0}
  assert legend(axes) == [
    'paper: BTPBT ~80 % after 200 epochs',
    'paper: PBT, DRL < 30 % after 200 epochs',
  ]


def test_figure_5_marks_degrees_and_says_what_was_not_run(axes):
  plan = paper_drawings.Planned('mine', [0.5, 0.0, 1.0], [2, 2, 0])
  columns = paper_drawings.ablation(axes, [plan], {'Delphi (paper): 28 % in all': 0.28})
  assert columns['ratio'] == [0.5, 0.0, 1.0, 0.28] and lengths(columns) == {4}
  assert columns['layer'] == [1, 2, 3, 'all']
  marked = {line.get_marker(): list(line.get_xdata()) for line in axes.lines}
  # A layer of which nothing is replaced has no mark.
  assert marked['^'] == [1] and marked['x'] == [3] and marked['s'] == []
  assert legend(axes) == ['mine', 'Delphi (paper): 28 % in all']


def test_nothing_to_draw_is_said_in_the_picture(axes):
  assert lengths(paper_drawings.ablation(axes, [], {'CW (paper): 40 % in all': 0.4})) == {1}
  assert [text.get_text() for text in axes.texts] == ['not run']


def test_figure_6_joins_layers_that_share_a_ratio(axes):
  columns = paper_drawings.search_order(axes, {'BTPBT': btpbt.schedule(4, 1, 1)})
  texts = [text.get_text() for text in axes.texts]
  assert texts[:3] == ['α[0] = α[1] = α[2] = α[3]', 'α[0] = α[1]', 'α[2] = α[3]']
  # Five runs of four layers; the third searches the first two alone.
  assert lengths(columns) == {20}
  assert columns['searched'][8:12] == [True, True, False, False]


def test_ours_are_told_from_published_results(axes):
  ours = [paper_drawings.Reached('mine', 20_000, 0.8, 'test')]
  columns = paper_drawings.accuracy_at_budget(axes, published.later('cifar100'), ours)
  assert legend(axes)[-1] == 'mine (measured, test)' and 'SAFENet (published)' in legend(axes)
  assert columns['source'][-1] == 'measured, test' and columns['accuracy_percent'][-1] == 80

"""Figures as functions of arrays and an Axes; `save` writes PNG and csv together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import csv
import io
import itertools
import pathlib
from typing import Any

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from safenet_jax import atomic_files  # noqa: E402
from safenet_jax.report.sweeps import Curve, Point, Served  # noqa: E402

# Degree 0 is a cross, degree 2 a triangle, degree 3 a square, as in Figure 5.
DEGREE_MARKERS = {0: 'x', 2: '^', 3: 's'}
PHASE_COLOURS = {'offline': '#9ecae1', 'online': '#08519c'}

# Draws on an Axes and returns the columns of what it drew.
Draw = Callable[[plt.Axes], Mapping[str, Sequence]]


def save(
  path: pathlib.Path,
  draw: Draw,
  *,
  figure_size: tuple[float, float] = (6.4, 3.6),
) -> None:
  """Draws one Axes to path.png, and the columns that `draw` returns to path.csv."""
  with plt.rc_context({'font.size': 12}):
    figure, axes = plt.subplots(figsize=figure_size, layout='constrained')
    columns = draw(axes)
    axes.spines[['top', 'right']].set_visible(False)
    with atomic_files.writing(path.with_suffix('.png')) as file:
      figure.savefig(file, format='png', dpi=150)
  plt.close(figure)
  write_csv(path.with_suffix('.csv'), [columns, *zip(*columns.values(), strict=True)])


def write_csv(path: pathlib.Path, rows: Iterable[Iterable[Any]]) -> None:
  """Writes rows, the header first."""
  text = io.StringIO(newline='')
  csv.writer(text).writerows(rows)
  atomic_files.write_text(path, text.getvalue())


def learning_curve(axes: plt.Axes, curves: Mapping[str, Sequence[tuple[float, float]]]):
  """Validation accuracy against epochs; a curve is a list of (epoch, accuracy)."""
  columns: dict[str, list] = {'phase': [], 'epoch': [], 'accuracy': []}
  for phase, points in curves.items():
    epochs, accuracies = zip(*points)
    axes.plot(epochs, np.multiply(accuracies, 100), marker='o', markersize=3, label=phase)
    columns['phase'] += [phase] * len(points)
    columns['epoch'] += epochs
    columns['accuracy'] += accuracies
  axes.set(xlabel='epochs of the phase', ylabel='validation accuracy (%)')
  axes.legend(frameon=False)
  axes.grid(alpha=0.3)
  return columns


def plan(axes: plt.Axes, ratio: Sequence[float], degree: Sequence[int]):
  """Share of channels replaced in every layer, marked by degree (Figure 5)."""
  layers = np.arange(1, len(ratio) + 1)
  percent = np.multiply(ratio, 100)
  axes.bar(layers, percent, color='#c6dbef', width=0.7)
  for value, marker in DEGREE_MARKERS.items():
    chosen = np.asarray(degree) == value
    if chosen.any():
      axes.scatter(
        layers[chosen],
        percent[chosen],
        marker=marker,
        color='#08519c',
        zorder=3,
        label='pruned' if value == 0 else f'degree {value}',
      )
  axes.set(xlabel='activation layer', ylabel='channels replaced (%)', ylim=(0, 108), xticks=layers)
  axes.legend(frameon=False, ncols=3, loc='lower center', bbox_to_anchor=(0.5, 1.0))
  return {'layer': layers.tolist(), 'ratio': list(ratio), 'degree': list(degree)}


def cost_by_layer(axes: plt.Axes, layers: Sequence[str], costs: Mapping[str, Sequence[float]]):
  """Bytes of every layer, one bar per phase; costs[phase][i] belongs to layers[i]."""
  positions = np.arange(len(layers))
  width = 0.8 / len(costs)
  for i, (phase, values) in enumerate(costs.items()):
    offset = (i - (len(costs) - 1) / 2) * width
    axes.bar(
      positions + offset,
      np.divide(values, 1e6),
      width,
      label=phase,
      color=PHASE_COLOURS.get(phase),
    )
  axes.set(ylabel='MB', yscale='log')
  axes.set_xticks(positions, layers, rotation=45, ha='right')
  axes.legend(frameon=False)
  return {'layer': list(layers)} | {f'{phase}_bytes': list(v) for phase, v in costs.items()}


def pareto(axes: plt.Axes, points: Sequence[Point]):
  """Validation accuracy against ReLUs left.

  Each series is a line of means with 95 % intervals; hollow points are single seeds.
  Intervals are cut off at 0 ReLUs, because with few seeds they would go below.
  """
  for series in dict.fromkeys(point.series for point in points):
    mine = sorted((p for p in points if p.series == series), key=lambda p: p.relus)
    relus, interval = (np.array([getattr(p, k) for p in mine]) for k in ('relus', 'relus_interval'))
    interval = np.nan_to_num(interval)
    means = axes.errorbar(
      relus,
      [100 * p.accuracy for p in mine],
      xerr=(np.minimum(interval, relus), interval),
      yerr=np.nan_to_num([100 * p.accuracy_interval for p in mine]),
      marker='o',
      markersize=4,
      capsize=2,
      label=series,
    )
    left, accuracies = zip(*(run for p in mine for run in p.runs))
    axes.scatter(
      left, 100 * np.array(accuracies), s=40, facecolors='none', edgecolors=means[0].get_color()
    )
  axes.set(xlabel='ReLUs left per image', ylabel='validation accuracy (%)')
  axes.legend(frameon=False)
  axes.grid(alpha=0.3)
  columns: dict[str, list] = {k: [getattr(p, k) for p in points] for k in Point._fields}
  columns['runs'] = [' '.join(f'{left:.0f}:{a:.4f}' for left, a in p.runs) for p in points]
  return columns


def served(axes: plt.Axes, served: Sequence[Served], quantity: str):
  """Validation accuracy of every run against 'megabytes' or 'seconds' of a private inference."""
  for label in dict.fromkeys(row.label for row in served):
    mine = [row for row in served if row.label == label]
    axes.plot(
      [getattr(row, quantity) for row in mine],
      [100 * row.accuracy for row in mine],
      'o',
      label=label.removeprefix('algorithm='),
    )
  unit = {'megabytes': 'MB', 'seconds': 's on a local network'}[quantity]
  axes.set(xlabel=f'private inference, estimated ({unit})', ylabel='validation accuracy (%)')
  axes.legend(frameon=False)
  axes.grid(alpha=0.3)
  return {name: [getattr(row, name) for row in served] for name in Served._fields}


def search_progress(axes: plt.Axes, curves: Sequence[Curve]):
  """Best feasible score against member-iterations: means, and the range over seeds (Figure 4b)."""
  columns: dict[str, list] = {
    name: [] for name in ('setting', 'seeds', 'member_iterations', 'mean', 'low', 'high')
  }
  for curve in curves:
    (line,) = axes.plot(curve.budget, curve.mean, label=curve.label)
    axes.fill_between(curve.budget, curve.low, curve.high, color=line.get_color(), alpha=0.2)
    count = len(curve.budget)
    rows: list[Sequence] = [[curve.label] * count, [curve.seeds] * count, *curve[2:]]
    for column, values in zip(columns.values(), rows, strict=True):
      column += values
  axes.set(xlabel='iterations, all members together', ylabel='best feasible score')
  axes.legend(frameon=False)
  axes.grid(alpha=0.3)
  return columns


def accuracy_against_seconds(
  axes: plt.Axes, points: Sequence[tuple[str, str, float]], accuracies: Sequence[float]
):
  """Test accuracy (%) against seconds, for points (name, data set, seconds of an image).

  A data set is a marker, and a name a colour.
  """
  names, datasets, seconds = zip(*points)
  markers = dict(zip(dict.fromkeys(datasets), itertools.cycle('o^sDvP')))
  colours = plt.get_cmap('tab20')
  for place, (name, dataset, x) in enumerate(points):
    label = f'{name}, {dataset}'
    colour = colours(place % colours.N)
    axes.plot([x], [accuracies[place]], markers[dataset], color=colour, label=label, markersize=8)
  axes.set(xscale='log', xlabel='seconds of one image, online', ylabel='test accuracy (%)')
  axes.margins(0.1)
  axes.legend(frameon=False, fontsize=8, loc='upper left', bbox_to_anchor=(1.0, 1.0))
  axes.grid(alpha=0.3)
  return {
    'name': list(names),
    'dataset': list(datasets),
    'seconds': list(seconds),
    'accuracy': list(accuracies),
  }

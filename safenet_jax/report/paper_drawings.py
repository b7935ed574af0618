"""The paper's Figures 1b, 2, 4b, 5 and 6, and accuracy against the ReLU budget.

The paper publishes no data of its figures: what is drawn as published are the
values that its text, captions or legends name.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from safenet_jax.report.figures import DEGREE_MARKERS
from safenet_jax.report.published import Later, Named
from safenet_jax.report.sweeps import Curve
from safenet_jax.search.pbt import Step

PUBLISHED_COLOUR = '#7f2704'
LINEAR, OFFLINE, ONLINE = '#bdbdbd', '#9ecae1', '#08519c'


class Planned(NamedTuple):
  """A plan as Figure 5 draws it; ratios in 0..1 by layer."""

  label: str
  ratio: Sequence[float]
  degree: Sequence[int]
  published: bool = False


class Reached(NamedTuple):
  """Accuracy in 0..1 of one of our networks at a number of ReLUs."""

  label: str
  relus: int
  accuracy: float
  split: str


def latency_breakdown(
  axes: plt.Axes,
  layers: Sequence[int],
  replaced: Sequence[float],
  linear: Sequence[float],
  offline: Sequence[float],
  online: Sequence[float],
  accuracies: Mapping[str, Mapping[int, float]],
) -> dict[str, list]:
  """Seconds with the last k layers replaced, and accuracy on a second axis (Figure 1b).

  Args:
    axes: to draw on.
    layers: k of every bar.
    replaced: share of the activations that is replaced, for every bar.
    linear, offline, online: modelled seconds of linear layers, and of activations in either
      phase, for every bar.
    accuracies: for every source its accuracies, in 0..1, by k.
  """
  positions = np.arange(len(layers))
  bottom = np.zeros(len(layers))
  for values, colour, label in (
    (linear, LINEAR, 'linear (modelled)'),
    (offline, OFFLINE, 'activation, offline (modelled)'),
    (online, ONLINE, 'activation, online (modelled)'),
  ):
    axes.bar(positions, values, 0.65, bottom, color=colour, label=label)
    bottom += values
  ticks = [f'{k}L\n({share:.0%})' for k, share in zip(layers, replaced)]
  axes.set_xticks(positions, ticks)
  axes.set(ylabel='seconds', xlabel='last layers replaced by degree 2')
  right = axes.twinx()
  right.spines['top'].set_visible(False)
  right.set_ylabel('accuracy (%)')
  columns: dict[str, list] = {
    'layers': list(layers),
    'replaced': list(replaced),
    'linear_s': list(linear),
    'offline_s': list(offline),
    'online_s': list(online),
  }
  for i, (source, found) in enumerate(accuracies.items()):
    mine = [(p, 100 * found[k]) for p, k in zip(positions, layers) if k in found]
    published = source.startswith('published')
    right.plot(
      *zip(*mine),
      marker='D' if published else 'o',
      markersize=5,
      label=source,
      linestyle='none' if published else '-',
      color=PUBLISHED_COLOUR if published else f'C{i}',
    )
    columns[f'accuracy, {source}'] = [found.get(k, '') for k in layers]
  handles = [axes.get_legend_handles_labels(), right.get_legend_handles_labels()]
  _legend_below(axes, *(sum(parts, []) for parts in zip(*handles)), columns=2, below=0.24)
  return columns


def neuron_ratio(
  axes: plt.Axes, counts: Mapping[str, Sequence[int]], named: Sequence[Named]
) -> dict[str, list]:
  """Every layer's share of a network's activations, for each variant of it (Figure 2)."""
  layers = np.arange(1, 1 + len(next(iter(counts.values()))))
  width = 0.8 / len(counts)
  columns: dict[str, list] = {'layer': layers.tolist()}
  for i, (label, values) in enumerate(counts.items()):
    shares = np.divide(values, sum(values))
    offset = (i - (len(counts) - 1) / 2) * width
    bars = axes.bar(layers + offset, 100 * shares, width, label=label, color=(ONLINE, OFFLINE)[i])
    axes.bar_label(bars, fmt='%.0f', fontsize='small')
    columns[f'activations, {label}'] = list(values)
    columns[f'share, {label}'] = shares.tolist()
  for value in named:
    axes.axhline(value.value, color=PUBLISHED_COLOUR, linestyle=':', label=_name(value))
  axes.set(xlabel='activation layer', ylabel='share of activations (%)', xticks=layers)
  axes.legend(frameon=False, fontsize='small')
  return columns


def approximation_ratio(
  axes: plt.Axes, curves: Sequence[Curve], named: Sequence[Named]
) -> dict[str, list]:
  """Share of activations that the best member replaces, as a search goes on (Figure 4b)."""
  columns: dict[str, list] = {
    name: [] for name in ('setting', 'seeds', 'member_iterations', 'mean', 'low', 'high')
  }
  for curve in curves:
    mean, low, high = (np.multiply(values, 100) for values in curve[3:])
    seeds = f'{curve.seeds} seed' + 's' * (curve.seeds > 1)
    (line,) = axes.plot(curve.budget, mean, label=f'{curve.label}, {seeds}')
    axes.fill_between(curve.budget, low, high, color=line.get_color(), alpha=0.2)
    count = len(curve.budget)
    rows: list[Sequence] = [[curve.label] * count, [curve.seeds] * count, *curve[2:]]
    for column, cells in zip(columns.values(), rows, strict=True):
      column += cells
  levels: dict[float, list[Named]] = {}
  for value in named:
    levels.setdefault(value.value, []).append(value)
  for (level, values), style in zip(levels.items(), (':', '--')):
    axes.axhline(
      level,
      color=PUBLISHED_COLOUR,
      linestyle=style,
      linewidth=1,
      label=f'{_name(*values)} after 200 epochs',
    )
  axes.set(
    xlabel='iterations, all members together', ylabel='activations replaced (%)', ylim=(0, 103)
  )
  _legend_below(axes)
  axes.grid(alpha=0.3)
  return columns


def ablation(
  axes: plt.Axes, plans: Sequence[Planned], totals: Mapping[str, float]
) -> dict[str, list]:
  """Share of channels replaced in every layer (Figure 5): a line per plan, marked by degree.

  Args:
    axes: to draw on.
    plans: plans that are known layer by layer.
    totals: shares in 0..1 of plans that are known only in total, by what the legend says.
  """
  columns: dict[str, list] = {name: [] for name in ('plan', 'layer', 'ratio', 'degree')}
  for i, plan in enumerate(plans):
    layers = np.arange(1, 1 + len(plan.ratio))
    percent, degrees = np.multiply(plan.ratio, 100), np.asarray(plan.degree)
    colour = (PUBLISHED_COLOUR, '#d94801')[i % 2] if plan.published else f'C{i}'
    style = ':' if plan.published else '-'
    axes.plot(layers, percent, style, color=colour, linewidth=1.2, label=plan.label)
    for degree, marker in DEGREE_MARKERS.items():
      chosen = (degrees == degree) & (percent > 0)
      axes.plot(layers[chosen], percent[chosen], marker, color=colour, markersize=6)
    columns['plan'] += [plan.label] * len(layers)
    columns['layer'] += layers.tolist()
    columns['ratio'] += plan.ratio
    columns['degree'] += plan.degree
  for text, share in totals.items():
    axes.plot([], [], ' ', label=text)
    for column, value in zip(columns.values(), (text, 'all', share, '')):
      column.append(value)
  if plans:
    longest = max(len(plan.ratio) for plan in plans)
    axes.set(
      xticks=range(1, longest + 1),
      xlabel='activation layer',
      ylabel='channels replaced (%)',
      ylim=(0, 106),
    )
  else:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, 'not run', ha='center', va='center', transform=axes.transAxes)
  _legend_below(axes)
  axes.grid(alpha=0.3)
  return columns


def search_order(axes: plt.Axes, searches: Mapping[str, Sequence[Step]]) -> dict[str, list]:
  """Which layers share a ratio, and which are searched, in one run after another (Figure 6)."""
  columns: dict[str, list] = {
    name: [] for name in ('search', 'run', 'name', 'layer', 'group', 'searched')
  }
  y, ticks = 0.0, []
  for search, steps in searches.items():
    for number, step in enumerate(steps):
      bounds = [t for t in range(len(step.group)) if t == 0 or step.group[t] != step.group[t - 1]]
      for first, end in zip(bounds, [*bounds[1:], len(step.group)]):
        active = step.active[first]
        axes.barh(
          y,
          end - first - 0.06,
          0.8,
          first + 0.03,
          color=OFFLINE if active else '#f0f0f0',
          edgecolor='#525252',
        )
        names = ', '.join(f'α[{t}]' for t in range(first, end))
        equal = names.replace(', ', ' = ')
        axes.text(
          (first + end) / 2,
          y,
          equal,
          ha='center',
          va='center',
          fontsize='small',
          color='#000000' if active else '#636363',
        )
      for t, (group, active) in enumerate(zip(step.group, step.active)):
        for column, value in zip(columns.values(), (search, number, step.name, t, group, active)):
          column.append(value)
      ticks.append((y, f'{search} {number}: {step.name}'))
      y += 1
    y += 0.5
  axes.set_yticks(*zip(*ticks))
  axes.invert_yaxis()
  axes.set(xticks=[], xlabel='activation layers; searched ones are blue, the others stay')
  axes.spines[['left', 'bottom']].set_visible(False)
  axes.tick_params(length=0)
  return columns


def accuracy_at_budget(
  axes: plt.Axes, later: Sequence[Later], ours: Sequence[Reached]
) -> dict[str, list]:
  """Accuracy against ReLUs left: the paper's, later results that have a source, and ours."""
  columns: dict[str, list] = {
    name: [] for name in ('system', 'network', 'relus', 'accuracy_percent', 'source')
  }
  for i, system in enumerate(dict.fromkeys(row.system for row in later)):
    mine = sorted((row.relus, row.accuracy) for row in later if row.system == system)
    paper = system == 'SAFENet'
    axes.plot(
      *zip(*mine),
      'D' if paper else 'o',
      color=PUBLISHED_COLOUR if paper else f'C{i}',
      label=f'{system} (published)',
      linestyle='none' if len(mine) < 3 or paper else ':',
    )
  for n, run in enumerate(ours):
    axes.plot(
      run.relus,
      100 * run.accuracy,
      '*',
      markersize=11,
      color=f'C{(n + 4) % 10}',
      label=f'{run.label} (measured, {run.split})',
    )
  rows = [(r.system, r.network, r.relus, r.accuracy, r.source) for r in later]
  rows += [(r.label, '', r.relus, 100 * r.accuracy, f'measured, {r.split}') for r in ours]
  for column, values in zip(columns.values(), zip(*rows)):
    column += values
  axes.set(xscale='log', xlabel='ReLUs left per image', ylabel='accuracy (%)')
  axes.set_xticks(
    (1e4, 2e4, 5e4, 1e5, 2e5),
    ('10K', '20K', '50K', '100K', '200K'),
  )
  axes.minorticks_off()
  _legend_below(axes)
  axes.grid(alpha=0.3)
  return columns


def _name(*values: Named) -> str:
  """What the paper says of series that have the same value, in the words of a legend."""
  first = values[0]
  relation = {'=': '', '~': '~'}.get(first.relation, f'{first.relation} ')
  return f'paper: {", ".join(v.series for v in values)} {relation}{first.value:g} %'


def _legend_below(axes: plt.Axes, *handles, columns: int = 1, below: float = 0.17) -> None:
  axes.legend(
    *handles,
    frameon=False,
    fontsize='small',
    ncols=columns,
    loc='upper center',
    bbox_to_anchor=(0.5, -below),
  )

"""Runs that differ only in their seed, taken together: points with intervals, and curves.

A point shows where the runs of one setting ended. A curve shows how fast their searches
found a good plan: the best feasible score, or the share of activations that its plan
replaces, against the budget. Feasible means: at least as accurate as the threshold A_t.
"""

from collections.abc import Mapping, Sequence
import math
import statistics
from typing import Any, NamedTuple

import numpy as np

from safenet_jax.approximation import plans
from safenet_jax.search import score as score_lib

# Student's t at 97.5 %, for 1, 2, ... degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
NORMAL = 1.960


class Point(NamedTuple):
  """One setting over its seeds: means, and half-widths of 95 % intervals.

  With one seed, half-widths are NaN, because it says nothing of the spread. `runs` has
  (ReLUs left, validation accuracy) of every seed.
  """

  label: str
  series: str
  seeds: int
  relus: float
  relus_interval: float
  accuracy: float
  accuracy_interval: float
  runs: tuple[tuple[float, float], ...]


class Served(NamedTuple):
  """What a private inference under the plan of one run takes, offline and online together.

  seconds: on a local network, see `protocol.estimate.links.LAN`.
  """

  label: str
  seed: int
  accuracy: float
  megabytes: float
  seconds: float


def half_width(values: Sequence[float]) -> float:
  """Half of the 95 % confidence interval of a mean, by Student's t."""
  if len(values) < 2:
    return math.nan
  freedom = len(values) - 1
  quantile = STUDENT[freedom - 1] if freedom <= len(STUDENT) else NORMAL
  return quantile * statistics.stdev(values) / math.sqrt(len(values))


def label(overrides: Mapping[str, Any]) -> str:
  """A setting without its seed, in a few words."""
  parts = (f'{k.split(".")[-1]}={v}' for k, v in sorted(overrides.items()) if k != 'seed')
  return ' '.join(parts) or 'default'


def points(results: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[Point]:
  """Points of (overrides, plan.json), grouped by everything but the seed.

  A series is an algorithm; accuracies are of the validation set.
  """
  groups: dict[tuple, list[tuple[float, float]]] = {}
  for overrides, plan in results:
    key = tuple(sorted((k, v) for k, v in overrides.items() if k != 'seed'))
    left = sum(plan['activations']) - sum(plan['replaced'])
    groups.setdefault(key, []).append((left, plan['validation_accuracy']['planned']))
  found = []
  for key, runs in groups.items():
    relus, accuracies = zip(*runs)
    found.append(
      Point(
        label(dict(key)),
        str(dict(key).get('search.algorithm', 'search')),
        len(runs),
        statistics.fmean(relus),
        half_width(relus),
        statistics.fmean(accuracies),
        half_width(accuracies),
        tuple(runs),
      )
    )
  return found


def interval(mean: float, half: float, form: str) -> str:
  """'mean ± half' or the mean alone, each in a format like '{:.1f}'."""
  return form.format(mean) + ('' if math.isnan(half) else ' ± ' + form.format(half))


class Curve(NamedTuple):
  """One setting over its seeds; values are NaN until every seed has a feasible member.

  budget: iterations of all members together, after every cycle.
  mean, low, high: over seeds, of the best feasible score so far, or of the share that its
    plan replaces.
  """

  label: str
  seeds: int
  budget: tuple[int, ...]
  mean: tuple[float, ...]
  low: tuple[float, ...]
  high: tuple[float, ...]


def best_so_far(cycles: Sequence[Mapping[str, Any]], literal: bool = False) -> list[float]:
  """The best feasible score up to every cycle of a search's log, NaN before there is one."""
  return [score for score, _ in _best(cycles, literal)]


def replaced_so_far(
  cycles: Sequence[Mapping[str, Any]], sizes: score_lib.Activations, literal: bool = False
) -> list[float]:
  """The share of activations that the member of the best score so far replaces (Figure 4b)."""
  counts, channels = np.asarray(sizes.counts), np.asarray(sizes.channels)

  def share(ratio: Sequence[int] | None) -> float:
    if ratio is None:
      return math.nan
    replaced = (np.asarray(ratio) * channels + plans.GRID // 2) // plans.GRID
    return float((replaced * (counts // channels)).sum() / counts.sum())

  return [share(ratio) for _, ratio in _best(cycles, literal)]


def _best(
  cycles: Sequence[Mapping[str, Any]], literal: bool
) -> list[tuple[float, Sequence[int] | None]]:
  """Score and ratios of the best feasible member up to every cycle."""
  found, best, ratio = [], math.nan, None
  for cycle in cycles:
    # `score.selection_key` is above 1 for feasible members, unless it is Eq. 4 itself, the
    # paper's score.
    for i, (score, key) in enumerate(zip(cycle['score'], cycle['key'], strict=True)):
      if math.isfinite(score) and (literal or key > 1) and not score <= best:
        best, ratio = score, cycle['ratio'][i] if 'ratio' in cycle else None
    found.append((best, ratio))
  return found


def curves(
  runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Sequence[Mapping[str, Any]]]],
  sizes: score_lib.Activations | None = None,
) -> list[Curve]:
  """Curves from runs, one for all seeds of a setting.

  A curve ends where the shortest of its seeds does.

  Args:
    runs: (overrides, settings of the search, its log) of each.
    sizes: of the network's activation layers, for curves of the share that is replaced;
      None for curves of the best score.

  Raises:
    ValueError: seeds of one setting have different members or iterations.
  """
  groups: dict[str, list[tuple[int, list[float]]]] = {}
  for overrides, settings, cycles in runs:
    # Gates train one member, whatever `population` is.
    members = len(cycles[0]['score']) if cycles else settings['population']
    step = members * settings['iterations']
    literal = settings['literal']
    best = replaced_so_far(cycles, sizes, literal) if sizes else best_so_far(cycles, literal)
    groups.setdefault(label(overrides), []).append((step, best))
  found = []
  for setting, seeds in groups.items():
    steps = {step for step, _ in seeds}
    if len(steps) > 1:
      raise ValueError(f'{setting}: cycles of {sorted(steps)} member-iterations, want one number')
    columns = list(zip(*(best for _, best in seeds)))  # to the end of the shortest
    mean, low, high = (
      tuple(
        math.nan if any(map(math.isnan, values)) else float(summary(values)) for values in columns
      )
      for summary in (statistics.fmean, min, max)
    )
    (step,) = steps
    budget = tuple(step * (i + 1) for i in range(len(columns)))
    found.append(Curve(setting, len(seeds), budget, mean, low, high))
  return found

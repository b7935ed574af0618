"""Runs that differ in their seed only, as one point with intervals."""

from collections.abc import Mapping, Sequence
import math
import statistics
from typing import Any, NamedTuple

# Student's t at 97.5 %, for 1, 2, ... degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
NORMAL = 1.960


class Point(NamedTuple):
  """One setting over its seeds: means, and half-widths of 95 % intervals.

  Half-widths are NaN with one seed, which says nothing of the spread. `runs` has
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

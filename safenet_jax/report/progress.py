"""How fast searches find a good plan: the best feasible score against the budget (Figure 4b)."""

from collections.abc import Mapping, Sequence
import math
import statistics
from typing import Any, NamedTuple

from safenet_jax.report import pareto


class Curve(NamedTuple):
  """One setting over its seeds; values are NaN until every seed has a feasible member.

  budget: member-iterations, all members together, after every cycle.
  mean, low, high: of the best feasible score so far, over seeds.
  """

  label: str
  seeds: int
  budget: tuple[int, ...]
  mean: tuple[float, ...]
  low: tuple[float, ...]
  high: tuple[float, ...]


def best_so_far(cycles: Sequence[Mapping[str, Any]], literal: bool = False) -> list[float]:
  """The best feasible score up to every cycle of a search's log, NaN before there is one."""
  found, best = [], math.nan
  for cycle in cycles:
    # `score.selection_key` puts feasible members above 1, unless it is Eq. 4 itself.
    scores = [
      score for score, key in zip(cycle['score'], cycle['key'], strict=True)
      if math.isfinite(score) and (literal or key > 1)
    ]
    best = max([s for s in (best, *scores) if not math.isnan(s)], default=math.nan)
    found.append(best)
  return found


def curves(
  runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Sequence[Mapping[str, Any]]]]
) -> list[Curve]:
  """Curves of (overrides, settings of the search, its log), one for all seeds of a setting.

  A curve goes as far as all its seeds do.

  Raises:
    ValueError: seeds of one setting with other populations or iterations.
  """
  groups: dict[str, list[tuple[int, list[float]]]] = {}
  for overrides, settings, cycles in runs:
    step = settings['population'] * settings['iterations']
    best = best_so_far(cycles, settings['literal'])
    groups.setdefault(pareto.label(overrides), []).append((step, best))
  found = []
  for label, seeds in groups.items():
    steps = {step for step, _ in seeds}
    if len(steps) > 1:
      raise ValueError(f'{label}: cycles of {sorted(steps)} member-iterations, want one number')
    columns = list(zip(*(best for _, best in seeds)))  # to the end of the shortest
    mean, low, high = (
      tuple(
        math.nan if any(map(math.isnan, values)) else float(summary(values)) for values in columns
      )
      for summary in (statistics.fmean, min, max)
    )
    step, = steps
    budget = tuple(step * (i + 1) for i in range(len(columns)))
    found.append(Curve(label, len(seeds), budget, mean, low, high))
  return found

"""A plan: for every activation layer a ratio on a 5 % grid and a degree."""

from collections.abc import Iterable
import math
import numbers
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax import json_files, ranges

GRID = 20  # ratios are multiples of 1/20 (Algorithm 1's search space: 21 options)
_STEPS = range(GRID + 1)
DEGREES = (0, 2, 3)  # Section 3, "Multiple-degree approximation"


class Plan(NamedTuple):
  """What the search looks for; `T` is the number of activation layers.

  ratio: int32 [T] in 0..GRID, twentieths of the channels that are replaced.
  degree_index: int32 [T], index into DEGREES.
  """

  ratio: jax.Array
  degree_index: jax.Array

  @property
  def degree(self) -> jax.Array:
    """int32 [T]: 0, 2 or 3."""
    return jnp.asarray(DEGREES, jnp.int32)[self.degree_index]


def make(ratios: Iterable[float], degrees: Iterable[int]) -> Plan:
  """A plan from one ratio and one degree for every activation layer.

  Args:
    ratios: [T], the share of a layer's channels that is replaced: 0, 0.05, 0.1, ... or 1.
    degrees: [T], of the polynomials in their place: 2 or 3, or 0 to prune the channels.

  Raises:
    ValueError: a ratio is not on that grid, or a degree is not one of these. It names the
      layer, and the ratio on the grid that is nearest.
  """
  steps = []
  for t, ratio in enumerate(ratios):
    try:
      steps.append(twentieths(ratio))
    except ValueError as error:
      raise ValueError(f'activation{t}: {error}') from None
  return from_twentieths(steps, degrees)


def twentieths(ratio: float) -> int:
  """The ratio as a number of grid steps, 0..GRID.

  Raises a ValueError unless the ratio is a multiple of 1/GRID in 0..1; it names the nearest.
  """
  if not isinstance(ratio, numbers.Real) or isinstance(ratio, bool) or not math.isfinite(ratio):
    raise ValueError(f'ratio {ratio!r}, want a number in 0..1')
  nearest = round(min(max(ratio, 0), 1) * GRID)
  # A ratio that was computed, such as 0.1 + 0.2, may be off by a rounding error.
  if abs(ratio * GRID - nearest) > 1e-6:
    raise ValueError(
      f'ratio {ratio}, want a multiple of {1 / GRID} in 0..1: the nearest is {nearest / GRID}'
    )
  return nearest


def from_twentieths(ratios: Iterable[int], degrees: Iterable[int]) -> Plan:
  """A plan as plan.json holds it: ratios in grid steps, 0..GRID, and degrees in {0, 2, 3}.

  Raises:
    ValueError: a ratio or degree that is none of these, or more of one than of the other.
  """
  ratios, degrees = list(ratios), list(degrees)
  if len(ratios) != len(degrees):
    raise ValueError(f'{len(ratios)} ratios and {len(degrees)} degrees, want as many of each')
  for t, (ratio, degree) in enumerate(zip(ratios, degrees)):
    if not isinstance(ratio, numbers.Real) or isinstance(ratio, bool) or ratio not in _STEPS:
      raise ValueError(f'activation{t}: ratio {ratio!r}, want an integer in 0..{GRID}')
    if not isinstance(degree, numbers.Real) or isinstance(degree, bool) or degree not in DEGREES:
      raise ValueError(f'activation{t}: degree {degree!r}, want one of {DEGREES}')
  return Plan(
    jnp.asarray(ratios, jnp.int32),
    jnp.asarray([DEGREES.index(d) for d in degrees], jnp.int32),
  )


def check(plan: Plan, layers: int) -> None:
  """ValueError unless it is a plan for a network of so many activation layers."""
  ranges.check_type('plan', plan, Plan)
  ratio, index = map(np.asarray, plan)
  if ratio.shape != (layers,):
    raise ValueError(f'a plan of {ratio.size} layers, want {layers}: one for each activation')
  if index.shape != ratio.shape:
    raise ValueError(f'{ratio.size} ratios and {index.size} degrees, want as many of each')
  if not np.isin(index, range(len(DEGREES))).all():
    raise ValueError(f'degree indices {index.tolist()}, want numbers in 0..{len(DEGREES) - 1}')
  from_twentieths(ratio.tolist(), [DEGREES[i] for i in index])


def all_relu(layers: int) -> Plan:
  """The plan that replaces nothing."""
  return from_twentieths([0] * layers, [2] * layers)


def replaced_channels(plan: Plan, channels: jax.Array) -> jax.Array:
  """int32 [T]: how many of a layer's C channels are replaced, (ratio * C + 10) // 20.

  Args:
    plan: ratio and degree of every activation layer.
    channels: int32 [T], the numbers C.
  """
  return (plan.ratio * channels + GRID // 2) // GRID


def record(plan: Plan, network: str, **extra) -> dict[str, Any]:
  """What plan.json holds: the network's name, ratios, degrees and extra results."""
  return {
    'network': network,
    'ratio': np.asarray(plan.ratio).tolist(),
    'degree': np.asarray(plan.degree).tolist(),
    **extra,
  }


def load_ranks(
  path: str | os.PathLike[str], channels: tuple[int, ...]
) -> tuple[jax.Array, ...] | None:
  """The ranks of channels in plan.json: per layer int32 [C]; None if those of the weights hold.

  A planner that learned which channels to replace writes them. Of k channels that the plan
  replaces in a layer, these are the ones of ranks 0 to k - 1.

  Raises:
    ValueError: they are no permutations for layers of so many channels.
    FileNotFoundError: there is no such file.
  """
  found = json_files.read(path, mend='write it again')
  ranks = found.get('ranks') if isinstance(found, dict) else None
  if ranks is None:
    return None
  right = isinstance(ranks, list) and len(ranks) == len(channels)
  if not right or any(
    not isinstance(rank, list) or sorted(map(str, rank)) != sorted(map(str, range(count)))
    for rank, count in zip(ranks, channels)
  ):
    raise ValueError(f'{path} has ranks that are no orders of {channels} channels')
  return tuple(jnp.asarray(rank, jnp.int32) for rank in ranks)


def load(path: str | os.PathLike[str], network: str, layers: int) -> Plan:
  """Reads plan.json.

  Raises:
    ValueError: it is malformed, or a plan for another network.
    FileNotFoundError: there is no such file.
  """
  try:
    loaded = json_files.read(path, mend='write it again')
    found, ratio, degree = loaded['network'], loaded['ratio'], loaded['degree']
  except (FileNotFoundError, IsADirectoryError):
    raise FileNotFoundError(f'no plan at {path}: run the search first') from None
  except (KeyError, TypeError) as error:
    raise ValueError(f'{path} is not a plan with network, ratio and degree: {error!r}') from None
  for name, values in (('ratio', ratio), ('degree', degree)):
    if not isinstance(values, list) or not all(isinstance(v, (int, float)) for v in values):
      raise ValueError(f'{path} has {name} {values!r}, want a list of integers')
  if found != network:
    raise ValueError(f'{path} is a plan for {found}, want one for {network}')
  if len(ratio) != layers:
    raise ValueError(f'{path} plans {len(ratio)} layers, want {layers}')
  try:
    return from_twentieths(ratio, degree)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None

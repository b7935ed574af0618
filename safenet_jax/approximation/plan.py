"""A plan: for every activation layer a ratio on a 5 % grid and a degree."""

import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

GRID = 20  # ratios are multiples of 1/20 (Algorithm 1's search space: 21 options)
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


def make(ratios, degrees) -> Plan:
  """A checked plan from ratios in 0..20 and degrees in {0, 2, 3}, or ValueError."""
  ratios, degrees = list(ratios), list(degrees)
  if len(ratios) != len(degrees):
    raise ValueError(f'{len(ratios)} ratios and {len(degrees)} degrees, want as many of each')
  for ratio in ratios:
    if isinstance(ratio, bool) or int(ratio) != ratio or not 0 <= ratio <= GRID:
      raise ValueError(f'ratio {ratio}, want an integer in 0..{GRID}')
  for degree in degrees:
    if degree not in DEGREES:
      raise ValueError(f'degree {degree}, want one of {DEGREES}')
  return Plan(
    jnp.asarray(ratios, jnp.int32),
    jnp.asarray([DEGREES.index(d) for d in degrees], jnp.int32),
  )


def all_relu(layers: int) -> Plan:
  """The plan that replaces nothing."""
  return make([0] * layers, [2] * layers)


def replaced_channels(plan: Plan, channels: jax.Array) -> jax.Array:
  """int32 [T]: channels really replaced, (ratio * C + 10) // 20 of C."""
  return (plan.ratio * channels + GRID // 2) // GRID


def record(plan: Plan, network: str, **extra) -> dict[str, Any]:
  """What plan.json holds: the network's name, ratios, degrees and extra results."""
  return {
    'network': network,
    'ratio': np.asarray(plan.ratio).tolist(),
    'degree': np.asarray(plan.degree).tolist(),
    **extra,
  }


def load(path: str | os.PathLike[str], network: str, layers: int) -> Plan:
  """Reads plan.json.

  ValueError if it is malformed or for another network, FileNotFoundError without it.
  """
  try:
    loaded = json.loads(pathlib.Path(path).read_text())
    found, ratio, degree = loaded['network'], loaded['ratio'], loaded['degree']
  except (FileNotFoundError, IsADirectoryError):
    raise FileNotFoundError(f'no plan at {path}: run the search first') from None
  except (json.JSONDecodeError, KeyError, TypeError) as error:
    raise ValueError(f'{path} is not a plan with network, ratio and degree: {error!r}') from None
  for name, values in (('ratio', ratio), ('degree', degree)):
    if not isinstance(values, list) or not all(isinstance(v, (int, float)) for v in values):
      raise ValueError(f'{path} has {name} {values!r}, want a list of integers')
  if found != network:
    raise ValueError(f'{path} is a plan for {found}, want one for {network}')
  if len(ratio) != layers:
    raise ValueError(f'{path} plans {len(ratio)} layers, want {layers}')
  return make(ratio, degree)

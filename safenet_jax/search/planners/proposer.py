"""Where the plans of a population come from, if it is not random variation."""

import abc
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import plans


class Proposer(abc.ABC):
  """Gives every member its plan at the start of a node, and sees what became of it.

  Its state is a pytree of arrays, which the search checkpoints. Without methods
  `init` and `learn` of its own, a subclass has no state. `P` is the number of
  members, `T` the number of activation layers.
  """

  def init(self, key: jax.Array) -> Any:
    """The state at the start of a search."""
    del key
    return ()

  @abc.abstractmethod
  def propose(
    self, key: jax.Array, state: Any, plan: plans.Plan, index: int, members: int
  ) -> plans.Plan:
    """Plans with leaves [P, T].

    Args:
      key: consumed.
      state: as it stands.
      plan: of the member that the node starts from.
      index: of the node in its schedule.
      members: P.
    """

  def learn(self, state: Any, plan: plans.Plan, report: Mapping[str, np.ndarray]) -> Any:
    """The state after a node: `report` holds accuracy and score, both [P]."""
    del plan, report
    return state


def tiled(ratios: jax.Array, layers: int, degree: int) -> plans.Plan:
  """Plans [P, T] with one ratio per member, int [P], in all layers."""
  ratio = jnp.tile(jnp.asarray(ratios, jnp.int32)[:, None], (1, layers))
  return whole_degree(ratio, degree)


def whole_degree(ratio: jax.Array, degree: int) -> plans.Plan:
  """Plans with the given ratios int [P, T] and one degree for all."""
  index = plans.DEGREES.index(degree)
  return plans.Plan(jnp.asarray(ratio, jnp.int32), jnp.full(ratio.shape, index, jnp.int32))

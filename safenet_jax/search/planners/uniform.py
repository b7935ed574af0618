"""One ratio for all layers, degree 2, trained without selection.

There are two uses. In hand-crafted channel-wise approximation (CW, section 4.1 of
the paper) the members hold a grid of ratios, and the best feasible one wins. In
CONAD's uniform partial activations (Shafran et al. 2019) the ratio is given.
CONAD makes the replaced channels linear, which a polynomial of degree 2 can be too.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import plans
from safenet_jax.search.pbt import Step
from safenet_jax.search.planners import proposer


@dataclasses.dataclass(frozen=True)
class Uniform(proposer.Proposer):
  """Gives all members one ratio, or member i of P the grid step nearest to (i + 1) / P.

  layers: activation layers of the network.
  ratio: twentieths for all members, or None for the grid.
  """

  layers: int
  ratio: int | None = None

  def propose(self, key, state, plan, index, members):
    del key, state, plan, index
    if self.ratio is not None:
      ratios = np.full(members, self.ratio)
    else:
      ratios = np.maximum(1, np.rint((np.arange(members) + 1) * plans.GRID / members))
    return proposer.tiled(jnp.asarray(ratios), self.layers, 2)


def partial(layers: int, share: float) -> Uniform:
  """Uniform partial activations with `share` of the channels replaced.

  ValueError for a share that is not on the 5 % grid.
  """
  return Uniform(layers, plans.twentieths(share))


def schedule(name: str, layers: int, cycles: int) -> list[Step]:
  """One run of all members, each with its own ratio."""
  return [Step.everywhere(name, layers, cycles, 'first', proposed=True)]

"""One ratio for all layers, degree 2, trained without selection.

Hand-crafted channel-wise approximation (CW, section 4.1): the members hold a
grid of ratios and the best feasible one wins. CONAD's uniform partial
activations (Shafran et al. 2019): the ratio is given. CONAD leaves the other
channels linear; degree 2 contains that.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import plan as plans
from safenet_jax.search import proposer
from safenet_jax.search.pbt import Step


@dataclasses.dataclass(frozen=True)
class Uniform(proposer.Proposer):
  """Gives member i of P ratio (i + 1) / P to the nearest grid step, or the one given.

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
  """Uniform partial activations with `share` of the channels replaced, on the 5 % grid.

  ValueError for others.
  """
  ratio = round(share * plans.GRID)
  if not 0 <= share <= 1 or abs(share * plans.GRID - ratio) > 1e-6:
    raise ValueError(f'partial ratio {share}, want a multiple of {1 / plans.GRID} in 0..1')
  return Uniform(layers, ratio)


def schedule(name: str, layers: int, cycles: int) -> list[Step]:
  """One run of all members, each with its own ratio."""
  return [Step(name, tuple(range(layers)), (True,) * layers, cycles, 'first', proposed=True)]

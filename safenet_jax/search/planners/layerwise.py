"""Whole layers replaced by degree 2, as in Delphi (Mishra et al. 2020).

There are three versions. A plan is feasible if its accuracy is at least A_t, the
threshold of the search.

- As the paper describes it: the last k layers of the network are replaced, with the
  largest k that is feasible.
- Delphi-Fast (Tables 2 to 4 of the paper): one layer more than that.
- As Delphi was released (mc2-project/delphi, python/minionn): population based
  training over random subsets of k layers. A copy keeps the subset of its parent,
  and changes learning rate and momentum.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import plans
from safenet_jax.search.pbt import Step
from safenet_jax.search.planners import proposer


def last(layers: int, counts: np.ndarray) -> plans.Plan:
  """Plans [P, T] of P members for T layers; counts int [P] says how many last layers each has."""
  replaced = jnp.arange(layers) >= layers - jnp.asarray(counts)[:, None]
  return proposer.whole_degree(plans.GRID * replaced, 2)


@dataclasses.dataclass(frozen=True)
class LastLayers(proposer.Proposer):
  """Tries every number of last layers.

  With P members and T layers, member i of round r replaces the last
  1 + (r P + i) mod T layers. A node after these rounds replaces one layer more
  than the member that it starts from.

  layers: T.
  rounds: how many there are.
  """

  layers: int
  rounds: int

  def propose(self, key, state, plan, index, members):
    del key, state
    if index >= self.rounds:
      found = int(np.count_nonzero(np.asarray(plan.ratio) == plans.GRID))
      return last(self.layers, np.full(members, min(found + 1, self.layers)))
    return last(self.layers, 1 + (index * members + np.arange(members)) % self.layers)


@dataclasses.dataclass(frozen=True)
class Subsets(proposer.Proposer):
  """Every member replaces a random subset of k layers.

  layers: T, the number of activation layers.
  count: k, or 0 to spread k from 1 to T over the members.
  """

  layers: int
  count: int = 0

  def propose(self, key, state, plan, index, members):
    del state, plan, index
    counts = np.full(members, self.count)
    if not self.count:
      counts = 1 + np.arange(members) * self.layers // members
    order = jax.vmap(lambda key: jax.random.permutation(key, self.layers))(
      jax.random.split(key, members)
    )
    return proposer.whole_degree(plans.GRID * (order < counts[:, None]), 2)


def subsets(layers: int, count: int) -> Subsets:
  """Random subsets of `count` layers, 0 for every number; ValueError outside 0..`layers`."""
  if not 0 <= count <= layers:
    raise ValueError(f'{count} layers to replace, want 1..{layers}, or 0 for every number')
  return Subsets(layers, count)


def schedule(layers: int, members: int, cycles: int, past_cycles: int = 0) -> list[Step]:
  """Enough rounds of all members to try every number of last layers; they share the cycles.

  With `past_cycles`, so many of the cycles come after that, for one layer more than the
  accuracy threshold A_t allows.

  ValueError if there are fewer cycles than rounds.
  """
  rounds = -(-layers // members)
  searched = cycles - past_cycles
  if searched < rounds:
    raise ValueError(f'{searched} cycles for {rounds} rounds of {members} members, want more')
  steps = [
    Step.everywhere(
      f'last layers {r + 1}/{rounds}',
      layers,
      searched // rounds + (r < searched % rounds),
      'first',
      proposed=True,
    )
    for r in range(rounds)
  ]
  if past_cycles:
    past = Step.everywhere('one layer more', layers, past_cycles, 'winner', proposed=True)
    steps.append(past._replace(enforced=False))
  return steps


def subset_schedule(layers: int, cycles: int) -> list[Step]:
  """One PBT run over the members' subsets."""
  return [Step.everywhere('subsets', layers, cycles, 'first', proposed=True)]

"""Population based training (Jaderberg et al. 2017) of plans and weights.

After every cycle the worst quarter of the members copies the weights,
optimiser state and plan of a member of the best quarter (exploit), and then
perturbs the copied plan and learning rate (explore).
"""

import dataclasses
from typing import NamedTuple

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

from safenet_jax import ranges
from safenet_jax.approximation import plans
from safenet_jax.search import gates, score
from safenet_jax.search.members import Member

# Delphi draws momenta from 0.5 to 1, but at 1 a member never settles.
MOMENTUM_RANGE = (0.5, 0.99)


@dataclasses.dataclass(frozen=True)
class Evolution:
  """How a population evolves.

  population: P, the number of members.
  iterations: mini-batches that every member trains on between two selections.
  threshold: A_t, the least accuracy of a feasible member.
  literal: select by the score alone (Eq. 4, see `score.score`), without A_t.
  reduction: for degrees (0, 2, 3) R, the share of a ReLU's cost that the degree
    saves; from a cost model.
  objective: what feasible members are sorted by, one of `score.OBJECTIVES`.
  degrees: those that plans are drawn from.
  quantile: the share of members, from the worst, that become copies of members
    of the same share from the best. At 0 only diverged members do.
  vary_plans: copies change their plan, and not only how they are trained.
  vary_momentum: every member has a momentum of its own, which copies change.
  pace: members have gates, which make their plans, and this is how the gates move.
  resample: probability that a copy draws the degree of a group of layers anew.
  rate_factors: a copy multiplies its learning rate by one of these, and so its
    momentum if it has its own.
  strategy: how a device runs its members, see `population.over_members`.
  mesh: devices that members are sharded over, see `population.mesh`.
  """

  population: int = 50
  iterations: int = 20
  threshold: float = 0.0
  literal: bool = False
  reduction: tuple[float, float, float] = score.PUBLISHED.reduction()
  objective: str = 'score'
  degrees: tuple[int, ...] = plans.DEGREES
  quantile: float = 0.25
  vary_plans: bool = True
  vary_momentum: bool = False
  pace: gates.Pace | None = None
  resample: float = 0.25
  rate_factors: tuple[float, float] = (0.8, 1.25)
  strategy: str = 'map'
  mesh: jax.sharding.Mesh | None = None

  def __post_init__(self):
    ranges.check({'population': self.population, 'iterations': self.iterations})
    if not self.degrees or not set(self.degrees) <= set(plans.DEGREES):
      raise ValueError(f'degrees {self.degrees}, want some of {plans.DEGREES}')


class Node(struct.PyTreeNode):
  """What one PBT run searches. Its fields are arrays, so that all nodes share one executable.

  group: int32 [T] for T activation layers; layers of one group share their ratio
    and degree. A group is named by the index of its first layer.
  active: bool [T]; the layers that are searched. The others keep their plan.
  floor: int32 []; the least number of activations that a plan replaces in the
    active layers.
  enforced: bool []; whether a member needs an accuracy of A_t to be feasible.
  """

  group: jax.Array
  active: jax.Array
  floor: jax.Array
  enforced: jax.Array | bool = True


class Step(NamedTuple):
  """A node of a search schedule: its name, its layers, how its members start.

  group, active: as of `Node`.
  cycles: how many selections there are.
  start: what the members are made of. 'random': plans are drawn at random.
    'candidate': they vary the best member of the node before, and each replaces
    at least as many activations of the active layers as that did. 'winner': they
    vary the best candidate of all nodes so far. 'first': they vary the member
    that the search began with.
  proposed: plans come from the algorithm's `proposer.Proposer` instead.
  floor: the least number of activations that a plan replaces.
  enforced: whether a member needs an accuracy of A_t to be feasible. If not, the
    node's best member becomes the winner without being compared.
  patience: the step ends early after so many cycles in a row without a better feasible
    member; at 0 it never does.
  draws: plans that are drawn for every member at the start. If more than one, they are
    compared in a supernet first, see `supernet.choose`.
  fresh: the members' optimisers start without memory, and at the first learning rate.
  """

  name: str
  group: tuple[int, ...]
  active: tuple[bool, ...]
  cycles: int
  start: str
  proposed: bool = False
  floor: int = 0
  enforced: bool = True
  patience: int = 0
  draws: int = 1
  fresh: bool = False

  @classmethod
  def everywhere(
    cls, name: str, layers: int, cycles: int, start: str, *, proposed: bool = False, floor: int = 0
  ) -> 'Step':
    """A step that searches all layers, each by itself."""
    everything = tuple(range(layers)), (True,) * layers
    return cls(name, *everything, cycles, start, proposed, floor)


def schedule(layers: int, cycles: int) -> list[Step]:
  """Plain PBT: every layer by itself from the start, for `cycles` cycles."""
  return [Step.everywhere('pbt', layers, cycles, 'random')]


def budget_schedule(sizes: score.Activations, relus: int, cycles: int) -> list[Step]:
  """Plain PBT among plans that leave at most `relus` ReLUs per image.

  It is CryptoNAS's idea (Ghodsi et al. 2020) on this search space: members are sorted by
  accuracy alone, and `project` raises ratios until the budget is met, so that every plan
  that is ever trained meets it.

  ValueError for a budget below 0 or above the ReLUs that the network has.
  """
  total, layers = sum(sizes.counts), len(sizes.counts)
  if not 0 <= relus <= total:
    raise ValueError(f'a budget of {relus} ReLUs, want 0..{total}')
  return [Step.everywhere('budget', layers, cycles, 'random', floor=total - relus)]


def project(plan: plans.Plan, node: Node, sizes: score.Activations) -> plans.Plan:
  """Raises ratios until the active layers replace at least `node.floor`.

  One step at a time, it raises the ratio of one group: of those whose ratio is
  still below 1, the one with the most activations.
  """
  counts = jnp.where(node.active, jnp.asarray(sizes.counts, jnp.int32), 0)
  in_group = jax.ops.segment_sum(counts, node.group, len(sizes.counts))[node.group]

  def open_layers(ratio):
    return node.active & (ratio < plans.GRID)

  def short(ratio):
    replaced = score.replaced(plan._replace(ratio=ratio), sizes)
    return (jnp.where(node.active, replaced, 0).sum() < node.floor) & open_layers(ratio).any()

  def raise_one(ratio):
    open_ = open_layers(ratio)
    group = node.group[jnp.argmax(jnp.where(open_, in_group, -1))]
    return ratio + (open_ & (node.group == group))

  return plan._replace(ratio=lax.while_loop(short, raise_one, plan.ratio))


def explore(
  key: jax.Array, plan: plans.Plan, node: Node, sizes: score.Activations, evolution: Evolution
) -> plans.Plan:
  """Changes one plan a little: ratios by 1 or 2 steps up or down, and some degrees."""
  layers = (len(sizes.counts),)
  key_size, key_sign, key_degree, key_resample = jax.random.split(key, 4)
  # Drawn per layer and read at the group's name, so that a group moves as one.
  size = jax.random.randint(key_size, layers, 1, 3)
  move = jnp.where(jax.random.bernoulli(key_sign, 0.5, layers), size, -size)[node.group]
  degree = _random_degree(key_degree, layers, evolution.degrees)[node.group]
  anew = jax.random.bernoulli(key_resample, evolution.resample, layers)[node.group]
  explored = plans.Plan(
    jnp.where(node.active, jnp.clip(plan.ratio + move, 0, plans.GRID), plan.ratio),
    jnp.where(node.active & anew, degree, plan.degree_index),
  )
  return project(explored, node, sizes)


def _random_degree(key, shape, degrees: tuple[int, ...]) -> jax.Array:
  indices = jnp.asarray([plans.DEGREES.index(degree) for degree in degrees], jnp.int32)
  return indices[jax.random.randint(key, shape, 0, len(degrees))]


def random_plan(
  key: jax.Array,
  plan: plans.Plan,
  node: Node,
  sizes: score.Activations,
  slot: jax.Array,
  slots: int,
  degrees: tuple[int, ...] = plans.DEGREES,
) -> plans.Plan:
  """A random plan of the active groups; the other layers keep theirs.

  Member `slot` of `slots` draws its ratios in the slot-th of `slots` equal parts of
  0..1. If few members drew independently, all of them might be infeasible.
  """
  layers = (len(sizes.counts),)
  key_ratio, key_degree = jax.random.split(key)
  share = (slot + jax.random.uniform(key_ratio, layers)) / slots
  ratio = jnp.floor(share * (plans.GRID + 1)).astype(jnp.int32)[node.group]
  degree = _random_degree(key_degree, layers, degrees)[node.group]
  drawn = plans.Plan(
    jnp.where(node.active, ratio, plan.ratio),
    jnp.where(node.active, degree, plan.degree_index),
  )
  return project(drawn, node, sizes)


def evolve(
  key: jax.Array,
  members: Member,
  keys: jax.Array,
  node: Node,
  sizes: score.Activations,
  evolution: Evolution,
) -> tuple[Member, jax.Array]:
  """Exploits and explores a whole population.

  Args:
    key: consumed.
    members: leaves with a leading member axis [P].
    keys: float [P], selection keys (`score.selection_key`), larger is better.
    node: what is searched.
    sizes: of the network's activation layers.
    evolution: the settings.

  Returns:
    The next population and parents int32 [P]: whom each member was copied from.
  """
  count = keys.shape[0]
  selects = count > 1 and evolution.quantile > 0
  quarter = max(1, round(evolution.quantile * count)) if selects else 0
  key_choice, key_explore, key_rate = jax.random.split(key, 3)
  order = jnp.argsort(-keys, stable=True)
  rank = jnp.zeros(count, jnp.int32).at[order].set(jnp.arange(count, dtype=jnp.int32))
  # A diverged member is never copied, even when a whole quarter diverged.
  healthy = jnp.maximum(jnp.isfinite(keys).sum(), 1)
  choice = jax.random.randint(key_choice, (count,), 0, jnp.minimum(max(quarter, 1), healthy))
  loses = (rank >= count - quarter) | jnp.isneginf(keys)
  parents = jnp.where(loses, order[choice], jnp.arange(count))
  members = jax.tree.map(lambda leaf: leaf[parents], members)

  if evolution.vary_plans:
    explored = jax.vmap(lambda k, plan: explore(k, plan, node, sizes, evolution))(
      jax.random.split(key_explore, count), members.plan
    )
    members = members.replace(
      plan=jax.tree.map(
        lambda new, old: jnp.where(loses[:, None], new, old), explored, members.plan
      )
    )
  factors = jnp.asarray(evolution.rate_factors)
  factor = jnp.where(loses, jax.random.choice(key_rate, factors, (count,)), 1.0)
  if members.momentum is not None:
    key_momentum = jax.random.fold_in(key_rate, 1)
    change = jnp.where(loses, jax.random.choice(key_momentum, factors, (count,)), 1.0)
    momentum = jnp.clip(members.momentum * change, *MOMENTUM_RANGE)
    members = members.replace(momentum=momentum)
  return members.replace(learning_rate=members.learning_rate * factor), parents

"""The search algorithms by name, all with the same budget of member-iterations."""

import dataclasses
from typing import NamedTuple

from safenet_jax.search import gates, pbt, score
from safenet_jax.search.planners import btpbt, controller, layerwise, uniform
from safenet_jax.search.planners.proposer import Proposer

# In section 4.1 of the paper, CW-MP is a ratio per layer with one degree, and CW-MP-MD is the
# whole method.
NAMES = (
  'btpbt',
  'pbt',
  'cw',
  'cw_mp',
  'cw_mp_md',
  'partial',
  'layerwise',
  'layerwise_fast',
  'layerwise_released',
  'controller',
  'budget',
  'gates',
  'gates_budget',
)


class Search(NamedTuple):
  """What `schedule.run` needs of an algorithm.

  steps: what is searched, in order.
  evolution: how the population evolves.
  proposer: where the plans of proposed steps come from, None without such steps.
  """

  steps: list[pbt.Step]
  evolution: pbt.Evolution
  proposer: Proposer | None = None

  def longest_line(self, cycles: list[int]) -> int:
    """The most cycles that a member's weights were trained for, its ancestors' cycles included.

    Args:
      cycles: how many every step took.
    """
    longest = line = 0
    for step, taken in zip(self.steps, cycles):
      line = taken if step.start == 'first' else line + taken
      longest = max(longest, line)
    return longest


def build(
  name: str,
  sizes: score.Activations,
  evolution: pbt.Evolution,
  *,
  node_cycles: int,
  joint_cycles: int,
  partial_ratio: float = 0.5,
  subset_layers: int = 0,
  relu_budget: int = 0,
  node_patience: int = 0,
  supernet_draws: int = 1,
  fresh_nodes: bool = False,
) -> Search:
  """The algorithm of that name.

  All train `evolution.population` members for as many cycles as the binary tree
  has, on the same score, data and iterations per cycle. Gates train one member for as many
  steps as these have together.

  Args:
    name: one of NAMES.
    sizes: of the network's activation layers.
    evolution: the settings they share.
    node_cycles, joint_cycles: cycles of a node of the tree and of the joint search.
    partial_ratio: for 'partial', the share of every layer's channels that is replaced.
    subset_layers: for 'layerwise_released', how many layers are replaced; 0 tries every number.
    relu_budget: for 'budget' and 'gates_budget', how many ReLUs may be left per image.
    node_patience, supernet_draws, fresh_nodes: for the binary tree, its options `patience`,
      `draws` and `fresh`, see `btpbt.schedule`.

  Raises:
    ValueError: for an unknown name, or an argument out of range.
  """
  layers = len(sizes.counts)
  tree = btpbt.schedule(
    layers,
    node_cycles,
    joint_cycles,
    patience=node_patience,
    draws=supernet_draws,
    fresh=fresh_nodes,
  )
  cycles = sum(step.cycles for step in tree)
  change = dataclasses.replace
  unselected = change(evolution, quantile=0.0, vary_plans=False)
  match name:
    case 'btpbt' | 'cw_mp_md':
      return Search(tree, evolution)
    case 'cw_mp':
      return Search(tree, change(evolution, degrees=(2,)))
    case 'pbt':
      return Search(pbt.schedule(layers, cycles), evolution)
    case 'cw':
      return Search(uniform.schedule('cw', layers, cycles), unselected, uniform.Uniform(layers))
    case 'partial':
      # The ratio is given, whatever accuracy comes of it.
      steps = [s._replace(enforced=False) for s in uniform.schedule('partial', layers, cycles)]
      return Search(steps, unselected, uniform.partial(layers, partial_ratio))
    case 'layerwise' | 'layerwise_fast':
      past = node_cycles if name == 'layerwise_fast' else 0
      steps = layerwise.schedule(layers, evolution.population, cycles, past)
      rounds = len(steps) - bool(past)
      largest = change(unselected, objective='replaced')
      return Search(steps, largest, layerwise.LastLayers(layers, rounds))
    case 'layerwise_released':
      mutated = change(evolution, vary_plans=False, vary_momentum=True)
      steps = layerwise.subset_schedule(layers, cycles)
      return Search(steps, mutated, layerwise.subsets(layers, subset_layers))
    case 'controller':
      steps = controller.schedule(layers, cycles, node_cycles)
      return Search(steps, unselected, controller.Controller(layers, evolution.threshold))
    case 'budget':
      accurate = change(evolution, objective='accuracy', threshold=0.0)
      return Search(pbt.budget_schedule(sizes, relu_budget, cycles), accurate)
    case 'gates':
      pace = gates.Pace(cycles * evolution.population, evolution.reduction)
      return _gates(pbt.schedule(layers, cycles), change(evolution, pace=pace))
    case 'gates_budget':
      steps = pbt.budget_schedule(sizes, relu_budget, cycles)
      most = steps[0].floor / sum(sizes.counts)
      pace = gates.Pace(cycles * evolution.population, (1.0, 1.0, 1.0), most, waits=False)
      accurate = change(evolution, objective='accuracy', threshold=0.0, pace=pace)
      return _gates(steps, accurate)
  raise ValueError(f"unknown search algorithm '{name}', want one of {', '.join(NAMES)}")


def _gates(steps: list[pbt.Step], evolution: pbt.Evolution) -> Search:
  """One step in which one member does the cycles of all members."""
  (step,) = steps
  step = step._replace(name='gates', cycles=step.cycles * evolution.population, start='first')
  return Search([step], dataclasses.replace(evolution, population=1, mesh=None))

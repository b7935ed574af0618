"""What one activation of a network costs, by kind, over a link and in a mode: for searches.

A search weighs how much of the ReLUs' cost a plan saves (Eq. 4 of the paper). What a ReLU and a
polynomial cost depends on the mode and on the link over which the plan will be served. Here both
come from estimates of the network itself: one with ReLUs everywhere, and one for each degree.
"""

from collections.abc import Callable

from safenet_jax.approximation import plans
from safenet_jax.models import network as networks
from safenet_jax.protocol.estimate import estimate as estimates
from safenet_jax.protocol.estimate import unit_costs, untrained
from safenet_jax.protocol.estimate.links import Link

# Rows of a ledger that an inference has whatever its activations are.
_ELSEWHERE = frozenset({'linear', 'masked input', 'share', 'identifier'})


def per_activation(
  network: networks.Network,
  mode: str,
  link: Link,
  costs: unit_costs.UnitCosts = unit_costs.DEFAULT,
) -> Callable[[int | None], float]:
  """Microseconds of one activation, both parties and phases, for `score.cost_model`.

  A ReLU costs what the all-ReLU network spends on activations, divided by their number: work,
  bytes and round trips. A polynomial costs as much less as the network with polynomials
  everywhere is faster. That includes what it changes in linear layers. A pruned channel is free.

  Args:
    network: that is searched.
    mode: in which it will be served, of `sessions.MODES`.
    link: over which.
    costs: of the machines of both parties.

  Returns:
    A function of the degree 0, 2 or 3; None is ReLU.

  Raises:
    ValueError: the network cannot be served in this mode, or not with polynomials everywhere.
  """
  layers, count = len(networks.activation_channels(network)), sum(networks.relu_counts(network))

  def seconds(replaced: int, degree: int, without: frozenset[str] = frozenset()) -> float:
    plan = plans.from_twentieths([replaced] * layers, [degree] * layers)
    found = estimates.inference(untrained.model(network, plan).public, mode, costs)
    rows = [row for row in found.record['rows'] if row['primitive'] not in without]
    some = found._replace(record=found.record | {'rows': rows})
    return some.seconds('offline', link) + some.seconds('online', link)

  relu, all_relu = seconds(0, 2, _ELSEWHERE), seconds(0, 2)
  found: dict[int | None, float] = {None: relu, 0: 0.0}
  for degree in (2, 3):
    found[degree] = max(0.0, relu + seconds(plans.GRID, degree) - all_relu)

  def cost(degree: int | None) -> float:
    return 1e6 * found[degree] / count

  cost.__name__ = f'measured in mode {mode} over {link}'
  return cost

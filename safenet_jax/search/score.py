"""What the search maximises (the paper's Eq. 4), and the cost of an activation in it.

Eq. 4: score = accuracy x (1 + the share of the cost of all activations that the plan saves).
The threshold A_t, below which a plan is not feasible, is set in `phases.search`.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from safenet_jax.approximation import plans
from safenet_jax.models.network import activation_channels, Network, relu_counts


class CostModel(NamedTuple):
  """Microseconds per activation of one private inference."""

  name: str
  relu: float
  degree0: float
  degree2: float
  degree3: float

  def reduction(self) -> tuple[float, float, float]:
    """R for degrees (0, 2, 3): the share of a ReLU's time that a polynomial saves."""
    costs = self.degree0, self.degree2, self.degree3
    degree0, degree2, degree3 = (1.0 - cost / self.relu for cost in costs)
    return degree0, degree2, degree3


# Section 3, "Score": 20.1 us a ReLU and 0.2 us a cubic, so R(3) = 0.990 (printed
# as 99.9 %). Degree 2 is 192 times cheaper than a ReLU (section 2.1).
PUBLISHED = CostModel('published', relu=20.1, degree0=0.0, degree2=20.1 / 192, degree3=0.2)

KINDS = {'relu': None, 'degree0': 0, 'degree2': 2, 'degree3': 3}


def cost_model(
  source: Callable[[int | None], float],
) -> CostModel:
  """The cost model of a function of the degree (None is ReLU), microseconds per activation.

  `protocol.estimate.activation_costs` has such functions.

  Raises:
    ValueError: a cost is not finite, negative, or zero for a ReLU.
  """
  name = getattr(source, '__name__', 'given')
  costs = {kind: float(source(degree)) for kind, degree in KINDS.items()}
  for kind, cost in costs.items():
    if not (math.isfinite(cost) and cost >= 0 and (cost or kind != 'relu')):
      raise ValueError(f'{name} costs {cost} us for {kind}, want a finite positive number')
  return CostModel(name, **costs)


class Activations(NamedTuple):
  """Static sizes of a network's activation layers, `T` of them."""

  counts: tuple[int, ...]  # activations per layer
  channels: tuple[int, ...]  # channels per layer


def activations(network: Network) -> Activations:
  """The sizes of a network's activation layers."""
  return Activations(relu_counts(network), activation_channels(network))


def replaced(plan: plans.Plan, sizes: Activations) -> jax.Array:
  """int32 [T]: activations of each layer that a plan really replaces.

  A requested ratio that changes no channel replaces, and earns, nothing.
  """
  channels = jnp.asarray(sizes.channels, jnp.int32)
  per_channel = jnp.asarray(sizes.counts, jnp.int32) // channels
  return plans.replaced_channels(plan, channels) * per_channel


def score(
  accuracy: jax.Array,
  plan: plans.Plan,
  sizes: Activations,
  reduction: tuple[float, float, float],
) -> jax.Array:
  """Eq. 4: accuracy x (1 + sum over layers t of n_t R(d_t) / number of all activations).

  Here n_t activations of layer t are replaced by polynomials of degree d_t, and
  R(d) is the share of a ReLU's cost that degree d saves. The paper prints Eq. 4
  without the division, but its text asks for it: "the reduced ratio of total
  latency".

  Args:
    accuracy: float [] in 0..1.
    plan: of one member.
    sizes: of the network.
    reduction: R of degrees (0, 2, 3), from a cost model.

  Returns:
    float [], between accuracy and twice the accuracy.
  """
  saved = jnp.asarray(reduction, jnp.float32)[plan.degree_index]
  return accuracy * (1.0 + jnp.sum(replaced(plan, sizes) * saved) / sum(sizes.counts))


# What feasible members may be sorted by. 'score': Eq. 4. 'replaced': the share of activations
# that is replaced, and by accuracy where it is equal. 'accuracy': the accuracy, if the plan
# replaces at least as much as its node asks for.
OBJECTIVES = ('score', 'replaced', 'accuracy')


def goal(
  objective: str,
  accuracy: jax.Array,
  value: jax.Array,
  replaced_share: jax.Array,
  floor_share: jax.Array,
) -> jax.Array:
  """What feasible members are sorted by, larger is better, float [].

  Args:
    objective: one of OBJECTIVES.
    accuracy: of the member, float [].
    value: its score by Eq. 4.
    replaced_share: the share of the network's activations that its plan replaces.
    floor_share: the least share that its node asks for.

  Raises:
    ValueError: another objective.
  """
  if objective == 'score':
    return value
  if objective == 'replaced':
    # A thousandth is less than the share of any whole layer, so accuracy only breaks ties.
    return replaced_share + 1e-3 * accuracy
  if objective == 'accuracy':
    return jnp.where(replaced_share >= floor_share, accuracy, -1.0)
  raise ValueError(f"unknown objective '{objective}', want one of {', '.join(OBJECTIVES)}")


def selection_key(
  accuracy: jax.Array,
  value: jax.Array,
  threshold: jax.Array | float,
  *,
  literal: bool = False,
  sorted_by: jax.Array | None = None,
) -> jax.Array:
  """What members are sorted by, largest first.

  Feasible members, whose accuracy is at least `threshold`, come first. They are
  sorted by score, or by `sorted_by` (-1 to 2) where that is given. Then come the
  others, sorted by accuracy. A diverged member, whose score is -inf, comes last.

  Eq. 4 alone would prefer a plan that replaces 100 % at 76.7 % accuracy to one
  that replaces 80 % at 85.1 %. With `literal` Eq. 4 alone decides.
  """
  if literal:
    return value
  by = value if sorted_by is None else sorted_by
  # A score is at most 2, an accuracy at most 1.
  return jnp.where(jnp.isneginf(value), value, jnp.where(accuracy >= threshold, 1.0 + by, accuracy))

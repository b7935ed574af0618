"""Gates: one network that learns with its weights which of its ReLUs to keep.

Every channel has a gate, `keep`, the share of ReLU in its output. Every layer has a share q_d of
each degree d:

    y = keep * ReLU(x) + (1 - keep) * sum over d of q_d P_d(x)

P_d is the layer's polynomial at degree d. The *saving* says which share of the cost of all
activations has to be saved. Gates close, in the order of what a channel's ReLU is worth for its
cost, until the saving is met. The saving rises from cycle to cycle as long as the network still
reaches the accuracy threshold A_t. So one training passes through plans of all sizes. While it
cools down, gates and shares become 0 or 1.

Selective network linearization (Cho et al. 2022) and AutoReP (Peng et al. 2023) learn such gates
for single ReLUs. Here a channel has one, because only whole channels save bytes, and a layer has
one degree, as in every plan.
"""

import dataclasses
import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from safenet_jax.approximation import activation, plans
from safenet_jax.search import score

# The gates of channels within half this saving of the threshold are between 0 and 1, at first.
WINDOW = 0.05
# What a ReLU is worth is a mean over some 1 / WORTH_RATE steps.
WORTH_RATE = 0.01
# Adam's learning rate for the logits of degrees.
DEGREE_RATE = 0.01
# Logits at the start. A cubic and no polynomial at all start from a tenth.
LOGITS = {0: -2.0, 2: 0.0, 3: -2.0}
# An open gate is trained by what the polynomial would do. Farther out it need not be known.
BOUND = 16.0
COLDEST = 0.1

_ADAM = optax.adam(DEGREE_RATE)


@dataclasses.dataclass(frozen=True)
class Pace:
  """How a search of so many cycles moves its gates.

  cycles: how many there are.
  reduction: for degrees (0, 2, 3), the share of a ReLU's cost that is saved; ones count ReLUs.
  most: the saving at which it stops rising.
  waits: whether it rises only while the network reaches A_t, and otherwise falls a little.
  """

  cycles: int
  reduction: tuple[float, float, float]
  most: float = 1.0
  waits: bool = True

  @property
  def rise(self) -> float:
    """By how much the saving rises in a cycle, so that a fifth of the cycles remains at the end."""
    return (self.most + 2 * WINDOW) / max(1.0, 0.8 * self.cycles)

  @property
  def cooling(self) -> float:
    """The factor of a cycle on the temperature, which is COLDEST after three quarters of them."""
    return math.pow(COLDEST, 1 / max(1.0, 0.75 * self.cycles))


class Gates(struct.PyTreeNode):
  """The gates of one member, of T activation layers with C channels each.

  worth: per layer float32 [C], by how much the loss falls with a channel's ReLU.
  degrees: float32 [T, 3], logits of degrees 0, 2 and 3.
  state: of their optimiser.
  saving: float32 [], the share of all activations' cost that is to be saved now.
  temperature: float32 [], 1 at first and COLDEST at the end.
  reduction: float32 [3], the share of a ReLU's cost that each degree saves.
  """

  worth: tuple[jax.Array, ...]
  degrees: jax.Array
  state: Any
  saving: jax.Array
  temperature: jax.Array
  reduction: jax.Array


def start(sizes: score.Activations, degrees: tuple[int, ...], pace: Pace) -> Gates:
  """Open gates. The saving starts below 0, so that something is known before the first closes.

  Raises:
    ValueError: a degree saves nothing, so that there is no order in which its gates could close.
  """
  if useless := [
    d for d, saved in zip(plans.DEGREES, pace.reduction) if d in degrees and saved <= 0
  ]:
    raise ValueError(
      f'polynomials of degree {", ".join(map(str, useless))} cost as much as a ReLU here, '
      'want search.degrees without them'
    )
  layer = jnp.asarray([LOGITS[d] if d in degrees else -jnp.inf for d in plans.DEGREES])
  logits = jnp.tile(layer, (len(sizes.counts), 1))
  return Gates(
    tuple(jnp.zeros(c, jnp.float32) for c in sizes.channels),
    logits,
    _ADAM.init(logits),
    jnp.float32(-WINDOW),
    jnp.float32(1.0),
    jnp.asarray(pace.reduction, jnp.float32),
  )


def _saved(gates: Gates, sizes: score.Activations) -> jax.Array:
  """float32 [T]: the share of all activations' cost that one closed channel of a layer saves."""
  counts, channels = jnp.asarray(sizes.counts), jnp.asarray(sizes.channels)
  reduction = jax.nn.softmax(gates.degrees / gates.temperature) @ gates.reduction
  return reduction * counts / (channels * sum(sizes.counts))


def places(gates: Gates, sizes: score.Activations) -> tuple[tuple[jax.Array, ...], jax.Array]:
  """Where the gates stand in the order in which they are closed.

  Returns:
    Per layer float [C], the saving above which each gate closes: what those that are worth
    less for their cost save together. And float [], the worth per cost of the first gate
    that the saving leaves open: the price of a saving.
  """
  each = jnp.repeat(
    _saved(gates, sizes), jnp.asarray(sizes.channels), total_repeat_length=sum(sizes.channels)
  )
  value = jnp.concatenate(gates.worth) / jnp.maximum(each, 1e-12)
  order = jnp.argsort(value, stable=True)
  before = jnp.cumsum(each[order]) - each[order]
  price = value[order][jnp.clip(jnp.searchsorted(before, gates.saving), 0, order.size - 1)]
  found = jnp.zeros_like(each).at[order].set(before)
  ends = [sum(sizes.channels[: t + 1]) for t in range(len(sizes.channels) - 1)]
  return tuple(jnp.split(found, ends)), price


def relaxed(
  gates: Gates,
  coefficients: tuple[jax.Array, ...],
  sizes: score.Activations,
  floor: float,
  bound: float | None,
) -> tuple[activation.Approximation, ...]:
  """The activations in training; their gradients train the gates.

  A gate's gradient is that of its output, not of the threshold (a straight-through estimate), so
  that gates that are far from closing learn too.

  Args:
    gates: of the member.
    coefficients: its polynomials.
    sizes: of the network's activation layers.
    floor: least leading coefficient of degree 2.
    bound: the polynomials of closed gates see x clipped to [-bound, bound]; None does not clip.
  """
  fixed = jax.lax.stop_gradient(gates)
  window = WINDOW * fixed.temperature
  shares = jax.nn.softmax(gates.degrees / fixed.temperature)
  layers = []
  for worth, share, place, c in zip(gates.worth, shares, places(fixed, sizes)[0], coefficients):
    keep = jnp.clip((place - fixed.saving) / window + 0.5, 0.0, 1.0)
    by_degree = jnp.stack([activation.effective(c, jnp.asarray(d), floor) for d in plans.DEGREES])
    layers.append(
      activation.Approximation(
        mask=jnp.ones(worth.shape, bool),
        degree=jnp.asarray(3, jnp.int32),  # a mixture of polynomials is a polynomial
        coefficients=jnp.tensordot(share, by_degree, 1),
        blend=keep + (worth - jax.lax.stop_gradient(worth)),
        bound=jnp.where(keep < 1, jnp.inf if bound is None else bound, BOUND),
      )
    )
  return tuple(layers)


def learned(gates: Gates | None):
  """What of the gates is trained, a pytree; None has nothing."""
  return None if gates is None else {'worth': gates.worth, 'degrees': gates.degrees}


def advance(gates: Gates, gradients, sizes: score.Activations) -> Gates:
  """The gates after a step, from the gradients of `learned`.

  The price makes a degree that saves more worth more: it is the loss that the saving costs
  elsewhere.
  """
  place, price = places(gates, sizes)
  closed = jnp.stack([jnp.mean(p < gates.saving) for p in place])
  counts = jnp.asarray(sizes.counts) / sum(sizes.counts)

  def saved(logits):
    shares = jax.nn.softmax(logits / gates.temperature)
    return jnp.sum(counts * closed * (shares @ gates.reduction))

  gain = jax.grad(saved)(gates.degrees)
  slopes = gradients['degrees'] - jnp.maximum(price, 0.0) * gain
  # A degree that is not allowed has no logit.
  allowed = jnp.isfinite(gates.degrees)
  updates, state = _ADAM.update(jnp.where(allowed, slopes, 0.0), gates.state)
  worth = tuple(w - WORTH_RATE * (g + w) for w, g in zip(gates.worth, gradients['worth']))
  return gates.replace(worth=worth, degrees=gates.degrees + updates, state=state)


def plan(gates: Gates, sizes: score.Activations) -> plans.Plan:
  """The plan that saves at least the saving: what the gates are once they are hard."""
  closed = jnp.stack([jnp.sum(p < gates.saving) for p in places(gates, sizes)[0]])
  channels = jnp.asarray(sizes.channels)
  # The nearest ratio, if it replaces as many channels (`plans.replaced_channels`).
  nearest = (plans.GRID * closed + channels // 2) // channels
  least = -((plans.GRID // 2 - plans.GRID * closed) // channels)
  ratio = jnp.maximum(nearest, least)
  degree = jnp.argmax(gates.degrees, -1)
  return plans.Plan(jnp.clip(ratio, 0, plans.GRID).astype(jnp.int32), degree.astype(jnp.int32))


def ranks(gates: Gates) -> tuple[jax.Array, ...]:
  """Per layer int32 [C]: the place of each channel among those of its layer, least worth first."""
  return tuple(
    jnp.argsort(jnp.argsort(worth, stable=True)).astype(jnp.int32) for worth in gates.worth
  )


def next_cycle(gates: Gates, feasible: jax.Array, pace: Pace) -> Gates:
  """The gates after a cycle; `feasible` says whether the plan's accuracy reached A_t."""
  move = pace.rise * jnp.where(feasible | (not pace.waits), 1.0, -0.25)
  return gates.replace(
    saving=jnp.minimum(gates.saving + move, pace.most),
    temperature=jnp.maximum(gates.temperature * pace.cooling, COLDEST),
  )

"""The baseline by deep reinforcement learning: a recurrent policy writes plans layer by layer.

Wang et al. (2020) let an agent choose a bit width per layer; here it chooses a
ratio and a degree. An episode samples a plan for every member, and trains all of
them from the pretrained network. A member is feasible if its accuracy is at
least A_t, the threshold of the search. Its reward then is its score, else its
accuracy less a penalty. REINFORCE makes plans of above-average rewards more
likely; the average is a moving mean.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import optax

from safenet_jax.approximation import plans
from safenet_jax.search.pbt import Step
from safenet_jax.search.planners import proposer

# How much an infeasible member's reward falls per unit of accuracy below A_t.
PENALTY = 5.0


class Policy(nn.Module):
  """One step of the policy: logits of a layer's ratio and degree.

  Attributes:
    layers: T, the number of activation layers.
    hidden: width of the recurrent state.
  """

  layers: int
  hidden: int = 64

  @nn.compact
  def __call__(self, carry, layer, ratio, degree_index):
    """The next recurrent state and the logits (of ratios, of degrees) of one layer.

    Args:
      carry: the recurrent state.
      layer: index of the layer.
      ratio, degree_index: what was chosen for the layer before, -1 for the first layer.
    """
    x = nn.Embed(self.layers, self.hidden)(layer)
    x += nn.Embed(plans.GRID + 2, self.hidden)(ratio + 1)
    x += nn.Embed(len(plans.DEGREES) + 1, self.hidden)(degree_index + 1)
    carry, y = nn.GRUCell(self.hidden)(carry, x)
    small = nn.initializers.normal(1e-2)  # all actions are nearly as likely at first
    ratios = nn.Dense(plans.GRID + 1, kernel_init=small)(y)
    return carry, (ratios, nn.Dense(len(plans.DEGREES), kernel_init=small)(y))


class State(NamedTuple):
  """The policy's parameters, its optimiser, and the moving mean of rewards."""

  params: Any
  optimizer_state: Any
  baseline: jax.Array
  episodes: jax.Array


@dataclasses.dataclass(frozen=True)
class Controller(proposer.Proposer):
  """REINFORCE on plans.

  layers: T, the number of activation layers.
  threshold: A_t, the least accuracy of a feasible member.
  learning_rate: of Adam.
  decay: of the moving mean of rewards.
  entropy: weight of the bonus that keeps the policy exploring. At 0.05 the policy
    settled on a worse plan of the tests' toy score with every seed.
  """

  layers: int
  threshold: float
  learning_rate: float = 0.005
  decay: float = 0.9
  entropy: float = 0.3

  def init(self, key):
    policy = Policy(self.layers)
    start = jnp.int32(-1)
    params = policy.init(key, jnp.zeros(policy.hidden), jnp.int32(0), start, start)
    zero = jnp.zeros((), jnp.float32)
    return State(params, optax.adam(self.learning_rate).init(params), zero, jnp.int32(0))

  def propose(self, key, state, plan, index, members):
    del plan, index
    return sample(state.params, jax.random.split(key, members), self.layers)

  def learn(self, state, plan, report):
    rewards = reward(jnp.asarray(report['accuracy']), jnp.asarray(report['score']), self.threshold)
    return update(state, plan, rewards, controller=self)


def reward(accuracy: jax.Array, value: jax.Array, threshold: float) -> jax.Array:
  """The score of a feasible member; else its accuracy, less PENALTY times what it lacks."""
  accuracy = jnp.where(jnp.isfinite(value), accuracy, 0.0)
  feasible = jnp.isfinite(value) & (accuracy >= threshold)
  return jnp.where(feasible, value, accuracy - PENALTY * (threshold - accuracy))


def _walk(params, layers: int, choose):
  """Runs the policy over the layers; `choose(layer, logits)` gives (ratio, degree_index)."""
  policy = Policy(layers)

  def step(carry, layer):
    hidden, ratio, degree_index = carry
    hidden, logits = policy.apply(params, hidden, layer, ratio, degree_index)
    action = choose(layer, logits)
    logs = tuple(jax.nn.log_softmax(jnp.asarray(values)) for values in logits)
    taken = sum(log[a] for log, a in zip(logs, action))
    entropy = -sum(jnp.sum(jnp.exp(log) * log) for log in logs)
    return (hidden, *action), (plans.Plan(*action), taken, entropy)

  start = jnp.int32(-1)
  _, outputs = lax.scan(step, (jnp.zeros(policy.hidden), start, start), jnp.arange(layers))
  return outputs


@functools.partial(jax.jit, static_argnames='layers')
def sample(params, keys: jax.Array, layers: int) -> plans.Plan:
  """One plan for every key, leaves int32 [P, T]."""

  def one(key):
    def choose(layer, logits):
      return tuple(
        jax.random.categorical(jax.random.fold_in(key, 2 * layer + i), values).astype(jnp.int32)
        for i, values in enumerate(logits)
      )

    return _walk(params, layers, choose)[0]

  return jax.vmap(one)(keys)


@functools.partial(jax.jit, static_argnames='controller')
def update(state: State, plan: plans.Plan, rewards: jax.Array, *, controller: Controller) -> State:
  """One REINFORCE step on plans [P, T] and their rewards [P]."""
  # The first episode has no past to be compared with.
  baseline = jnp.where(state.episodes == 0, rewards.mean(), state.baseline)
  # Scores differ by hundredths: unless they are scaled, the entropy bonus decides alone.
  advantage = (rewards - baseline) / (rewards.std() + 1e-6)

  def loss(params):
    def one(plan):
      _, taken, entropy = _walk(
        params, controller.layers, lambda t, _: (plan.ratio[t], plan.degree_index[t])
      )
      return taken.sum(), entropy.sum()

    taken, entropy = jax.vmap(one)(plan)
    return -jnp.mean(advantage * taken) - controller.entropy * entropy.mean()

  gradients = jax.grad(loss)(state.params)
  updates, optimizer_state = optax.adam(controller.learning_rate).update(
    gradients, state.optimizer_state
  )
  return State(
    optax.apply_updates(state.params, updates),
    optimizer_state,
    controller.decay * baseline + (1 - controller.decay) * rewards.mean(),
    state.episodes + 1,
  )


def schedule(layers: int, cycles: int, episode_cycles: int) -> list[Step]:
  """Episodes of `episode_cycles` each; the last one takes what is left over."""
  count = max(1, cycles // episode_cycles)
  lengths = [episode_cycles] * (count - 1) + [cycles - episode_cycles * (count - 1)]
  return [
    Step.everywhere(f'episode {i + 1}/{count}', layers, length, 'first', proposed=True)
    for i, length in enumerate(lengths)
  ]

"""The recurrent controller on scores whose best plan is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import plans
from safenet_jax.search import score
from safenet_jax.search.planners import controller

SIZES = score.Activations((300, 100), (20, 20))
THRESHOLD = 0.8
REDUCTION = score.PUBLISHED.reduction()


def toy(plan):
  """Accuracy and score of a plan [T] on a landscape that is cheap to know everything of.

  The first layer bears a quarter of its channels, and the second all of them at
  degree 3 only.
  """
  over = jnp.maximum(plan.ratio[0] - 5, 0) * 0.03
  wrong = plan.ratio * jnp.asarray([0.02, 0.006, 0.0])[plan.degree_index]
  accuracy = 0.9 - over - wrong.sum()
  return accuracy, score.score(accuracy, plan, SIZES, REDUCTION)


def test_the_controller_finds_the_known_optimum_of_a_toy_score():
  every = np.asarray(list(itertools.product(range(21), range(21), range(3), range(3))), np.int32)
  grid = plans.Plan(jnp.asarray(every[:, :2]), jnp.asarray(every[:, 2:]))
  rewards = controller.reward(*jax.vmap(toy)(grid), THRESHOLD)
  best = every[int(jnp.argmax(rewards))]
  assert np.sort(rewards)[-2] < rewards.max()  # there is one optimum

  agent = controller.Controller(2, THRESHOLD)
  state = agent.init(jax.random.key(0))
  evaluate = jax.jit(jax.vmap(toy))
  for episode in range(300):
    plan = agent.propose(jax.random.fold_in(jax.random.key(1), episode), state, None, episode, 50)
    accuracy, value = evaluate(plan)
    state = agent.learn(state, plan, {'accuracy': accuracy, 'score': value})
  plan = agent.propose(jax.random.key(2), state, None, 0, 50)
  chosen = np.concatenate([plan.ratio, plan.degree_index], 1).tolist()
  mode = max(chosen, key=chosen.count)
  assert mode == best.tolist()


def test_infeasible_and_diverged_members_are_rewarded_less_than_any_feasible_one():
  accuracy = jnp.asarray([0.85, 0.80, 0.79, 0.3, 0.9])
  value = jnp.asarray([1.0, 1.5, 1.6, 0.6, -jnp.inf])
  rewards = np.asarray(controller.reward(accuracy, value, 0.8))
  assert rewards[1] > rewards[0] > rewards[2] > rewards[3] > rewards[4]
  assert np.isfinite(rewards).all()


def test_a_rewarded_plan_becomes_likelier():
  agent = controller.Controller(3, 0.0)
  state = agent.init(jax.random.key(0))
  plan = agent.propose(jax.random.key(1), state, None, 0, 8)
  liked = np.asarray(plan.ratio[0])

  def frequency(state):
    drawn = np.asarray(agent.propose(jax.random.key(2), state, None, 0, 400).ratio)
    return (drawn == liked).mean()

  before = frequency(state)
  for _ in range(20):
    values = jnp.asarray([1.0] + [0.5] * 7)
    state = agent.learn(state, plan, {'accuracy': values, 'score': values})
  assert frequency(state) > 2 * before

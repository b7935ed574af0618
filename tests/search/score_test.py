"""Eq. 4 and what members are sorted by."""

import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import plans
from safenet_jax.search import score

SIZES = score.Activations(counts=(800, 200), channels=(8, 20))


def test_published_costs_give_the_papers_reductions():
  degree0, degree2, degree3 = score.PUBLISHED.reduction()
  assert degree0 == 1
  assert degree2 == pytest.approx(1 - 1 / 192)
  assert degree3 == pytest.approx(0.990, abs=5e-4)


def test_score_of_a_hand_sized_plan():
  # Half of 8 channels is 4: 400 of 1000; all 20 of the second layer: 200.
  plan = plans.from_twentieths([10, 20], [2, 0])
  value = score.score(jnp.float32(0.8), plan, SIZES, (1.0, 0.9, 0.5))
  assert value == pytest.approx(0.8 * (1 + (400 * 0.9 + 200) / 1000))


def test_a_ratio_that_replaces_no_channel_earns_nothing():
  # 5 % of 8 channels is none.
  plan = plans.from_twentieths([1, 0], [0, 0])
  np.testing.assert_array_equal(score.replaced(plan, SIZES), [0, 0])
  assert score.score(jnp.float32(0.8), plan, SIZES, (1.0, 1.0, 1.0)) == pytest.approx(0.8)


def test_feasible_members_come_before_better_scored_infeasible_ones():
  accuracy = jnp.asarray([0.767, 0.851, 0.852, 0.3])
  value = jnp.asarray([2 * 0.767, 1.8 * 0.851, 1.2 * 0.852, -jnp.inf])
  keys = score.selection_key(accuracy, value, 0.85)
  assert np.argsort(-keys).tolist() == [1, 2, 0, 3]
  literal = score.selection_key(accuracy, value, 0.85, literal=True)
  assert np.argsort(-literal).tolist() == [0, 1, 2, 3]


def test_a_users_function_is_asked_for_every_kind():
  model = score.cost_model({None: 10.0, 0: 0.0, 2: 1.0, 3: 4.0}.__getitem__)
  assert model.reduction() == pytest.approx((1, 0.9, 0.6))


def test_impossible_costs_are_refused():
  for cost in (0.0, -1.0, float('nan'), float('inf')):
    with pytest.raises(ValueError, match='us for relu'):
      score.cost_model(lambda degree, cost=cost: cost)


def test_the_goal_is_the_score_the_share_replaced_or_the_accuracy():
  accuracy, value = jnp.asarray([0.9, 0.8, 0.7]), jnp.asarray([1.0, 1.2, 1.5])
  share = jnp.asarray([0.1, 0.5, 0.5])

  def order(objective):
    return np.argsort(-score.goal(objective, accuracy, value, share, 0.4)).tolist()

  assert order('score') == [2, 1, 0]
  assert order('replaced') == [1, 2, 0]
  assert order('accuracy') == [1, 2, 0]
  assert np.argsort(-score.goal('accuracy', accuracy, value, share, 0.0)).tolist() == [0, 1, 2]
  with pytest.raises(ValueError, match="unknown objective 'speed'"):
    order('speed')

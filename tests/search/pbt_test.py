"""Selection, exploration, projection; members are copied with everything they have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import plans
from safenet_jax.search import pbt, score
from safenet_jax.search.members import Member

SIZES = score.Activations(counts=(400, 200, 100, 100), channels=(20, 20, 20, 20))


def members(count, layers=4):
  """Members whose every leaf says which member it was."""
  index = jnp.arange(count, dtype=jnp.float32)
  plan = plans.Plan(
    jnp.tile(jnp.arange(count, dtype=jnp.int32)[:, None], (1, layers)) + 5,
    jnp.zeros((count, layers), jnp.int32),
  )
  return Member(
    {'w': index[:, None] * jnp.ones((1, 3))},
    {'m': index},
    (index,),
    {'momentum': index},
    plan,
    0.1 + index,
    index,
    index,
    index,
  )


def node(group=(0, 1, 2, 3), active=(True,) * 4, floor=0):
  return pbt.Node(jnp.asarray(group), jnp.asarray(active), jnp.int32(floor))


def evolve(keys, seed=0, **options):
  keys = jnp.asarray(keys, jnp.float32)
  evolution = pbt.Evolution(population=keys.size, **options)
  return pbt.evolve(jax.random.key(seed), members(keys.size), keys, node(), SIZES, evolution)


def test_the_worst_quarter_copies_the_best_quarter_entirely():
  keys = [0.1, 0.8, 0.3, 0.9, 0.5, 0.6, 0.2, 0.4]
  for seed in range(5):
    result, parents = evolve(keys, seed)
    parents = np.asarray(parents)
    assert set(parents[[0, 6]]) <= {1, 3}
    kept = [1, 2, 3, 4, 5, 7]
    assert parents[kept].tolist() == kept
    for leaf in jax.tree.leaves(
      (result.params, result.batch_stats, result.coefficients, result.optimizer_state)
    ):
      np.testing.assert_array_equal(np.asarray(leaf).reshape(8, -1)[:, 0], parents)
    np.testing.assert_array_equal(
      result.plan.ratio[jnp.asarray(kept)], members(8).plan.ratio[jnp.asarray(kept)]
    )
    np.testing.assert_allclose(
      result.learning_rate[jnp.asarray(kept)], 0.1 + np.asarray(kept), rtol=1e-6
    )


def test_copies_explore_around_the_winners_plan():
  seen = set()
  for seed in range(20):
    result, parents = evolve([0.0, 1.0, 0.9, 0.8], seed, resample=0.0)
    assert parents[0] == 1
    moves = np.asarray(result.plan.ratio[0]) - 6
    seen |= set(moves.tolist())
    assert (
      float(result.learning_rate[0] / 1.1) in (np.float32(0.8).item(), np.float32(1.25).item())
      or np.isclose(result.learning_rate[0] / 1.1, [0.8, 1.25], rtol=1e-5).any()
    )
    assert (np.asarray(result.plan.degree_index[0]) == 0).all()
  assert seen == {-2, -1, 1, 2}


def test_a_diverged_member_is_never_copied():
  keys = [-np.inf, 0.5, -np.inf, -np.inf, -np.inf, -np.inf, -np.inf, -np.inf]
  for seed in range(10):
    result, parents = evolve(keys, seed)
    assert set(np.asarray(parents).tolist()) == {1}
    assert (np.asarray(result.batch_stats['m']) == 1).all()


def test_layers_of_a_group_move_as_one_and_others_not_at_all():
  plan = plans.from_twentieths([10, 10, 7, 7], [2, 2, 3, 3])
  tied = node(group=(0, 0, 2, 2), active=(True, True, False, False))
  for seed in range(10):
    explored = pbt.explore(jax.random.key(seed), plan, tied, SIZES, pbt.Evolution())
    ratio, degree = np.asarray(explored.ratio), np.asarray(explored.degree)
    assert ratio[0] == ratio[1] != 10
    assert degree[0] == degree[1]
    assert ratio[2:].tolist() == [7, 7] and degree[2:].tolist() == [3, 3]


def test_ratios_stay_on_the_grid():
  for ratio in (0, 20):
    plan = plans.from_twentieths([ratio] * 4, [2] * 4)
    for seed in range(10):
      explored = pbt.explore(jax.random.key(seed), plan, node(), SIZES, pbt.Evolution()).ratio
      assert (np.asarray(explored) >= 0).all() and (np.asarray(explored) <= 20).all()


def test_projection_raises_the_larger_child_until_both_replace_what_the_parent_did():
  # Children {0, 1} with 600 activations and {2, 3} with 200; a step is 5 %.
  plan = plans.from_twentieths([4, 4, 10, 10], [2] * 4)
  replaced = lambda p: int(score.replaced(p, SIZES).sum())  # noqa: E731
  assert replaced(plan) == 120 + 100
  projected = pbt.project(plan, node(group=(0, 0, 2, 2), floor=281), SIZES)
  # 30 activations a step of the larger child: three steps reach 310.
  assert np.asarray(projected.ratio).tolist() == [7, 7, 10, 10]
  assert replaced(projected) == 310


def test_projection_goes_on_with_the_other_child_once_the_larger_is_full():
  plan = plans.from_twentieths([19, 19, 0, 0], [2] * 4)
  projected = pbt.project(plan, node(group=(0, 0, 2, 2), floor=620), SIZES)
  assert np.asarray(projected.ratio).tolist() == [20, 20, 2, 2]


def test_projection_leaves_inactive_layers_alone_and_ends_when_all_are_full():
  plan = plans.from_twentieths([0, 0, 5, 5], [2] * 4)
  searched = node(group=(0, 1, 2, 2), active=(True, True, False, False), floor=10_000)
  assert np.asarray(pbt.project(plan, searched, SIZES).ratio).tolist() == [20, 20, 5, 5]


def test_random_plans_are_spread_over_the_grid():
  plan = plans.all_relu(4)
  tied = node(group=(0, 0, 0, 0))
  draws = [
    pbt.random_plan(jax.random.key(i), plan, tied, SIZES, jnp.int32(i), 5).ratio for i in range(5)
  ]
  for i, ratio in enumerate(np.asarray(draws)):
    assert (ratio == ratio[0]).all()
    assert i * 21 / 5 - 1 <= ratio[0] <= (i + 1) * 21 / 5


@pytest.mark.parametrize('degrees', [(), (2, 4)])
def test_degrees_that_no_plan_has_are_refused(degrees):
  with pytest.raises(ValueError, match='want some of'):
    pbt.Evolution(degrees=degrees)

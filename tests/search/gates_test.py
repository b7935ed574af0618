"""Gates: the order in which they close, what trains them, and the searches that they make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import activation, importance, plans
from safenet_jax.search import gates, members, schedule, score
from safenet_jax.search.planners import algorithms
from safenet_jax.workdir import Workdir
from tests.support import small_search

# A channel of the first layer has a fifth of the cost of one of the second.
SIZES = score.Activations((20, 50), (4, 2))
PACE = gates.Pace(10, (1.0, 0.9, 0.8))
KEY = jax.random.key(3)


def opened(worth=((1.0, 2.0, 3.0, 4.0), (1.0, 100.0)), degrees=(2,), saving=0.0):
  found = gates.start(SIZES, degrees, PACE)
  worth = tuple(jnp.asarray(layer) for layer in worth)
  return found.replace(worth=worth, saving=jnp.float32(saving))


def test_gates_close_in_the_order_of_worth_for_cost():
  found, price = gates.places(opened(), SIZES)
  # Worth for cost: 1/5, 2/5, 3/5, 4/5 in the first layer and 1/25, 100/25 in the second. Costs are
  # shares of 70, and a square saves 0.9 of them.
  first, second = (70 / 0.9 * np.asarray(place) for place in found)
  np.testing.assert_allclose(second, [0, 45], atol=1e-3)
  np.testing.assert_allclose(first, [25, 30, 35, 40], atol=1e-3)
  np.testing.assert_allclose(price, 1 / (25 * 0.9 / 70), rtol=1e-5)


@pytest.mark.parametrize('saving', [-0.05, 0.0, 0.1, 0.4, 0.43, 0.8, 1.0])
def test_a_plan_saves_at_least_the_saving_by_the_channels_worth_least(saving):
  found = opened(saving=saving * 0.9)
  plan = gates.plan(found, SIZES)
  replaced = np.asarray(score.replaced(plan, SIZES)).sum() / sum(SIZES.counts)
  # The last channel may save more than is left to save.
  assert saving - 1e-6 <= replaced <= max(saving, 0) + 25 / 70 + 1e-6
  assert replaced > 0 or saving <= 0
  for mask, worth in zip(importance.masks(plan, gates.ranks(found)), found.worth):
    mask = np.asarray(mask)
    assert not (mask.any() and (~mask).any()) or worth[mask].max() < worth[~mask].min()


def test_cold_gates_compute_what_their_plan_does():
  found = opened(degrees=(0, 2), saving=0.6).replace(
    degrees=jnp.asarray([[-40.0, 40.0, -jnp.inf], [40.0, -40.0, -jnp.inf]]),
    temperature=jnp.float32(1e-6),
  )
  coefficients = tuple(jnp.asarray([0.1, 0.5, 0.2 + t, 0.3]) for t in range(2))
  relaxed = gates.relaxed(found, coefficients, SIZES, 0.01, None)
  hard = activation.approximate(gates.plan(found, SIZES), gates.ranks(found), coefficients)
  assert {bool(m) for layer in hard for m in layer.mask} == {True, False}
  for one, other, channels in zip(relaxed, hard, SIZES.channels):
    x = 3 * jax.random.normal(KEY, (5, channels))
    np.testing.assert_allclose(one(x), other(x), atol=1e-5)


def test_a_gates_gradient_is_that_of_its_share_of_relu_even_where_it_is_open():
  found = opened(saving=0.42)
  coefficients = activation.initial_coefficients(SIZES.channels)
  x = jax.random.normal(KEY, (5, 4))

  def loss(worth):
    layer = gates.relaxed(found.replace(worth=worth), coefficients, SIZES, 0.0, None)[0]
    return jnp.sum(layer(x) ** 3)

  layer = gates.relaxed(found, coefficients, SIZES, 0.0, None)[0]
  of_share = jax.grad(lambda keep: jnp.sum(layer.replace(blend=keep)(x) ** 3))(layer.blend)
  assert set(np.asarray(layer.blend).tolist()) == {0.0, 1.0}
  np.testing.assert_allclose(jax.grad(loss)(found.worth)[0], of_share, rtol=1e-6)


def test_a_step_raises_the_worth_of_a_relu_that_lowers_the_loss():
  found = opened(worth=((0.0,) * 4, (0.0,) * 2))
  slopes = (jnp.asarray([-1.0, 1.0, 0.0, 0.0]), jnp.zeros(2))
  after = gates.advance(found, {'worth': slopes, 'degrees': jnp.zeros((2, 3))}, SIZES)
  np.testing.assert_allclose(after.worth[0], [gates.WORTH_RATE, -gates.WORTH_RATE, 0, 0])
  forgotten = gates.advance(after, {'worth': after.worth, 'degrees': jnp.zeros((2, 3))}, SIZES)
  assert abs(float(forgotten.worth[0][0])) < gates.WORTH_RATE


def test_a_degree_that_saves_more_is_preferred_where_channels_are_replaced():
  found = opened(degrees=(0, 2, 3), saving=0.3)
  nothing = {'worth': tuple(map(jnp.zeros_like, found.worth)), 'degrees': jnp.zeros((2, 3))}
  moved = gates.advance(found, nothing, SIZES).degrees - found.degrees
  # The saving closes one gate, which is in the second layer. Degree 0 saves most.
  np.testing.assert_allclose(moved[0], 0, atol=1e-7)
  assert moved[1, 0] > 0 > moved[1, 2]
  free = found.replace(worth=((-1.0,) * 4, (-2.0,) * 2))
  free = free.replace(worth=tuple(jnp.asarray(w) for w in free.worth))
  np.testing.assert_allclose(
    gates.advance(free, nothing, SIZES).degrees, found.degrees, atol=1e-7
  )  # where closing costs nothing, it is worth nothing


def test_degrees_that_are_not_asked_for_never_come():
  found = opened(degrees=(2, 3), saving=0.5)
  slopes = {
    'worth': tuple(map(jnp.zeros_like, found.worth)),
    'degrees': jnp.asarray([[-9.0, 0.0, 1.0]] * 2),
  }
  for _ in range(3):
    found = gates.advance(found, slopes, SIZES)
  assert np.isneginf(found.degrees[:, 0]).all() and np.isfinite(found.degrees[:, 1:]).all()
  assert set(np.asarray(gates.plan(found, SIZES).degree).tolist()) == {2}


def test_degrees_that_save_nothing_are_refused():
  pace = gates.Pace(10, (1.0, -0.3, 0.0))
  with pytest.raises(ValueError, match='degree 2, 3 cost as much as a ReLU here'):
    gates.start(SIZES, (0, 2, 3), pace)
  gates.start(SIZES, (0,), pace)


def test_the_saving_rises_while_the_plan_reaches_the_threshold_and_gates_grow_cold():
  found = opened(saving=0.2)
  up, down = (gates.next_cycle(found, jnp.asarray(f), PACE) for f in (True, False))
  np.testing.assert_allclose(up.saving - 0.2, PACE.rise, rtol=1e-5)
  np.testing.assert_allclose(down.saving - 0.2, -PACE.rise / 4, rtol=1e-4)
  hurried = gates.next_cycle(found, jnp.asarray(False), gates.Pace(10, (1.0,) * 3, 0.5, False))
  assert hurried.saving > found.saving
  start = found = gates.start(SIZES, (2,), PACE)
  for _ in range(PACE.cycles):
    found = gates.next_cycle(found, jnp.asarray(True), PACE)
  assert float(found.saving) == PACE.most and start.temperature == 1
  np.testing.assert_allclose(found.temperature, gates.COLDEST)


def search(name, workdir, report=None, **options):
  task, first = small_search.task()
  sizes = score.activations(task.network)
  evolution = small_search.evolution(population=2, **options)
  found = algorithms.build(name, sizes, evolution, node_cycles=3, joint_cycles=4, relu_budget=100)
  winner, _ = schedule.run(
    KEY, first, task, found.steps, found.evolution, Workdir(workdir), report=report
  )
  return winner, task, sizes


def test_a_search_passes_through_growing_plans_of_one_network(tmp_path):
  winner, task, sizes = search('gates', tmp_path)
  lines = Workdir(tmp_path).metrics()
  shares = [score.replaced(_plan(line), sizes).sum() / sum(sizes.counts) for line in lines]
  assert shares[0] == 0 and shares[-1] > 0.9 and len({float(s) for s in shares}) > 4
  member, ranks = members.settled(winner, task)
  assert type(member) is members.Member
  best = max(line['best_key'] for line in lines)
  np.testing.assert_allclose(1 + float(member.score), best, rtol=1e-6)
  # The mask that the winner was scored with is that of its plan and the learned ranks.
  for layer, mask in zip(members.approximation(winner, task), importance.masks(member.plan, ranks)):
    np.testing.assert_array_equal(layer.mask, mask)
  assert any((np.asarray(a) != b).any() for a, b in zip(ranks, task.channel_ranks))


def _plan(line):
  return plans.from_twentieths(line['ratio'][0], line['degree'][0])


def test_a_budget_is_met_and_its_most_accurate_plan_wins(tmp_path):
  winner, _, sizes = search('gates_budget', tmp_path)
  assert sum(sizes.counts) - int(score.replaced(winner.plan, sizes).sum()) <= 100
  lines = Workdir(tmp_path).metrics()
  left = [sum(sizes.counts) - score.replaced(_plan(line), sizes).sum() for line in lines]
  accuracies = [line['accuracy'][0] for line, relus in zip(lines, left) if relus <= 100]
  np.testing.assert_allclose(winner.accuracy, max(accuracies))


def test_an_interrupted_search_resumes_bit_exactly(tmp_path):
  class InterruptedSearchError(Exception):
    pass

  def stop(done, total, report):
    del total, report
    if done == 9:
      raise InterruptedSearchError

  whole, _, _ = search('gates', tmp_path / 'a')
  with pytest.raises(InterruptedSearchError):
    search('gates', tmp_path / 'b', report=stop)
  resumed, _, _ = search('gates', tmp_path / 'b')
  for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole)):
    np.testing.assert_array_equal(ours, theirs)
  assert Workdir(tmp_path / 'a').metrics() == Workdir(tmp_path / 'b').metrics()


def test_members_without_gates_have_the_checkpoints_they_had():
  task, first = small_search.task()
  assert 'gates' not in vars(first)
  sizes = score.activations(task.network)
  gated = members.Gated.of(first, gates.start(sizes, (2,), PACE))
  back, ranks = members.settled(gated, task)
  assert jax.tree.structure(back) == jax.tree.structure(first)
  assert [rank.size for rank in ranks] == list(sizes.channels)

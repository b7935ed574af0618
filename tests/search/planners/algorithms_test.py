"""Every algorithm of the comparison: its budget, its plans, and what it selects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import plans
from safenet_jax.search import members, schedule, score
from safenet_jax.search.planners import algorithms, layerwise, uniform
from safenet_jax.workdir import Workdir
from tests.support import small_search

CYCLES = {'node_cycles': 1, 'joint_cycles': 1}
KEY = jax.random.key(7)


def run(name, path, threshold=0.0, **options):
  """Runs an algorithm on the small task; its winner, its log, the task's sizes."""
  task, first = small_search.task()
  sizes = score.activations(task.network)
  search = algorithms.build(
    name, sizes, small_search.evolution(threshold=threshold), **(CYCLES | options)
  )
  workdir = Workdir(path)
  winner, _ = schedule.run(
    KEY, first, task, search.steps, search.evolution, workdir, proposer=search.proposer
  )
  return winner, workdir.metrics(), sizes


@pytest.mark.parametrize('name', algorithms.NAMES)
def test_every_algorithm_has_the_same_member_iterations(name):
  sizes = score.Activations((100,) * 7, (20,) * 7)
  shared = small_search.evolution(population=3, iterations=5)
  search = algorithms.build(name, sizes, shared, node_cycles=3, joint_cycles=5, relu_budget=300)
  # Gates train one member, for as many cycles as all members of the others have together.
  members = 1 if name.startswith('gates') else 3
  assert sum(step.cycles for step in search.steps) * members == 3 * (7 * 3 + 5)
  assert (search.evolution.population, search.evolution.iterations) == (members, 5)
  assert all(step.cycles > 0 for step in search.steps)


@pytest.mark.parametrize(
  'name, options, message',
  [
    ('cma', {}, "unknown search algorithm 'cma', want one of btpbt"),
    ('partial', {'partial_ratio': 0.52}, 'ratio 0.52, want a multiple of 0.05'),
    ('layerwise_released', {'subset_layers': 5}, '5 layers to replace, want 1..3'),
    ('budget', {'relu_budget': -1}, 'a budget of -1 ReLUs'),
  ],
)
def test_settings_out_of_range_are_refused(name, options, message):
  sizes = score.Activations((100,) * 3, (20,) * 3)
  with pytest.raises(ValueError, match=message):
    algorithms.build(name, sizes, small_search.evolution(), **CYCLES, **options)


def test_hand_crafted_members_hold_a_grid_of_ratios_up_to_one():
  for count in (1, 4, 20, 50):
    plan = uniform.Uniform(2).propose(KEY, (), None, 0, count)
    ratio = np.asarray(plan.ratio)
    assert (ratio[:, 0] == ratio[:, 1]).all() and (np.asarray(plan.degree) == 2).all()
    assert ratio[-1, 0] == 20 and ratio.min() >= 1 and (np.diff(ratio[:, 0]) >= 0).all()
    assert len(set(ratio[:, 0].tolist())) == min(count, 20)


def test_rounds_try_every_number_of_last_layers_once():
  steps = layerwise.schedule(7, 3, 11)
  assert [step.cycles for step in steps] == [4, 4, 3]
  proposer = layerwise.LastLayers(7, 3)
  seen = []
  for index in range(3):
    ratio = np.asarray(proposer.propose(KEY, (), None, index, 3).ratio)
    for row in ratio:
      k = int((row == 20).sum())
      assert row.tolist() == [0] * (7 - k) + [20] * k
      seen.append(k)
  assert set(seen) == set(range(1, 8))


def test_random_subsets_have_the_asked_number_of_layers():
  ratio = np.asarray(layerwise.subsets(7, 4).propose(KEY, (), None, 0, 30).ratio)
  assert ((ratio == 20).sum(1) == 4).all() and ((ratio == 0).sum(1) == 3).all()
  assert len({tuple(row) for row in ratio.tolist()}) > 10
  spread = np.asarray(layerwise.subsets(7, 0).propose(KEY, (), None, 0, 7).ratio)
  assert (spread == 20).sum(1).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_hand_crafted_members_are_not_selected_and_the_best_feasible_wins(tmp_path):
  winner, lines, _ = run('cw', tmp_path)
  for line in lines:
    assert [row[0] for row in line['ratio']] == [5, 10, 15, 20]
    assert line['parent'] == [0, 1, 2, 3]
  assert float(winner.score) == pytest.approx(max(max(line['score']) for line in lines))


def test_partial_activations_keep_the_given_ratio_whatever_its_accuracy(tmp_path):
  winner, _, _ = run('partial', tmp_path, threshold=1.1, partial_ratio=0.25)
  assert np.asarray(winner.plan.ratio).tolist() == [5] * small_search.LAYERS


def test_layerwise_takes_the_most_layers_that_are_feasible_and_fast_one_more(tmp_path):
  winner, lines, _ = run('layerwise', tmp_path / 'a')
  assert np.asarray(winner.plan.ratio).tolist() == [20, 20, 20]
  # With a threshold that nothing reaches, the all-ReLU start stays; fast replaces one.
  winner, lines, _ = run('layerwise_fast', tmp_path / 'b', threshold=1.1)
  assert np.asarray(winner.plan.ratio).tolist() == [0, 0, 20]
  assert [line['node'] for line in lines][-1] == 'one layer more'


def test_released_layerwise_copies_subsets_and_mutates_rate_and_momentum(tmp_path):
  winner, lines, _ = run('layerwise_released', tmp_path, node_cycles=2, subset_layers=2)
  start = {tuple(row) for row in lines[0]['ratio']}
  for before, after in zip(lines, lines[1:]):
    for member, parent in enumerate(before['parent']):
      assert after['ratio'][member] == before['ratio'][parent]
  assert {tuple(row) for row in lines[-1]['ratio']} <= start
  assert set(lines[0]['momentum']) == {np.float32(0.9).item()}
  assert len(set(lines[-1]['momentum'])) > 1 and len(set(lines[-1]['learning_rate'])) > 1
  assert winner.momentum is None


def test_one_degree_is_drawn_for_cw_mp(tmp_path):
  _, lines, _ = run('cw_mp', tmp_path)
  assert all(degree == 2 for line in lines for row in line['degree'] for degree in row)


def test_every_plan_of_the_budget_planner_meets_the_budget(tmp_path):
  winner, lines, sizes = run('budget', tmp_path, threshold=1.1, relu_budget=60)
  assert sum(sizes.counts) == 256 + 32 + 8
  for line in lines:
    for ratio, degree in zip(line['ratio'], line['degree']):
      left = sum(sizes.counts) - int(
        score.replaced(plans.from_twentieths(ratio, degree), sizes).sum()
      )
      assert left <= 60
  assert sum(sizes.counts) - int(score.replaced(winner.plan, sizes).sum()) <= 60
  assert float(winner.accuracy) == pytest.approx(max(max(line['accuracy']) for line in lines))


def test_an_interrupted_controller_ends_like_an_uninterrupted_one(tmp_path):
  class InterruptedSearchError(Exception):
    pass

  def stop(done, total, report):
    del total, report
    if done == 2:
      raise InterruptedSearchError

  task, first = small_search.task()
  search = algorithms.build(
    'controller', score.activations(task.network), small_search.evolution(), **CYCLES
  )

  def go(name, **options):
    return schedule.run(
      KEY,
      first,
      task,
      search.steps,
      search.evolution,
      Workdir(tmp_path / name),
      proposer=search.proposer,
      **options,
    )

  whole = go('a')
  with pytest.raises(InterruptedSearchError):
    go('b', report=stop)
  resumed = go('b')
  for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole)):
    np.testing.assert_array_equal(ours, theirs)
  lines = Workdir(tmp_path / 'a').metrics()
  assert lines == Workdir(tmp_path / 'b').metrics()
  assert len({str(line['ratio']) for line in lines}) == len(lines)


def test_momentum_of_a_member_replaces_that_of_its_training():
  task, first = small_search.task(momentum=0.3)
  batches = jnp.tile(jnp.arange(8)[None], (3, 1))
  other, _ = small_search.task(momentum=0.8)
  own = first.replace(momentum=jnp.float32(0.8))
  expected, _ = members.train(KEY, first, other, batches)
  found, _ = members.train(KEY, own, task, batches)
  for ours, theirs in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)

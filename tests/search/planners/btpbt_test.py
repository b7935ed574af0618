"""The binary tree: its nodes in order, and whole small searches on it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.approximation import importance, plans
from safenet_jax.models import architectures
from safenet_jax.search import members, phases, population, schedule, score, supernet
from safenet_jax.search.planners import algorithms, btpbt
from safenet_jax.workdir import Workdir
from tests.support import small_search


def tiny_task(**options):
  net = architectures.cnn7(classes=3, width=0.125, input_shape=(8, 8, 1))
  variables = net.init(jax.random.key(0))
  training = members.Training(
    batch_size=8, augment=False, evaluation_batch=16, recalibration_batches=1, **options
  )
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 64)
  images = np.clip(rng.normal(60 + 70 * labels[:, None, None, None], 20, (64, 8, 8, 1)), 0, 255)
  images, labels = jnp.asarray(images, jnp.uint8), jnp.asarray(labels, jnp.int32)
  task = members.Task(
    train=data.Split(images[:48], labels[:48]),
    validation=data.Split(images[48:], labels[48:]),
    channel_ranks=importance.ranks(net, variables),
    network=net,
    training=training,
    mean=(0.5,),
    std=(0.25,),
  )
  first = members.all_relu(variables, 0.01, net, training)
  return task, first


def test_nodes_of_four_layers_are_those_of_figure_6():
  steps = btpbt.schedule(4, 1, 2)
  assert [step.group for step in steps] == [
    (0, 0, 0, 0),
    (0, 0, 2, 2),
    (0, 1, 2, 2),
    (0, 1, 2, 3),
    (0, 1, 2, 3),
  ]
  assert [step.active for step in steps] == [
    (True,) * 4,
    (True,) * 4,
    (True, True, False, False),
    (False, False, True, True),
    (True,) * 4,
  ]
  assert [step.start for step in steps] == [
    'random',
    'candidate',
    'candidate',
    'candidate',
    'winner',
  ]
  assert [step.cycles for step in steps] == [1, 1, 1, 1, 2]


def test_seven_layers_are_halved_breadth_first_with_the_smaller_half_left():
  steps = btpbt.schedule(7, 1, 1)
  assert [step.name for step in steps] == [
    'root',
    '0-2|3-6',
    '0-0|1-2',
    '3-4|5-6',
    '1-1|2-2',
    '3-3|4-4',
    '5-5|6-6',
    'joint',
  ]
  # T runs of a node and the joint one: 7 * 20 + 40 = 180 epochs at the paper's settings.
  assert sum(step.cycles for step in btpbt.schedule(7, 20, 40)) == 180


def test_one_layer_has_no_children():
  assert [step.name for step in btpbt.schedule(1, 1, 1)] == ['root', 'joint']
  with pytest.raises(ValueError, match='0 activation layers'):
    btpbt.schedule(0, 1, 1)


def test_children_never_replace_less_than_their_parent_and_all_nodes_share_one_executable():
  task, first = tiny_task()
  sizes = score.activations(task.network)
  steps = btpbt.schedule(7, 2, 2)
  settings = small_search.evolution()
  key = jax.random.key(1)
  progress = schedule.start(key, first, task, steps, settings)
  before = population.cycle._cache_size()
  while int(progress.position[0]) < len(steps):
    step = steps[int(progress.position[0])]
    candidate = progress.candidate
    progress, report = schedule.advance(key, progress, task, steps, settings)
    active = np.asarray(step.active)
    if step.start == 'candidate':
      floor = np.asarray(score.replaced(candidate.plan, sizes))[active].sum()
      for ratio, degree in zip(report['ratio'], report['degree']):
        replaced = np.asarray(
          score.replaced(plans.from_twentieths(ratio.tolist(), degree.tolist()), sizes)
        )
        assert replaced[active].sum() >= floor
        np.testing.assert_array_equal(ratio[~active], np.asarray(candidate.plan.ratio)[~active])
    for ratio in report['ratio']:
      assert all(ratio[t] == ratio[g] for t, g in enumerate(step.group))
  assert population.cycle._cache_size() == before + 1
  assert float(progress.winner.score) > float(progress.winner.accuracy)


def test_a_node_without_a_feasible_member_hands_on_its_candidate():
  task, first = small_search.task()
  steps = btpbt.schedule(small_search.LAYERS, 1, 1)[:2]
  settings = small_search.evolution(threshold=1.1)
  key = jax.random.key(1)
  progress = schedule.start(key, first, task, steps, settings)
  for _ in steps:
    progress, report = schedule.advance(key, progress, task, steps, settings)
    assert np.isneginf(report['best_key'])
  for ours, theirs in zip(jax.tree.leaves(progress.winner), jax.tree.leaves(first)):
    np.testing.assert_array_equal(ours, theirs)


def test_a_node_whose_members_all_diverge_restarts_at_half_the_rate_and_then_fails():
  task, first = small_search.task()
  poisoned = first.replace(params=jax.tree.map(lambda a: a * jnp.nan, first.params))
  steps = btpbt.schedule(small_search.LAYERS, 1, 1)
  key = jax.random.key(1)
  progress = schedule.start(key, poisoned, task, steps, small_search.evolution())
  for restart in range(schedule.MAX_RESTARTS):
    progress, report = schedule.advance(key, progress, task, steps, small_search.evolution())
    assert np.isneginf(report['score']).all()
    assert progress.position.tolist() == [0, 0, restart + 1, 0]
    np.testing.assert_allclose(progress.state.members.learning_rate, 0.01 * 0.5 ** (restart + 1))
  with pytest.raises(RuntimeError, match='root.*diverged 4 times'):
    schedule.advance(key, progress, task, steps, small_search.evolution())


def test_one_diverged_member_loses_and_the_others_go_on():
  task, first = small_search.task()
  steps = btpbt.schedule(small_search.LAYERS, 1, 1)
  key = jax.random.key(1)
  progress = schedule.start(key, first, task, steps, small_search.evolution())
  members_ = progress.state.members
  params = jax.tree.map(lambda a: a.at[2].set(jnp.nan), members_.params)
  progress = progress._replace(
    state=progress.state.replace(members=members_.replace(params=params))
  )
  node = schedule.node_of(steps[0], first, task)
  state, report = population.cycle(
    key, progress.state, task, node, evolution=small_search.evolution()
  )
  assert (
    np.isneginf(report['score'][2]) and np.isfinite(np.delete(np.asarray(report['score']), 2)).all()
  )
  assert 2 not in np.asarray(report['parent'])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.members.params))


@pytest.mark.parametrize(
  'threshold, options',
  [
    (0.0, {}),
    (0.0, {'patience': 1, 'draws': 2, 'fresh': True}),
    (1.1, {'patience': 2}),  # interrupted while the node is losing patience
  ],
)
def test_an_interrupted_search_ends_like_an_uninterrupted_one(tmp_path, threshold, options):
  task, first = small_search.task()
  steps = btpbt.schedule(small_search.LAYERS, 3, 1, **options)[:3]
  settings = small_search.evolution(threshold=threshold)
  key = jax.random.key(1)

  class InterruptedSearchError(Exception):
    pass

  def stop(done, total, report):
    del total, report
    if done == 4:
      raise InterruptedSearchError

  whole = schedule.run(key, first, task, steps, settings, Workdir(tmp_path / 'a'))
  with pytest.raises(InterruptedSearchError):
    schedule.run(key, first, task, steps, settings, Workdir(tmp_path / 'b'), report=stop)
  resumed = schedule.run(key, first, task, steps, settings, Workdir(tmp_path / 'b'))
  for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole)):
    np.testing.assert_array_equal(ours, theirs)
  assert Workdir(tmp_path / 'a').metrics() == Workdir(tmp_path / 'b').metrics()


def test_options_are_those_of_the_nodes_and_the_joint_search_has_no_patience():
  steps = btpbt.schedule(2, 3, 4, patience=2, draws=5, fresh=True)
  assert [(s.patience, s.draws, s.fresh) for s in steps] == [
    (2, 5, True),
    (2, 5, True),
    (0, 5, True),
  ]
  plain = btpbt.schedule(2, 3, 4)
  assert [(s.patience, s.draws, s.fresh) for s in plain] == [(0, 1, False)] * 3


def test_hopeless_nodes_end_early_and_only_trained_batches_are_counted(tmp_path):
  task, first = small_search.task()
  build = functools.partial(
    algorithms.build,
    'btpbt',
    score.activations(task.network),
    node_cycles=3,
    joint_cycles=2,
    node_patience=1,
  )
  seen = []
  found = phases.search(
    jax.random.key(1),
    first,
    task,
    Workdir(tmp_path),
    build=build,
    evolution=small_search.evolution(iterations=2),
    accuracy_drop=-1.1,  # nobody is feasible
    learning_rate=0.01,
    report=lambda done, total, _: seen.append((done, total)),
  )
  assert seen == [(1, 9), (2, 7), (3, 5), (4, 5), (5, 5)]
  assert found.batches == 2 * 5


def test_a_node_ends_with_the_cycles_in_which_its_best_does_not_grow(tmp_path):
  task, first = small_search.task()
  steps = btpbt.schedule(small_search.LAYERS, 6, 1, patience=2)[:-1]
  _, cycles = schedule.run(
    jax.random.key(1), first, task, steps, small_search.evolution(), Workdir(tmp_path)
  )
  lines = Workdir(tmp_path).metrics()
  assert min(cycles) < 6 and len(lines) == sum(cycles)
  for step, count in zip(steps, cycles):
    best = [-np.inf] + [line['best_key'] for line in lines if line['node'] == step.name]
    grown = np.diff(np.asarray(best)) > 0
    assert len(grown) == count
    pairs = [not (a or b) for a, b in zip(grown, grown[1:])]
    assert not any(pairs[:-1]) and (pairs[-1] or count == 6)


@pytest.mark.parametrize('fresh', [False, True])
def test_a_node_starts_with_its_parents_optimiser_or_anew(fresh):
  task, first = small_search.task()
  steps = btpbt.schedule(small_search.LAYERS, 1, 1, fresh=fresh)
  settings = small_search.evolution()
  key = jax.random.key(1)
  progress = schedule.start(key, first, task, steps, settings)
  members_ = progress.state.members
  progress = progress._replace(
    state=progress.state.replace(
      members=members_.replace(learning_rate=members_.learning_rate * 0 + 0.03)
    )
  )
  progress, _ = schedule.advance(key, progress, task, steps, settings)
  parent = first if fresh else progress.candidate
  assert float(progress.candidate.learning_rate) != float(first.learning_rate)
  started = progress.state.members
  for member in range(settings.population):
    assert float(started.learning_rate[member]) == float(parent.learning_rate)
    for ours, theirs in zip(
      jax.tree.leaves(started.optimizer_state), jax.tree.leaves(parent.optimizer_state)
    ):
      np.testing.assert_array_equal(ours[member], theirs)
    for ours, theirs in zip(
      jax.tree.leaves(started.params), jax.tree.leaves(progress.candidate.params)
    ):
      np.testing.assert_array_equal(ours[member], theirs)


def test_a_supernet_takes_the_best_score_of_plans_that_replace_about_as_much():
  task, first = small_search.task()
  settings = small_search.evolution(population=3)
  node = schedule.node_of(btpbt.schedule(small_search.LAYERS, 1, 1)[0], first, task)
  drawn = population.draw_plans(
    jax.random.key(2), first, task, node, evolution=settings, random=True, count=12
  )
  mixed = jax.tree.map(lambda leaf: leaf[::-1], drawn)
  key = jax.random.key(3)
  chosen = supernet.choose(key, first, mixed, task, evolution=settings)
  sizes = score.activations(task.network)

  @jax.jit
  def untrained_score(plan):
    member = members.recalibrate(key, first.replace(plan=plan), task)
    accuracy = members.accuracy(member, task, *task.validation)
    return score.score(accuracy, plan, sizes, settings.reduction)

  found = []
  for index in range(12):
    plan = jax.tree.map(lambda leaf, i=index: leaf[i], mixed)
    found.append((int(score.replaced(plan, sizes).sum()), float(untrained_score(plan)), plan))
  found.sort(key=lambda each: each[0])
  best = [max(found[i : i + 4], key=lambda each: each[1]) for i in (0, 4, 8)]
  for member, (_, _, plan) in enumerate(best):
    for ours, theirs in zip(chosen, plan):
      np.testing.assert_array_equal(ours[member], theirs)


def test_every_node_starts_with_the_plans_of_its_supernet_and_logs_its_images(monkeypatch):
  task, first = small_search.task()
  steps = btpbt.schedule(small_search.LAYERS, 2, 1, draws=3)
  settings = small_search.evolution()
  seen = []

  def choose(key, candidate, drawn, task, *, evolution):
    del key, candidate, task
    assert drawn.ratio.shape == (3 * evolution.population, small_search.LAYERS)
    seen.append(jax.tree.map(lambda leaf: leaf[-evolution.population :], drawn))
    return seen[-1]

  monkeypatch.setattr(supernet, 'choose', choose)
  key = jax.random.key(1)
  progress = schedule.start(key, first, task, steps, settings)
  while int(progress.position[0]) < len(steps):
    number = int(progress.position[1])
    progress, report = schedule.advance(key, progress, task, steps, settings)
    assert ('supernet_images' in report) == (number == 0)
    if number == 0:
      np.testing.assert_array_equal(report['ratio'], seen[-1].ratio)
      # 12 plans, each on a batch of 8 for its statistics and on all 16 validation images.
      assert report['supernet_images'] == 12 * (8 + 16)
  assert len(seen) == len(steps)


@pytest.mark.parametrize('strategy', ['vmap', 'unroll'])
def test_strategies_agree(strategy):
  task, first = small_search.task()
  step = btpbt.schedule(small_search.LAYERS, 1, 1)[0]
  node = schedule.node_of(step, first, task)
  results = []
  for name in ('map', strategy):
    settings = small_search.evolution(population=2, strategy=name)
    state = population.begin(
      jax.random.key(3), first, task, node, jnp.float32(1), evolution=settings, random=True
    )
    results.append(population.cycle(jax.random.key(4), state, task, node, evolution=settings)[1])
  np.testing.assert_allclose(results[0]['loss'], results[1]['loss'], rtol=1e-4)
  np.testing.assert_array_equal(results[0]['ratio'], results[1]['ratio'])

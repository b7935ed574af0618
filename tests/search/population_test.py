"""One cycle of a population: what its members share, and odd circumstances."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import plans
from safenet_jax.search import members, population, schedule, score
from safenet_jax.search.planners import algorithms
from safenet_jax.search.teacher import Teacher
from safenet_jax.workdir import Workdir
from tests.support import small_search


def begun(task, first, algorithm='pbt', evolution=None):
  evolution = evolution or small_search.evolution()
  search = algorithms.build(
    algorithm, score.activations(task.network), evolution, node_cycles=1, joint_cycles=1
  )
  progress = schedule.start(
    jax.random.key(0), first, task, search.steps, search.evolution, search.proposer
  )
  return search, progress, schedule.node_of(search.steps[0], first, task)


def test_a_member_whose_every_gradient_is_nan_is_replaced_and_harms_nobody():
  task, first = small_search.task(validation_images=5)
  search, progress, node = begun(task, first)
  broken = progress.state.members
  # The logits overflow to infinity, so the loss and all gradients are NaN.
  kernel = broken.params['dense1']['kernel']
  params = broken.params | {'dense1': broken.params['dense1'] | {'kernel': kernel.at[1].set(3e38)}}
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
  state = progress.state.replace(members=broken.replace(params=params))
  state, report = population.cycle(jax.random.key(1), state, task, node, evolution=search.evolution)
  assert np.isneginf(report['score'][1]) and not np.isfinite(report['loss'][1])
  assert np.isfinite(np.delete(np.asarray(report['score']), 1)).all()
  assert int(report['parent'][1]) != 1 and 1 not in np.asarray(report['parent'])
  for leaf in jax.tree.leaves((state.members.params, state.members.optimizer_state, state.best)):
    assert np.isfinite(leaf).all()


def test_a_validation_set_smaller_than_the_batch_counts_every_image_once(tmp_path):
  task, first = small_search.task(validation_images=5)
  assert task.validation.labels.size < task.training.evaluation_batch
  search, _, _ = begun(task, first)
  steps = [search.steps[0]._replace(cycles=1)]
  schedule.run(jax.random.key(0), first, task, steps, search.evolution, Workdir(tmp_path))
  (line,) = Workdir(tmp_path).metrics()
  fifths = 5 * jnp.asarray(line['accuracy'])
  np.testing.assert_allclose(fifths, jnp.round(fifths), atol=1e-5)


def test_the_log_has_the_history_of_every_member(tmp_path):
  task, first = small_search.task(validation_images=5)
  search, _, _ = begun(task, first)
  steps = [search.steps[0]._replace(cycles=1)]
  schedule.run(jax.random.key(0), first, task, steps, search.evolution, Workdir(tmp_path))
  (line,) = Workdir(tmp_path).metrics('search')
  assert line['node'] == 'pbt' and line['step'] == 1
  for name in ('accuracy', 'score', 'loss', 'learning_rate', 'parent', 'key'):
    assert len(line[name]) == 4, name
  for name in ('ratio', 'degree'):
    assert np.shape(line[name]) == (4, small_search.LAYERS), name


@pytest.fixture
def counted(monkeypatch):
  """Counts, while a cycle runs, by name: teacher's batches, and members that were trained."""
  counts = collections.Counter()

  def counting(name, function):
    def counted(*args):
      jax.debug.callback(lambda: counts.update([name]))
      return function(*args)

    return counted

  monkeypatch.setattr(Teacher, 'logits', counting('teacher', Teacher.logits))
  monkeypatch.setattr(members, 'train_on', counting('members', members.train_on))
  return counts


def fresh_cycle(evolution):
  """A cycle that is traced anew, with what a test has put in a function's place."""
  cycle = jax.jit(functools.partial(population.cycle.function, evolution=evolution))

  def run(*args):
    found = cycle(jax.random.key(1), *args)
    jax.effects_barrier()
    return found

  return run


def test_the_teacher_labels_a_batch_once_for_all_members(counted):
  task, first = small_search.task(distillation=0.5)
  teacher = Teacher(members.variables(first), task.network, task.mean, task.std)
  task = task.replace(teacher=teacher)
  search, progress, node = begun(task, first)
  fresh_cycle(search.evolution)(progress.state, task, node)
  assert counted == {'teacher': search.evolution.iterations, 'members': 4}


def test_members_that_a_plan_makes_identical_are_trained_once(counted, monkeypatch):
  task, first = small_search.task()
  search, progress, node = begun(task, first, 'partial')
  state, report = fresh_cycle(search.evolution)(progress.state, task, node)
  assert counted['members'] == 1
  monkeypatch.setattr(population, 'twins', lambda state, sizes: jnp.arange(4))
  alone, reports = fresh_cycle(search.evolution)(progress.state, task, node)
  assert counted['members'] == 1 + 4
  for ours, theirs in zip(
    jax.tree.leaves((state.members, report)), jax.tree.leaves((alone.members, reports))
  ):
    np.testing.assert_array_equal(ours, theirs)


def test_members_of_one_origin_have_the_same_weights_and_the_copies_train_once(counted):
  task, first = small_search.task()
  same = small_search.evolution(
    population=8, vary_plans=False, rate_factors=(1.0, 1.0), quantile=0.4
  )
  search, progress, node = begun(task, first, evolution=same)
  cycle = fresh_cycle(search.evolution)
  state, report = cycle(progress.state, task, node)
  origin = np.asarray(state.origin)
  np.testing.assert_array_equal(origin, report['parent'])
  assert len(set(origin)) < 8
  plain = state.members.replace(plan=None, learning_rate=None)
  for leaf in jax.tree.leaves(plain):
    np.testing.assert_array_equal(leaf, leaf[np.argmax(origin[:, None] == origin, axis=1)])
  cycle(state, task, node)
  assert counted['members'] == 8 + len(set(origin))


def test_twins_have_the_same_origin_options_and_replaced_channels():
  task, first = small_search.task()
  sizes = score.activations(task.network)
  _, progress, _ = begun(task, first)
  # Layers of 4, 8 and 8 channels. Of 4 channels 6 twentieths are one, as 5 are.
  plans_ = [
    plans.from_twentieths([5, 0, 10], [2, 2, 3]),
    plans.from_twentieths([6, 0, 10], [2, 3, 3]),
    plans.from_twentieths([5, 0, 10], [3, 2, 3]),
    plans.from_twentieths([10, 0, 10], [2, 2, 3]),
  ]
  state = progress.state.replace(
    members=progress.state.members.replace(plan=jax.tree.map(lambda *a: jnp.stack(a), *plans_))
  )
  assert population.twins(state, sizes).tolist() == [0, 0, 2, 3]
  assert population.twins(state.replace(origin=jnp.array([1, 0, 0, 0])), sizes).tolist() == [
    0,
    1,
    2,
    3,
  ]
  rates = state.members.learning_rate.at[1].mul(2)
  other = state.replace(members=state.members.replace(learning_rate=rates))
  assert population.twins(other, sizes).tolist() == [0, 1, 2, 3]


def test_a_cycle_asks_the_host_for_nothing():
  task, first = small_search.task()
  search, progress, node = begun(task, first)
  text = population.cycle.lower(
    jax.random.key(1), progress.state, task, node, evolution=search.evolution
  ).as_text()
  assert 'stablehlo.while' in text
  for word in ('callback', 'infeed', 'outfeed', 'stablehlo.send', 'stablehlo.recv'):
    assert word not in text, word

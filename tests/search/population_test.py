"""One cycle of a population in odd circumstances."""

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.search import population, schedule, score
from safenet_jax.search.planners import algorithms
from safenet_jax.workdir import Workdir
from tests.support import small_search


def begun(task, first):
  search = algorithms.build(
    'pbt', score.activations(task.network), small_search.evolution(), node_cycles=1, joint_cycles=1
  )
  progress = schedule.start(jax.random.key(0), first, task, search.steps, search.evolution)
  return search, progress, schedule.node_of(search.steps[0], first, task)


def test_a_member_whose_every_gradient_is_nan_is_replaced_and_harms_nobody():
  task, first = small_search.task(validation_images=5)
  search, progress, node = begun(task, first)
  members = progress.state.members
  # The logits overflow to infinity, so the loss and all gradients are NaN.
  kernel = members.params['dense1']['kernel']
  params = members.params | {
    'dense1': members.params['dense1'] | {'kernel': kernel.at[1].set(3e38)}
  }
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
  state = progress.state.replace(members=members.replace(params=params))
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

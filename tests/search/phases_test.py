"""From an untrained network to a planned one with plain arguments, and again from its workdir."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import safenet_jax as safenet
from safenet_jax import data
from safenet_jax.search import fit, members, phases, population
from tests.support import small_search

NETWORK = small_search.NETWORK
LAYERS = small_search.LAYERS
OPTIONS = safenet.Training(
  batch_size=8, augment=False, evaluation_batch=16, recalibration_batches=1, distillation=0.5
)
RELU = {
  'epochs': 3,
  'learning_rate': 0.05,
  'training': dataclasses.replace(OPTIONS, distillation=0.0),
}
SMALL = {
  'accuracy_drop': 1.0,
  'population': 2,
  'iterations': 2,
  'node_cycles': 1,
  'joint_cycles': 1,
  'epochs': 1,
  'training': OPTIONS,
}


@pytest.fixture(scope='module')
def images():
  task, _ = small_search.task()
  train, validation = (
    safenet.Split(*map(np.asarray, split)) for split in (task.train, task.validation)
  )
  return safenet.Dataset(
    'brightness', train, validation, validation, 3, task.mean, task.std, ('a', 'b', 'c')
  )


@pytest.fixture(scope='module')
def run(images, tmp_path_factory):
  """A call that trains and searches in one workdir, and that workdir."""
  workdir = tmp_path_factory.mktemp('phases') / 'run'

  def call():
    first = safenet.train(NETWORK, images, **RELU, workdir=workdir)
    return first, safenet.search_plan(NETWORK, first.variables, images, **SMALL, workdir=workdir)

  return call, workdir


@pytest.fixture(scope='module')
def found(run):
  return run[0]()


def accuracy(images, variables, approximation=None):
  """By the network alone."""
  normal = data.normalise(jnp.asarray(images.validation.images), images.mean, images.std)
  found = NETWORK.apply(variables, normal, approximation).argmax(-1)
  return float((found == images.validation.labels).mean())


def same(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def test_accuracies_are_those_of_the_weights_that_are_returned(images, found):
  trained, planned = found
  assert trained.accuracy == pytest.approx(accuracy(images, trained.variables))
  assert trained.accuracy > 0.5
  assert planned.accuracy == pytest.approx(
    accuracy(images, planned.variables, planned.approximation)
  )


def test_what_is_replaced_is_what_the_approximation_says(found):
  _, planned = found
  counts = safenet.relu_counts(NETWORK)
  replaced = sum(
    count * int(layer.mask.sum()) // layer.mask.size
    for count, layer in zip(counts, planned.approximation)
  )
  assert planned.replaced == replaced / sum(counts)
  assert planned.plan.degree.tolist() == [int(layer.degree) for layer in planned.approximation]


def test_a_plan_written_by_hand_is_trained(images, found):
  trained, _ = found
  plan = safenet.make_plan([0.5] * LAYERS, [2] * LAYERS)
  planned = safenet.finetune(NETWORK, trained.variables, plan, images, epochs=1, training=OPTIONS)
  same(planned.plan, plan)
  assert [float(layer.mask.mean()) for layer in planned.approximation] == [0.5] * LAYERS
  assert planned.replaced == 0.5
  assert planned.accuracy == pytest.approx(
    accuracy(images, planned.variables, planned.approximation)
  )
  short = safenet.make_plan([0.5] * 2, [2] * 2)
  with pytest.raises(ValueError, match='a plan of 2 layers, want 3'):
    safenet.finetune(NETWORK, trained.variables, short, images, training=OPTIONS)


def test_the_same_calls_on_a_workdir_give_the_same_again_without_training(run, found, monkeypatch):
  call, workdir = run
  log = (workdir / 'metrics.jsonl').read_text()
  for phase in ('pretrain', 'search', 'finetune'):
    assert f'"{phase}"' in log
  monkeypatch.setattr(fit, 'train_chunk', None)
  monkeypatch.setattr(population, 'cycle', None)
  same(found, call())
  assert (workdir / 'metrics.jsonl').read_text() == log


def test_a_workdir_of_other_settings_is_refused(images, run, found):
  trained, _ = found
  momentum = dataclasses.replace(RELU['training'], momentum=0.5)
  for change, message in (
    ({'epochs': 2}, r'train\.epochs=3, got 2'),
    ({'seed': 1}, r'train\.seed=0, got 1'),
    ({'training': momentum}, r'train\.training=.*use another workdir'),
  ):
    with pytest.raises(ValueError, match=message):
      safenet.train(NETWORK, images, **RELU | change, workdir=str(run[1]))
  with pytest.raises(ValueError, match=r"search_plan\.algorithm='btpbt', got 'pbt'"):
    safenet.search_plan(
      NETWORK, trained.variables, images, **SMALL, algorithm='pbt', workdir=run[1]
    )


def test_bad_arguments_are_refused_before_anything_is_written(images, tmp_path):
  variables = jax.eval_shape(NETWORK.init, jax.random.key(0))
  given = {'workdir': tmp_path / 'run'}
  large = dataclasses.replace(RELU['training'], batch_size=1000)
  with pytest.raises(ValueError, match='batch size 1000, want at most the 48'):
    safenet.train(NETWORK, images, training=large, **given)
  with pytest.raises(ValueError, match='distillation 0.5 and no teacher'):
    safenet.train(NETWORK, images, training=OPTIONS, **given)
  with pytest.raises(ValueError, match="unknown search algorithm 'best'"):
    safenet.search_plan(NETWORK, variables, images, algorithm='best', **given)
  with pytest.raises(ValueError, match='a budget of 1000 ReLUs'):
    safenet.search_plan(NETWORK, variables, images, algorithm='budget', relu_budget=1000, **given)
  assert not (tmp_path / 'run').exists()


def test_phases_draw_from_keys_of_their_own():
  drawn = [jax.random.key_data(phases.key(0, phase)).tolist() for phase in phases.PHASES]
  assert len({tuple(key) for key in drawn}) == len(phases.PHASES)


def test_polynomials_are_fitted_to_the_first_training_images(images, found):
  trained, _ = found
  first = members.all_relu(trained.variables, 0.1, NETWORK, OPTIONS)
  some = data.normalise(jnp.asarray(images.train.images), images.mean, images.std)
  same(
    members.fitted(first, NETWORK, images).coefficients,
    safenet.fitted_coefficients(NETWORK, trained.variables, some),
  )


def test_of_two_calls_at_once_on_one_directory_the_second_is_refused(images, tmp_path):
  given = tmp_path / 'run', 'train', NETWORK, images, {}, 0
  refused = pytest.raises(BlockingIOError, match='in use by process')
  with phases._place(*given), refused, phases._place(*given):
    pass
  # Whatever ends a call, the next one may go on.
  with pytest.raises(FloatingPointError), phases._place(*given):
    raise FloatingPointError
  with phases._place(*given) as place:
    assert place.path == tmp_path / 'run'

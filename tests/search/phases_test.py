"""From an untrained network to a planned one with plain arguments, and again from its workdir."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import safenet_jax as safenet
from safenet_jax import data
from safenet_jax.models import weights
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
  with pytest.raises(ValueError, match=r"search_plan\.algorithm='gates', got 'pbt'"):
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
    safenet.search_plan(NETWORK, variables, images, algorithm='best', training=OPTIONS, **given)
  with pytest.raises(ValueError, match='a budget of 1000 ReLUs'):
    safenet.search_plan(
      NETWORK,
      variables,
      images,
      algorithm='budget',
      relu_budget=1000,
      training=OPTIONS,
      **given,
    )
  with pytest.raises(ValueError, match='^epochs -1, want .*; learning_rate -1, want'):
    safenet.train(NETWORK, images, epochs=-1, learning_rate=-1, **given)
  with pytest.raises(ValueError, match='^epochs 0, want weights to start with, or at least 1'):
    safenet.train(NETWORK, images, epochs=0, training=RELU['training'], **given)
  with pytest.raises(ValueError, match='^warmup_epochs 2, want fewer than the 1 epochs'):
    safenet.train(NETWORK, images, epochs=1, warmup_epochs=2, **given)
  with pytest.raises(ValueError, match='^population 0, want .*; seed -1, want an integer in 0'):
    safenet.search_plan(NETWORK, variables, images, population=0, seed=-1, **given)
  with pytest.raises(ValueError, match='^images of type str, want a Dataset'):
    safenet.train(NETWORK, 'fashion_mnist', **given)
  with pytest.raises(ValueError, match='^training of type dict, want a Training'):
    safenet.train(NETWORK, images, training={'batch_size': 8}, **given)
  with pytest.raises(ValueError, match=r'images of shape \(8, 8, 1\), want \(32, 32, 3\)'):
    safenet.train(safenet.cnn7(), images, **given)
  wide = safenet.Network((*NETWORK.layers[:-1], safenet.Dense(5)), NETWORK.input_shape)
  with pytest.raises(ValueError, match=r'output \(5,\) for images of 3 classes, want \(3,\)'):
    safenet.train(wide, images, training=RELU['training'], **given)
  other = weights.untrained_variables(wide)
  plan = safenet.make_plan([0.5] * LAYERS, [2] * LAYERS)
  for call in (
    lambda: safenet.finetune(NETWORK, other, plan, images, training=OPTIONS, **given),
    lambda: safenet.search_plan(NETWORK, other, images, training=OPTIONS, **given),
  ):
    with pytest.raises(ValueError, match=r'dense1/bias of shape \(5,\), want \(3,\)'):
      call()
  assert not (tmp_path / 'run').exists()


def test_without_epochs_of_fine_tuning_the_weights_stay(images, found, tmp_path, monkeypatch):
  trained, _ = found
  plan = safenet.make_plan([0.5] * LAYERS, [2] * LAYERS)

  def call():
    return safenet.finetune(
      NETWORK, trained.variables, plan, images, epochs=0, training=OPTIONS, workdir=tmp_path / 'run'
    )

  planned = call()
  same(planned.variables['params'], trained.variables['params'])
  assert planned.accuracy == pytest.approx(
    accuracy(images, planned.variables, planned.approximation)
  )
  lines = safenet.Workdir(tmp_path / 'run').metrics('finetune')
  assert [(line['step'], line['epoch']) for line in lines] == [(0, 0)]
  assert lines[0]['validation_accuracy'] == planned.accuracy
  # Once more, it comes from the checkpoint, as in the phases that follow.
  monkeypatch.setattr(fit, '_finish', None)
  same(planned, call())
  assert safenet.Workdir(tmp_path / 'run').metrics('finetune') == lines


def test_every_bit_of_a_seed_counts_and_small_seeds_are_those_of_jax():
  seeds = 0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**40, 2**63, 2**64 - 1
  drawn = {tuple(jax.random.key_data(phases.key(seed, 'init')).tolist()) for seed in seeds}
  assert len(drawn) == len(seeds)
  for seed in seeds[:3]:
    same(
      jax.random.key_data(phases.key(seed, 'search')),
      jax.random.key_data(jax.random.fold_in(jax.random.key(seed), 2)),
    )


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

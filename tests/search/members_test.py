"""Training, recalibration and evaluation of one member, and fitting with resume."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import plans
from safenet_jax.search import fit, members
from safenet_jax.search.teacher import Teacher
from safenet_jax.workdir import Workdir
from tests.search.planners.btpbt_test import tiny_task
from tests.support import small_search

train = jax.jit(members.train)
recalibrate = jax.jit(members.recalibrate)


def batches(steps, task):
  return jax.random.randint(
    jax.random.key(5), (steps, task.training.batch_size), 0, task.train.labels.size
  )


def with_plan(member, ratio, degree):
  plan = plans.from_twentieths([ratio] * small_search.LAYERS, [degree] * small_search.LAYERS)
  return member.replace(plan=plan)


@pytest.mark.parametrize('degree', [0, 2, 3])
def test_training_lowers_the_loss_and_moves_only_used_coefficients(degree):
  task, first = small_search.task()
  member = with_plan(first.replace(learning_rate=jnp.float32(0.05)), 10, degree)
  trained, losses = train(jax.random.key(0), member, task, batches(60, task))
  assert losses[-10:].mean() < losses[:10].mean()
  moved = np.any([np.asarray(a != b) for a, b in zip(trained.coefficients, member.coefficients)], 0)
  assert moved.tolist() == {0: [False] * 4, 2: [True] * 3 + [False], 3: [True] * 4}[degree]


def test_coefficients_learn_at_a_tenth_of_the_rate():
  task, first = small_search.task(range_penalty=0.0)
  fast_task, _ = small_search.task(range_penalty=0.0, coefficient_rate=1.0)
  member = with_plan(first, 20, 2)
  slow, _ = train(jax.random.key(0), member, task, batches(1, task))
  fast, _ = train(jax.random.key(0), member, fast_task, batches(1, task))
  for start, a, b in zip(member.coefficients, slow.coefficients, fast.coefficients):
    np.testing.assert_allclose((b - start)[:3], 10 * (a - start)[:3], rtol=1e-2, atol=1e-6)
  for a, b in zip(jax.tree.leaves(slow.params), jax.tree.leaves(fast.params)):
    np.testing.assert_array_equal(a, b)


def test_a_huge_gradient_is_clipped():
  task, first = small_search.task(weight_decay=0.0, momentum=0.0, range_penalty=0.0)
  member = first.replace(learning_rate=jnp.float32(1.0))
  member = member.replace(
    params=member.params
    | {'dense0': jax.tree.map(lambda a: 1e3 * (a + 1), member.params['dense0'])}
  )
  trained, _ = train(jax.random.key(0), member, task, batches(1, task))
  step = [a - b for a, b in zip(jax.tree.leaves(trained.params), jax.tree.leaves(member.params))]
  assert np.sqrt(sum(float(jnp.sum(s**2)) for s in step)) <= 1.01


def test_recalibration_sets_the_statistics_of_the_training_images():
  task, first = small_search.task()
  stale = first.replace(batch_stats=jax.tree.map(lambda a: a + 5, first.batch_stats))
  found = recalibrate(jax.random.key(0), stale, task).batch_stats['conv0_bn']
  images = task.normalise(task.train.images)
  y = jax.lax.conv_general_dilated(
    images,
    first.params['conv0']['kernel'],
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  np.testing.assert_allclose(found['mean'], y.mean((0, 1, 2)), atol=0.3)
  np.testing.assert_allclose(found['var'], y.var((0, 1, 2)), rtol=0.4)


def test_one_image_far_out_does_not_widen_the_statistics():
  task, first = small_search.task()
  task = task.replace(training=members.Training(batch_size=1, recalibration_batches=32))
  grey = 120 + task.train.images % 8
  # A few of the 32 batches are this image; a mean over them would follow it.
  odd = grey.at[0].set(np.where(task.train.images[0] % 2, 0, 255).astype(np.uint8))
  of = lambda images: task.replace(train=task.train._replace(images=images))  # noqa: E731
  usual, found = (
    recalibrate(jax.random.key(0), first, of(images)).batch_stats['conv0_bn']
    for images in (grey, odd)
  )
  np.testing.assert_allclose(found['var'], usual['var'], rtol=0.5)


@pytest.mark.parametrize('count', [1, 7, 16])
def test_accuracy_counts_every_image_once_whatever_the_batch(count):
  task, first = small_search.task()
  images, labels = (part[:count] for part in task.validation)
  logits = task.network.apply(
    {'params': first.params, 'batch_stats': first.batch_stats}, task.normalise(images)
  )
  expected = np.mean(np.asarray(logits.argmax(-1)) == np.asarray(labels))
  for size in (4, 250):
    sized = task.replace(training=members.Training(evaluation_batch=size))
    assert members.accuracy(first, sized, images, labels) == pytest.approx(expected)


def test_distillation_pulls_towards_the_teacher():
  task, first = tiny_task()  # squares of seven layers take it farther away than those of three
  teacher = {'params': first.params, 'batch_stats': first.batch_stats}
  distilled = task.replace(
    teacher=Teacher(teacher, task.network, task.mean, task.std),
    training=members.Training(batch_size=8, augment=False, distillation=1.0, range_penalty=0.0),
  )
  member = first.replace(
    plan=plans.from_twentieths([20] * 7, [2] * 7), learning_rate=jnp.float32(0.01)
  )

  def distance(member):
    images = task.normalise(task.train.images)
    variables = {'params': member.params, 'batch_stats': member.batch_stats}
    ours = jax.nn.log_softmax(
      task.network.apply(variables, images, members.approximation(member, task))
    )
    theirs = jax.nn.log_softmax(task.network.apply(teacher, images))
    return float(jnp.mean(jnp.sum(jnp.exp(theirs) * (theirs - ours), -1)))

  trained, _ = train(jax.random.key(0), member, distilled, batches(80, task))
  trained = recalibrate(jax.random.key(1), trained, task)
  assert distance(trained) < distance(recalibrate(jax.random.key(1), member, task))


def test_a_student_that_equals_its_teacher_stays_whatever_statistics_the_teacher_keeps():
  task, first = small_search.task()
  stale = jax.tree.map(lambda a: a + 5, first.batch_stats)
  distilled = task.replace(
    teacher=Teacher(
      {'params': first.params, 'batch_stats': stale}, task.network, task.mean, task.std
    ),
    training=members.Training(batch_size=8, distillation=1.0, weight_decay=0.0),
  )
  fast = first.replace(learning_rate=1.0)
  trained, _ = train(jax.random.key(0), fast, distilled, batches(3, task))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), trained.params, first.params
  )


def test_a_teacher_from_elsewhere_keeps_its_statistics_and_its_normalisation():
  task, first = small_search.task()
  moved = jax.tree.map(lambda a: a + 0.5, first.batch_stats)
  known = {'params': first.params, 'batch_stats': moved}
  teacher = Teacher(known, task.network, (0.25,), (0.5,), by_batch=False)
  images = task.train.images[:4]
  expected = task.network.apply(known, (np.asarray(images, np.float32) / 255 - 0.25) / 0.5)
  np.testing.assert_allclose(teacher.logits(images), expected, atol=1e-5)
  assert not np.allclose(teacher.replace(by_batch=True).logits(images), expected, atol=1e-2)


def test_the_average_follows_the_weights_and_is_what_is_scored():
  task, first = small_search.task(ema=0.5, weight_decay=0.0)
  steps = [first]
  for i in range(3):
    steps.append(train(jax.random.key(i), steps[-1], task, batches(1, task))[0])
  # The decay of a young average is (1 + n) / (10 + n) before it is 0.5.
  expected = steps[0].params['dense0']['kernel']
  for n, member in enumerate(steps[1:]):
    decay = (1 + n) / (10 + n)
    expected = decay * expected + (1 - decay) * member.params['dense0']['kernel']
  member = steps[-1]
  np.testing.assert_allclose(member.average.ema['params']['dense0']['kernel'], expected, atol=1e-6)
  scored = members.averaged(member)
  np.testing.assert_allclose(scored.params['dense0']['kernel'], expected, atol=1e-6)
  # Only the average is seen by scoring: with other raw weights nothing changes.
  other = member.replace(params=jax.tree.map(jnp.zeros_like, member.params))
  for a, b in zip(
    jax.tree.leaves(recalibrate(jax.random.key(0), member, task).batch_stats),
    jax.tree.leaves(recalibrate(jax.random.key(0), other, task).batch_stats),
  ):
    np.testing.assert_array_equal(a, b)
  broken = member.replace(
    average=member.average._replace(ema=jax.tree.map(lambda a: a * jnp.nan, member.average.ema))
  )
  same, moved, scored = (fit.evaluate(m, task, *task.validation) for m in (other, broken, member))
  assert scored == same and scored != moved


def test_a_restart_begins_at_the_average_without_momentum():
  task, first = small_search.task(ema=0.9)
  trained, _ = train(jax.random.key(0), first, task, batches(5, task))
  again = members.restart(trained, 0.5, task.network, members.Training())
  assert again.average is None and float(again.learning_rate) == 0.5
  for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(trained.average.ema['params'])):
    np.testing.assert_array_equal(a, b)
  assert all(not leaf.any() for leaf in jax.tree.leaves(again.optimizer_state))


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_state():
  task, first = small_search.task(dtype='bfloat16')
  network = task.network.clone(dtype=members.compute_dtype(task.training))
  mixed, exact = task.replace(network=network), task
  _, state = network.apply(
    {'params': first.params, 'batch_stats': first.batch_stats},
    task.normalise(task.train.images[:8]),
    train=True,
    mutable=['batch_stats', 'preactivations'],
  )
  assert state['preactivations']['activation2'][0].dtype == jnp.bfloat16
  member = with_plan(first.replace(learning_rate=jnp.float32(0.05)), 10, 2)
  trained, losses = train(jax.random.key(0), member, mixed, batches(60, task))
  _, theirs = train(jax.random.key(0), member, exact, batches(60, task))
  assert {leaf.dtype for leaf in jax.tree.leaves((trained.params, trained.batch_stats))} == {
    jnp.dtype(jnp.float32)
  }
  assert losses.dtype == jnp.float32 and losses[-5:].mean() < losses[:5].mean()
  np.testing.assert_allclose(losses[:3], theirs[:3], rtol=0.05)
  assert not np.array_equal(losses, theirs)


def test_dtype_and_decay_are_checked():
  assert members.compute_dtype(members.Training()) == (
    jnp.float32 if jax.default_backend() == 'cpu' else jnp.bfloat16
  )
  with pytest.raises(ValueError, match="dtype 'float16', want one of auto, float32, bfloat16"):
    members.Training(dtype='float16')
  with pytest.raises(ValueError, match='ema 1.0, want a number of at least 0 and below 1'):
    members.Training(ema=1.0)


def test_relu_is_blended_out_of_replaced_channels_over_the_first_epochs(tmp_path, monkeypatch):
  task, first = small_search.task()
  seen = []

  def record(key, member, task, order, rates, blends):
    seen.extend(np.asarray(blends).tolist())
    return member, jnp.zeros(len(order))

  monkeypatch.setattr(fit, 'train_chunk', record)
  fit.fit(
    jax.random.key(0), first, task, Workdir(tmp_path), phase='finetune', epochs=3, anneal_epochs=1.5
  )
  np.testing.assert_allclose(seen, np.clip(1 - np.arange(18) / 9, 0, 1), atol=1e-6)


@pytest.mark.parametrize('ema', [0.0, 0.9])
def test_an_interrupted_fit_ends_like_an_uninterrupted_one(tmp_path, ema):
  task, first = small_search.task(ema=ema)

  class InterruptedFitError(Exception):
    pass

  def stop(done, total, metrics):
    del total, metrics
    if done == 12:
      raise InterruptedFitError

  def run(name, **options):
    return fit.fit(
      jax.random.key(0),
      first,
      task,
      Workdir(tmp_path / name),
      phase='pretrain',
      epochs=4,
      warmup_epochs=1,
      **options,
    )

  whole = run('a')
  with pytest.raises(InterruptedFitError):
    run('b', progress=stop)
  resumed = run('b')
  for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole)):
    np.testing.assert_array_equal(ours, theirs)
  assert Workdir(tmp_path / 'a').metrics() == Workdir(tmp_path / 'b').metrics()
  assert [m['epoch'] for m in Workdir(tmp_path / 'a').metrics()] == [1, 2, 3, 4]
  if ema:
    for ours, theirs in zip(
      jax.tree.leaves(whole.params), jax.tree.leaves(whole.average.ema['params'])
    ):
      np.testing.assert_array_equal(ours, theirs)


def test_the_best_epoch_is_kept_over_an_interruption(tmp_path, monkeypatch):
  task, first = small_search.task()
  scores, seen = iter([0.1, 0.9, 0.4, 0.9, 0.2]), []
  finish = fit._finish

  def scored(key, member, task):
    finished, _ = finish(key, member, task)
    seen.append(jax.tree.map(np.array, finished.params))
    return finished, jnp.float32(next(scores))

  monkeypatch.setattr(fit, '_finish', scored)

  def stop(done, total, metrics):
    del total
    if done == 18 and 'validation_accuracy' in metrics:
      raise KeyboardInterrupt

  def run(epochs, **options):
    place = Workdir(tmp_path)
    key = jax.random.key(0)
    return fit.fit(
      key, first, task, place, phase='finetune', epochs=epochs, keep_best=True, **options
    )

  with pytest.raises(KeyboardInterrupt):
    run(5, progress=stop)
  kept = run(5)
  assert float(kept.accuracy) == np.float32(0.9) and len(seen) == 5
  # Of two equal ones the later.
  for ours, theirs in zip(jax.tree.leaves(kept.params), jax.tree.leaves(seen[3])):
    np.testing.assert_array_equal(ours, theirs)
  for again, once in zip(jax.tree.leaves(run(5)), jax.tree.leaves(kept)):
    np.testing.assert_array_equal(again, once)


def test_a_loss_that_is_not_finite_names_its_step(tmp_path):
  task, first = small_search.task()
  poisoned = first.replace(params=jax.tree.map(lambda a: a * jnp.nan, first.params))
  with pytest.raises(FloatingPointError, match='pretrain: the loss is nan at step 0'):
    fit.fit(jax.random.key(0), poisoned, task, Workdir(tmp_path), phase='pretrain', epochs=1)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
  task, first = small_search.task()
  large = task.replace(training=members.Training(batch_size=1000))
  with pytest.raises(ValueError, match='batch size 1000, want at most the 48'):
    fit.fit(jax.random.key(0), first, large, Workdir(tmp_path), phase='pretrain', epochs=1)

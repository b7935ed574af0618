"""The options of training: what each of them changes, and networks without batch norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import activation, plans
from safenet_jax.models.layers import Activation, AveragePool, Conv, Dense, Flatten
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.quantization import folding
from safenet_jax.search import fit, members, pbt, schedule
from safenet_jax.workdir import Workdir
from tests.support import small_search

SQUARES = plans.from_twentieths([20] * small_search.LAYERS, [2] * small_search.LAYERS)
train = jax.jit(members.train)
recalibrate = jax.jit(members.recalibrate)


def batches(steps, task):
  return jax.random.randint(
    jax.random.key(5), (steps, task.training.batch_size), 0, task.train.labels.size
  )


def logits(member, task):
  variables = {'params': member.params, 'batch_stats': member.batch_stats}
  return task.network.apply(
    variables, task.normalise(task.validation.images), members.approximation(member, task)
  )


def test_without_clipping_a_huge_gradient_stays_huge():
  def step(clip_norm):
    task, first = small_search.task(clip_norm=clip_norm, weight_decay=0.0, range_penalty=0.0)
    dense = jax.tree.map(lambda a: 1e3 * (a + 1), first.params['dense1'])
    member = first.replace(params=first.params | {'dense1': dense}, learning_rate=jnp.float32(1.0))
    trained, _ = train(jax.random.key(0), member, task, batches(1, task))
    moves = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), trained.params, member.params)
    return np.sqrt(sum(map(float, jax.tree.leaves(moves))))

  assert step(clip_norm=2.0) == pytest.approx(2.0, rel=1e-3)
  assert step(clip_norm=0.0) > 20


def test_a_range_is_clipped_in_training_and_not_in_what_is_served():
  found = {}
  for clip in (0.0, 0.5, 1e6):
    task, first = small_search.task(range_clip=clip, range_penalty=0.0)
    member = first.replace(plan=SQUARES)
    _, losses = train(jax.random.key(0), member, task, batches(1, task))
    found[clip] = losses[0], logits(member, task)
  assert found[1e6][0] == found[0.0][0] != found[0.5][0]
  np.testing.assert_array_equal(found[0.5][1], found[0.0][1])


@pytest.mark.parametrize('clip, widened', [(0.0, True), (2.0, False)])
def test_statistics_are_recalibrated_with_the_range_that_training_had(clip, widened):
  # Every batch has an image far off the others, so that a median over batches is of no help.
  task, first = small_search.task(range_clip=clip, batch_size=256)
  usual = 100 + task.train.images // 8
  far = usual.at[0].set(jnp.tile(jnp.array([255, 0], jnp.uint8), 4)[None, :, None])
  member = first.replace(plan=SQUARES)
  before, after = (
    recalibrate(jax.random.key(0), member, task.replace(train=images)).batch_stats
    for images in (task.train._replace(images=usual), task.train._replace(images=far))
  )
  assert (float(jnp.max(after['conv1_bn']['var'] / before['conv1_bn']['var'])) > 5) == widened


@pytest.mark.parametrize('floor', [0.0, 0.25])
def test_the_leading_coefficient_of_a_training_and_of_what_it_serves_has_its_floor(floor):
  task, first = small_search.task(leading_floor=floor)
  below = tuple(c.at[2].set(floor - 0.1) for c in first.coefficients)
  member = first.replace(plan=SQUARES, coefficients=below)
  for layer in members.approximation(member, task):
    used = activation.effective(layer.coefficients, layer.degree, layer.floor)
    assert used[2] == pytest.approx(floor + 0.1)
    np.testing.assert_allclose(folding.Split(layer).coefficients[2], floor + 0.1, rtol=1e-6)
  # Reflected: as far above the floor is the same network, and learns the same.
  above = member.replace(coefficients=tuple(c.at[2].set(floor + 0.1) for c in below))
  np.testing.assert_allclose(logits(member, task), logits(above, task), rtol=1e-6)
  elsewhere, _ = small_search.task(leading_floor=floor + 0.3)
  assert not np.allclose(logits(member, task), logits(member, elsewhere))
  losses = [train(jax.random.key(0), m, task, batches(1, task))[1] for m in (member, above)]
  np.testing.assert_allclose(*losses, rtol=1e-6)


def test_every_channel_gets_a_polynomial_of_its_own():
  task, first = small_search.task(per_channel=True)
  channels = activation_channels(task.network)
  assert [c.shape for c in first.coefficients] == [(n, 4) for n in channels]
  member = first.replace(plan=SQUARES, learning_rate=jnp.float32(0.05))
  trained, _ = train(jax.random.key(0), member, task, batches(20, task))
  for coefficients in trained.coefficients:
    assert np.unique(coefficients[:, 2]).size > 1  # batch norm hides the constant
  split = folding.Split(members.approximation(trained, task)[0])
  np.testing.assert_allclose(split.coefficients[:3], trained.coefficients[0].T[:3], rtol=1e-6)


def test_channels_start_from_the_polynomial_of_their_layer_and_never_go_back():
  task, first = small_search.task()
  trained, _ = train(
    jax.random.key(0),
    first.replace(plan=SQUARES, learning_rate=jnp.float32(0.05)),
    task,
    batches(20, task),
  )
  options = members.Training(per_channel=True)
  spread = members.restart(trained, 0.1, task.network, options)
  assert spread.coefficients[1].shape == (8, 4)
  np.testing.assert_array_equal(logits(spread, task), logits(trained, task))
  assert jax.tree.structure(members.restart(spread, 0.1, task.network, options)) == (
    jax.tree.structure(spread)
  )
  with pytest.raises(ValueError, match='per_channel False, want True'):
    members.restart(spread, 0.1, task.network, members.Training())


@pytest.mark.parametrize(
  'option, value, message',
  [
    ('distillation', 1.5, r'distillation 1\.5, want a number of at least 0 and at most 1$'),
    ('clip_norm', -1.0, r'clip_norm -1\.0, want a number of at least 0'),
    ('leading_floor', -0.1, r'leading_floor -0\.1, want a number of at least 0'),
  ],
)
def test_options_out_of_range_are_refused(option, value, message):
  with pytest.raises(ValueError, match=message):
    members.Training(**{option: value})


# Nothing is normalised: there is no collection batch_stats.
PLAIN = Network(
  (
    Conv(4, batch_norm=False),
    Activation(),
    AveragePool(4),
    Conv(8, kernel=1, batch_norm=False),
    Activation(),
    Flatten(),
    Dense(8),
    Activation(),
    Dense(3),
  ),
  (8, 8, 1),
)


@pytest.mark.parametrize('ema', [0.0, 0.9])
def test_a_network_without_batch_norm_is_trained_logged_checkpointed_and_scored(tmp_path, ema):
  task, first = small_search.task(PLAIN, ema=ema)
  assert 'batch_stats' not in PLAIN.init(jax.random.key(0))
  first = first.replace(plan=SQUARES, learning_rate=jnp.float32(0.05))

  seen = []

  def run():
    return fit.fit(
      jax.random.key(0),
      first,
      task,
      Workdir(tmp_path),
      phase='pretrain',
      epochs=10,
      progress=lambda done, total, metrics: seen.append((done, metrics)),
    )

  trained = run()
  # A speed once nothing compiles, and never in the log, which a resumed run writes again.
  assert 'images/s' not in seen[0][1] and seen[-1][1]['images/s'] > 0
  assert all(
    set(line) == {'phase', 'step', 'epoch', 'loss', 'validation_accuracy', 'learning_rate'}
    for line in Workdir(tmp_path).metrics()
  )
  losses = [line['loss'] for line in Workdir(tmp_path).metrics()]
  assert losses[-1] < losses[0] and float(trained.accuracy) > 0.6
  for again, once in zip(jax.tree.leaves(run()), jax.tree.leaves(trained)):
    np.testing.assert_array_equal(again, once)
  assert fit.evaluate(trained, task, *task.validation) == trained.accuracy


def test_a_network_without_batch_norm_is_searched(tmp_path):
  task, first = small_search.task(PLAIN)
  winner, _ = schedule.run(
    jax.random.key(0),
    first.replace(accuracy=jnp.float32(0), score=jnp.float32(0)),
    task,
    pbt.schedule(small_search.LAYERS, 2),
    small_search.evolution(),
    Workdir(tmp_path),
  )
  assert float(winner.score) > 0 and int(winner.plan.ratio.sum()) > 0

"""Whole test sets through the simulator: every image once, in batches of one size."""

import dataclasses
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib import test_sets
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.fixed_point import formats
from safenet_jax.protocol.simulation import simulator
from tests.support import models

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 2), dtype=np.uint8)


@pytest.fixture
def sizes(monkeypatch):
  """Of the batches that the simulator gets; it gives the images' own first values."""
  found = []

  def infer(model, images, randomness):
    del model, randomness
    found.append(len(images))
    return images[:, 0, 0].astype(np.float64)

  monkeypatch.setattr(simulator, 'infer', infer)
  return found


@pytest.mark.parametrize(
  'count, batch, wanted',
  [
    (7, 3, [3, 3, 3]),
    (6, 3, [3, 3]),
    (7, 100, [3, 3, 3]),
    (1, 16, [1]),
    (2, 16, [1, 1]),
    (7, 1, [1] * 7),
  ],
)
def test_batches_have_one_size_and_every_image_its_own_answer(sizes, count, batch, wanted):
  told = []
  found = test_sets.run(
    models.calibrated(), IMAGES[:count], None, batch=batch, report=lambda *a: told.append(a)
  )
  assert sizes == wanted
  np.testing.assert_array_equal(found.logits, IMAGES[:count, 0, 0])
  assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
  assert told[-1][:2] == (count, count)
  assert (found.images_per_second is None) == (count == 1)
  assert found.images_per_second is None or told[-1][2] == {'images/s': found.images_per_second}


def test_memory_bounds_a_batch(sizes):
  model = models.calibrated()
  form = dataclasses.replace(model.public.activations['activation0'], relu=64, map_shape=(256, 256))
  large = models.altered(model, activations={'activation0': form})
  assert simulator.batch(large) == 1 < simulator.batch(model)
  test_sets.run(large, IMAGES, None, batch=16)
  assert set(sizes) == {1}


def test_the_bound_is_about_what_a_preparation_takes():
  """Of ReLUs: tables and labels of both parties."""
  form = models.activation(64, 0, 0, (32, 32))
  model = models.altered(models.calibrated(), activations={'activation0': form})
  bits = form.sign_bits - form.dropped
  held = math.prod(form.map_shape) * 64 * (32 * (bits - 1) + 2 * 16 * bits)
  assert (1 << 28) < simulator.batch(model) * held <= (1 << 29)


def test_private_batches_equal_the_plaintext_network():
  model, ranges = models.calibrated(), formats.RangeReport()
  plain = test_sets.plain(model, IMAGES, ranges)
  assert ranges.images == 7
  np.testing.assert_array_equal(plain, model.run(IMAGES))
  found = test_sets.run(model, IMAGES, SystemRandomness(), batch=3)
  assert np.abs(found.logits - model.public.decode(plain)).max() < 0.05
  assert found.images_per_second > 0


def test_images_that_leave_their_formats_are_counted_one_by_one():
  """A model by its answers: image i has its first pixel's class, and leaves as its second says."""
  count = 120
  rng = np.random.default_rng(3)
  pixels = np.zeros((count, 2, 1, 1), np.uint8)
  pixels[:, 0, 0, 0] = rng.integers(0, 4, count)
  pixels[:, 1, 0, 0] = rng.random(count) < 0.2
  pixels[:50, 1] = 0  # a batch in which none leaves
  first, leaves = pixels[:, 0, 0, 0].astype(int), pixels[:, 1, 0, 0].astype(bool)
  assert 1 < leaves.sum() < 20

  def run(images, ranges):
    left = int(images[:, 1].sum())
    ranges.count('activation0', exceeded=9 * left)
    ranges.count('logits', exceeded=1)  # is about distrust, and not counted here
    ranges.failures += 100.0 if left else 0.5 * len(images)
    return np.eye(4)[images[:, 0, 0, 0]]

  def classes(logits):
    return np.where(logits.argmax(-1) == 3, -1, logits.argmax(-1))

  public = types.SimpleNamespace(classes=classes, normalise=lambda images: images / 1.0)
  model = types.SimpleNamespace(run=run, logits=run, public=public)
  network = types.SimpleNamespace(
    apply=lambda variables, x, approximation: jax.nn.one_hot(x[:, 0, 0, 0] % 2, 4)
  )
  labels, told = np.full(count, 2), []
  found = test_sets.score(
    model, network, {}, (), pixels, labels, report=lambda *arguments: told.append(arguments)
  )
  assert found == test_sets.Scores(
    images=count,
    float_correct=0,
    correct=int((first == 2).sum()),
    agreement=int((first < 2).sum()),
    left=int(leaves.sum()),
    distrusted=int((first == 3).sum()),
    missed=int((leaves & (first != 3)).sum()),
    truncation_failure=0.5,
  )
  assert told == [(50, count, {}), (100, count, {}), (120, count, {})]


def test_a_network_is_scored_as_its_report_says():
  model = models.calibrated()
  public = model.public
  network = types.SimpleNamespace(
    apply=lambda variables, x, approximation: jax.nn.one_hot(jnp.zeros(len(x), int), 3)
  )
  labels = np.arange(7) % 3
  found = test_sets.score(model, network, {}, (), IMAGES, labels)
  classes = public.classes(public.decode(model.run(IMAGES)))
  assert (found.correct, found.agreement) == ((classes == labels).sum(), (classes == 0).sum())
  assert (found.left, found.distrusted, found.missed, found.float_correct) == (0, 0, 0, 3)
  assert 0 < found.truncation_failure < 1e-3

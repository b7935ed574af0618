"""Batches on the device: normalised, augmented and ordered fairly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax import data

IMAGES = np.random.default_rng(0).integers(1, 256, (40, 6, 5, 3), np.uint8)


def crops(image, padding):
  """All mirrored and shifted versions of one image, as {bytes: (mirrored, dy, dx)}."""
  height, width, _ = image.shape
  found = {}
  for mirrored in (False, True):
    padded = np.pad(
      image[:, ::-1] if mirrored else image,
      ((padding, padding), (padding, padding), (0, 0)),
      mode='reflect',
    )
    for dy in range(2 * padding + 1):
      for dx in range(2 * padding + 1):
        found[padded[dy : dy + height, dx : dx + width].tobytes()] = mirrored, dy, dx
  return found


def test_normalise_is_the_formula_per_channel():
  mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
  result = jax.jit(lambda images: data.normalise(images, mean, std))(IMAGES)
  assert result.dtype == jnp.float32
  np.testing.assert_allclose(result, (IMAGES / 255 - mean) / std, atol=1e-6)


def test_normalised_training_images_have_mean_zero_and_deviation_one():
  loaded = data.load('fashion_mnist')
  result = np.asarray(data.normalise(jnp.asarray(loaded.train.images), loaded.mean, loaded.std))
  np.testing.assert_allclose([result.mean(dtype=float), result.std(dtype=float)], [0, 1], atol=1e-5)


@pytest.mark.parametrize(
  'images, mean, std',
  [
    (IMAGES.astype(np.float32), (0.5,) * 3, (1.0,) * 3),
    (IMAGES, (0.5,), (1.0,)),
    (IMAGES, (0.5,) * 3, (1.0,)),
    (IMAGES, (0.5,), (1.0,) * 3),
  ],
)
def test_normalise_refuses_other_types_and_channels(images, mean, std):
  with pytest.raises(ValueError, match='want uint8'):
    data.normalise(jnp.asarray(images), mean, std)


def test_augment_yields_every_mirrored_shift_and_nothing_else():
  step = jax.jit(lambda key: data.augment(key, jnp.asarray(IMAGES), padding=1))
  allowed = [crops(image, 1) for image in IMAGES]
  seen = []
  for seed in range(50):
    batch = step(jax.random.key(seed))
    assert batch.dtype == jnp.uint8 and batch.shape == IMAGES.shape
    seen.append([allowed[i][np.asarray(image).tobytes()] for i, image in enumerate(batch)])
  # 2,000 draws of 18 outcomes, 111 expected of each, deviation 10.
  kinds, counts = np.unique(np.reshape(seen, (-1, 3)), axis=0, return_counts=True)
  assert len(kinds) == 18 and counts.min() > 70 and counts.max() < 155
  # Images of one batch are augmented apart from one another.
  assert all(len(set(batch)) > 9 for batch in seen)


def test_augment_without_flip_or_padding_keeps_what_it_is_told():
  key = jax.random.key(1)
  images = jnp.asarray(IMAGES)
  np.testing.assert_array_equal(data.augment(key, images, flip=False, padding=0), IMAGES)
  shifted = data.augment(key, images, flip=False, padding=1)
  assert not any(
    crops(image, 1)[np.asarray(result).tobytes()][0] for image, result in zip(IMAGES, shifted)
  )
  mirrored = np.asarray(data.augment(key, images, padding=0))
  for image, result in zip(IMAGES, mirrored):
    assert (result == image).all() or (result == image[:, ::-1]).all()
  assert (mirrored != IMAGES).any()


def test_augment_keeps_the_border_of_the_images():
  # A grey image stays as it is: no shift brings another colour in.
  grey = jnp.full((8, 6, 5, 3), 100, jnp.uint8)
  np.testing.assert_array_equal(data.augment(jax.random.key(0), grey), grey)


def test_augment_refuses_a_shift_beyond_the_image():
  with pytest.raises(ValueError, match='padding 5, want less than both sides of 6 x 5'):
    data.augment(jax.random.key(0), jnp.asarray(IMAGES), padding=5)


def test_augment_is_the_same_inside_scan_and_for_a_population():
  keys = jax.random.split(jax.random.key(2), 3)
  images = jnp.asarray(IMAGES)
  alone = np.stack([data.augment(key, images) for key in keys])
  _, scanned = jax.jit(
    lambda keys: jax.lax.scan(lambda carry, key: (carry, data.augment(key, images)), 0, keys)
  )(keys)
  np.testing.assert_array_equal(scanned, alone)
  np.testing.assert_array_equal(jax.vmap(data.augment, (0, None))(keys, images), alone)


def test_an_epoch_visits_every_image_at_most_once():
  order = data.epoch_order(jax.random.key(5), 103, 10)
  assert order.shape == (10, 10) and order.dtype == jnp.int32
  assert len(set(order.reshape(-1).tolist())) == 100
  assert order.min() >= 0 and order.max() < 103
  assert not np.array_equal(order, data.epoch_order(jax.random.key(6), 103, 10))
  # Which images sit out is drawn anew: 3 of 103, so 60 epochs leave out about 86.
  left_out = set()
  for seed in range(60):
    seen = data.epoch_order(jax.random.key(seed), 103, 10).reshape(-1).tolist()
    left_out |= set(range(103)).difference(seen)
  assert len(left_out) > 70


@pytest.mark.parametrize('batch_size', [0, -1, 11])
def test_batches_that_no_epoch_holds_are_refused(batch_size):
  with pytest.raises(ValueError, match='want 1 to 10'):
    data.epoch_order(jax.random.key(0), 10, batch_size)


def test_types_do_not_change_where_64_bits_are_enabled():
  with jax.enable_x64(True):
    images = jnp.asarray(IMAGES)
    assert data.epoch_order(jax.random.key(0), 10, 3).dtype == jnp.int32
    assert data.normalise(images, (0.5,) * 3, (1.0,) * 3).dtype == jnp.float32
    assert data.augment(jax.random.key(0), images).dtype == jnp.uint8

"""Imported networks are planned and fine-tuned: with branches, and with and without batch norm."""

import dataclasses
import pathlib

import jax
import numpy as np

import safenet_jax as safenet

TRAINING = safenet.Training(batch_size=16, augment=False, recalibration_batches=2)
FOLDER = pathlib.Path(__file__).parents[1] / 'data' / 'onnx'


def dataset(shape, classes=5):
  """Random images, of which the mean says the class."""
  random = np.random.default_rng(0)
  labels = np.arange(96, dtype=np.int32) % classes
  noise = random.integers(0, 60, (96, *shape))
  images = (noise + labels[:, None, None, None] * 40).astype(np.uint8)
  parts = [safenet.Split(images[a:b], labels[a:b]) for a, b in ((0, 64), (64, 80), (80, 96))]
  return safenet.Dataset('noise', *parts, classes, (0.5,) * shape[2], (0.3,) * shape[2], ())


def test_without_batch_norm_a_plan_is_trained_and_an_average_kept():
  network, variables = safenet.from_onnx(FOLDER / 'fire.onnx')
  assert 'batch_stats' not in variables
  plan = safenet.make_plan((0.5,) * 5, (2, 3, 0, 2, 2))
  options = dataclasses.replace(TRAINING, distillation=0.5, ema=0.9)
  images = dataset(network.input_shape)
  found = safenet.finetune(network, variables, plan, images, epochs=1, training=options)
  assert 0.3 < found.replaced < 0.7
  for name, before in variables['params'].items():
    after = found.variables['params'][name]['kernel']
    assert np.isfinite(after).all() and not np.array_equal(after, before['kernel']), name


def test_a_network_of_branches_and_batch_norm_is_kept_and_planned():
  network, variables = safenet.from_onnx(FOLDER / 'dense_block.onnx')
  images = dataset(network.input_shape)
  kept = safenet.train(network, images, start=variables, epochs=0, training=TRAINING)
  jax.tree.map(np.testing.assert_array_equal, kept.variables, variables)
  found = safenet.search_plan(
    network,
    variables,
    images,
    algorithm='gates',
    accuracy_drop=1.0,
    population=1,
    iterations=2,
    node_cycles=1,
    joint_cycles=1,
    validation_images=16,
    epochs=0,
    training=TRAINING,
  )
  assert 0 < found.replaced <= 1
  for leaf in jax.tree.leaves(found.variables):
    assert np.isfinite(leaf).all()

"""The public ResNet-32 in fixed point: its accuracy, and an image through the protocol."""

import os
import pathlib

import jax
import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.approximation import activation, importance, plans
from safenet_jax.crypto import randomness
from safenet_jax.models import architectures, weights
from safenet_jax.models import network as networks
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.simulation import simulator
from safenet_jax.quantization import quantize
from safenet_jax.transport import tls
from tests.support import party_processes


@pytest.fixture(scope='module')
def served():
  """Trained with the statistics of ImageNet; calibrated on training images."""
  for variable in ('SAFENET_DATA_DIR', 'SAFENET_WEIGHTS_DIR'):
    if not os.environ.get(variable):
      pytest.skip(f'{variable} is not set: no CIFAR-10 images or no public ResNet-32')
  with np.load(pathlib.Path(os.environ['SAFENET_WEIGHTS_DIR']) / 'resnet32_cifar10.npz') as arrays:
    converted = weights.convert_torch_resnet(arrays)
  net = architectures.resnet32()
  variables = weights.load_variables(net, converted)
  channels = networks.activation_channels(net)
  approximation = jax.tree.map(
    np.asarray,
    activation.approximate(
      plans.all_relu(len(channels)),
      importance.ranks(net, variables),
      activation.initial_coefficients(channels),
    ),
  )
  images = data.load('cifar10')
  model = quantize.quantize(
    net,
    variables,
    approximation,
    np.asarray(images.train.images[:64]),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
  )
  return model, (net, variables, approximation), images.test


# Of 500 images one is 0.2 points.
@pytest.mark.parametrize(
  'count, points', [(500, 0.4), pytest.param(10_000, 0.3, marks=pytest.mark.slow)]
)
def test_fixed_point_keeps_the_accuracy_and_nearly_all_classes(served, count, points):
  model, float_network, (images, labels) = served
  report = quantize.quantization_report(model, *float_network, images[:count], labels[:count])
  print(*report.lines(), sep='\n')
  assert report.ranges.images == count
  assert report.floating > 0.9 * count
  assert report.points_lost <= points
  assert report.agreement > 0.985 * count
  assert not any(report.ranges.exceeded.values())
  assert report.ranges.truncation_failure == 0  # there is no polynomial


def test_an_image_is_classified_in_private(served):
  model, _, (images, _) = served
  private = simulator.integers(model, images[:1], randomness.InsecureSeededRandomness(0))
  plain = model.run(images[:1])
  assert private.argmax() == plain.argmax()
  assert np.abs(private - plain).max() < 0.05 * np.abs(plain).max()


@pytest.mark.slow
def test_two_processes_classify_images_as_the_integer_model_does(served, tmp_path):
  model, _, (images, _) = served
  expected = model.logits(images[:2])
  with party_processes.serving(model, tmp_path) as (address, files):
    context = tls.client_context(files.certificate)
    with clients.Client(*address, context=context, timeout=300) as client:
      private = client.infer(images[:2])
  np.testing.assert_array_equal(private.argmax(-1), expected.argmax(-1))
  assert np.abs(private - expected).max() < 0.05 * np.abs(expected).max()

"""Two processes over TLS classify as the integer model does: real images, several clients."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.approximation import activation, importance, plans
from safenet_jax.models import architectures
from safenet_jax.models import network as networks
from safenet_jax.protocol.service import client as clients
from safenet_jax.quantization import quantize
from safenet_jax.transport import tls
from tests.support import models, party_processes
from tests.support import networks as small

# Squares and cubics beside ReLUs, a layer of squares alone, and one of ReLUs alone.
PLAN = [10, 10, 20, 0, 10, 10, 5], [2, 3, 2, 2, 2, 3, 2]


@pytest.fixture(scope='module')
def cifar():
  if not os.environ.get('SAFENET_DATA_DIR'):
    pytest.skip('SAFENET_DATA_DIR is not set: no CIFAR-10 images')
  return data.load('cifar10')


def cnn7(images, width):
  """CNN-7 with random weights, the batch statistics of real images, and a mixed plan."""
  net = architectures.cnn7(width=width)
  variables = net.init(jax.random.key(0))
  coefficients = activation.initial_coefficients(networks.activation_channels(net))
  approximation = activation.approximate(
    plans.from_twentieths(*PLAN),
    importance.ranks(net, variables),
    tuple(c.at[3].set(0.02) for c in coefficients),
  )
  some = np.asarray(images.train.images[:64])
  normal = jnp.asarray((some / 255 - images.mean) / images.std, jnp.float32)

  @jax.jit
  def update(variables):
    _, state = net.apply(variables, normal, approximation, train=True, mutable=['batch_stats'])
    return {'params': variables['params'], **state}

  for _ in range(40):
    variables = update(variables)
  model = quantize.quantize(net, variables, approximation, some, mean=images.mean, std=images.std)
  # Untrained, it would see one class in all images: what they have in common is taken away.
  last = model.linear['dense0']
  bias = last.bias - np.median(model.run(some), 0).round().astype(np.int64)
  return dataclasses.replace(
    model, linear=model.linear | {'dense0': dataclasses.replace(last, bias=bias)}
  )


def clear(model, images, count):
  """Images whose classes are clearest, and of several; their logits, and the least margin."""
  logits = model.logits(images)
  margins = np.sort(logits)[:, -1] - np.sort(logits)[:, -2]
  # An image that the formats do not hold has logits out of all proportion.
  size = np.abs(logits).max(-1)
  ordered = [i for i in np.argsort(-margins) if size[i] < 10 * np.median(size)]
  classes = logits.argmax(-1)
  first = {classes[i]: i for i in reversed(ordered)}  # the clearest of each class
  chosen = sorted(ordered, key=lambda i: (first[classes[i]] != i, -margins[i]))[:count]
  assert len({*classes[chosen]}) > 1
  return images[chosen], logits[chosen], margins[chosen].min()


def check(model, images, directory, **options):
  """A client here and a server in a process of its own agree with the integer model."""
  images, expected, margin = images
  with party_processes.serving(model, directory, **options) as (address, files):
    context = tls.client_context(files.certificate)
    with clients.Client(*address, context=context) as client:
      logits = client.infer(images)
      record = client.ledger.record()
  np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))
  assert np.abs(logits - expected).max() < margin / 2  # or it would have been luck
  # It was done in private: a round trip for every activation layer, or two and more.
  assert record['phases']['online']['rounds'] > len(model.public.activations)


@pytest.mark.parametrize('width', [0.125, pytest.param(1.0, marks=pytest.mark.slow)])
def test_cnn7_classifies_cifar_images_as_the_integer_model_does(cifar, tmp_path, width):
  model = cnn7(cifar, width)
  check(model, clear(model, np.asarray(cifar.test.images[:64]), 2), tmp_path)


@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'ot'])
def test_a_residual_network_classifies_as_the_integer_model_does(tmp_path, mode):
  net, variables = small.trained(small.NETWORKS['padded'])
  count = len(networks.activation_channels(net))
  plan = [10] * count, [(2, 3)[t % 2] for t in range(count)]
  model = small.quantised(net, variables, small.planned(net, variables, *plan), small.FINE)
  check(model, clear(model, small.IMAGES, 2), tmp_path, mode=mode)


def test_four_clients_at_once_each_in_its_process_get_their_own_predictions(tmp_path):
  model = models.calibrated()
  rng = np.random.default_rng(0)
  batches = rng.integers(0, 256, (4, 2, *model.public.input_shape), dtype=np.uint8)
  with (
    party_processes.serving(model, tmp_path) as (address, files),
    party_processes.started() as start,
  ):
    pipes = [
      start(party_processes.infer, address, files.certificate, batch)[1] for batch in batches
    ]
    found = [pipe.recv() for pipe in pipes]
  for batch, (_, logits) in zip(batches, found):
    expected = model.logits(batch)
    assert np.abs(logits - expected).max() < 0.05 < np.ptp(expected)

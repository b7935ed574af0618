import functools

import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.crypto.homomorphic import levelled
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.systems import cryptonets
from safenet_jax.systems.square_network import SquareNetwork
from tests.support import peers


def small():
  """A network whose logits fit one plaintext modulus, with every bias and weights of both signs."""
  conv, hidden = np.zeros((25, 1), np.int64), np.zeros((169, 2), np.int64)
  conv[[6, 12], 0] = 1, -1
  hidden[[40, 80, 120], 0], hidden[[0, 84, 168], 1] = 1, (1, -1, 1)
  output = np.array([[1, 0], [0, -1]])
  biases = np.array([-2]), np.array([5, -7])
  return SquareNetwork(conv, biases[0], hidden, biases[1], output, np.array([3, -100], object))


def test_private_logits_of_real_images_are_those_of_plaintext_integers():
  net = small()
  assert len(levelled.plain_moduli(net.bound)) == 1
  images = data.load('fashion_mnist').test.images[:100]
  randomness = SystemRandomness()
  with peers.channels(timeout=300) as (ours, theirs):
    found, _ = peers.both(
      functools.partial(cryptonets.client, ours, net.public, images, randomness),
      functools.partial(cryptonets.server, theirs, net, randomness),
    )
    record = ours.ledger.record()
  np.testing.assert_array_equal(found, net.run(images))
  assert len(np.unique(found.astype(np.int64))) > 20
  # Without interaction: the client speaks once, and is answered once.
  assert record['phases']['online']['rounds'] == 1
  sent = {row['layer'] for row in record['rows'] if row['phase'] == 'online' and row['bytes']}
  assert sent == {'images', 'logits'}


def test_more_images_than_slots_are_refused():
  images = np.zeros((levelled.DEGREE + 1, 28, 28, 1), np.uint8)
  with pytest.raises(ValueError, match='8193 images, want at most 8192: one in each slot'):
    cryptonets.client(None, small().public, images, SystemRandomness())

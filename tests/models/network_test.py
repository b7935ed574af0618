"""Layer records, shapes and the Flax network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.models import architectures
from safenet_jax.models import layers
from safenet_jax.models import network as networks


def test_cnn7_has_the_published_relu_counts():
  counts = networks.relu_counts(architectures.cnn7())
  assert counts == (65536, 65536, 16384, 16384, 4096, 4096, 1024)
  assert sum(counts) == 173_056
  early = networks.relu_counts(architectures.cnn7(pool_before_activation=True))
  assert early == (65536, 16384, 16384, 4096, 4096, 4096, 1024)


def test_shapes_follow_what_the_network_computes():
  net = architectures.cnn7(classes=5, width=0.25, input_shape=(12, 12, 1))
  variables = net.init(jax.random.key(0))
  _, state = net.apply(variables, jnp.zeros((2, 12, 12, 1)), mutable=['preactivations'])
  for shape in layers.shapes(net.layers, net.input_shape):
    if isinstance(shape.layer, layers.Activation):
      assert state['preactivations'][shape.name][0].shape == (2, *shape.output_shape)
  assert net.apply(variables, jnp.zeros((2, 12, 12, 1))).shape == (2, 5)


def test_macs_count_every_product():
  shapes = layers.shapes(
    (layers.Conv(8, kernel=3, stride=2), layers.Flatten(), layers.Dense(10)), (5, 5, 3)
  )
  assert [shape.macs for shape in shapes] == [3 * 3 * 8 * 9 * 3, 0, 72 * 10]


def test_batch_norm_normalises_by_the_batch_only_in_training():
  net = networks.Network((layers.Conv(4),), (6, 6, 2))
  variables = net.init(jax.random.key(0))
  images = 5 + 3 * jax.random.normal(jax.random.key(1), (8, 6, 6, 2))
  y, state = net.apply(variables, images, train=True, mutable=['batch_stats'])
  np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-4)
  np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-2)
  assert np.abs(state['batch_stats']['conv0_bn']['mean']).max() > 0.1
  assert np.abs(net.apply(variables, images).mean((0, 1, 2))).max() > 0.1


@pytest.mark.parametrize(
  'records, message',
  [
    ((layers.Dense(3),), 'Flatten'),
    ((layers.AveragePool(3),), 'divide'),
    ((layers.Flatten(), layers.Conv(3)), 'map'),
    (('conv',), 'unknown layer'),
  ],
)
def test_layers_that_do_not_fit_are_refused(records, message):
  with pytest.raises(ValueError, match=message):
    layers.shapes(records, (8, 8, 3))


def test_producers_name_the_layers_behind_each_activation():
  net = architectures.cnn7(pool_before_activation=True)
  assert layers.producers(net.layers) == tuple((f'conv{i}',) for i in range(7))


def test_unknown_networks_and_options_are_refused():
  with pytest.raises(ValueError, match='cnn7'):
    architectures.build('cnn8')
  with pytest.raises(ValueError, match='depth'):
    architectures.build('cnn7', depth=3)
  with pytest.raises(ValueError, match='width'):
    architectures.build('cnn7', width=0.001)

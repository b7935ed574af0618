"""Importance after additions and projections, and activations that have none."""

import jax
import numpy as np
import pytest

from safenet_jax.approximation import importance
from safenet_jax.models import layers
from safenet_jax.models import network as networks

BRANCH = (layers.Conv(6, stride=2), layers.Activation(), layers.Conv(6))


def found(*records):
  """Importance of every activation, and the L1 norms of the folded filters by name."""
  net = networks.Network(records, (8, 8, 3))
  variables = net.init(jax.random.key(0))
  keys = jax.random.split(jax.random.key(1), 99)
  for key, stats in zip(keys, variables['batch_stats'].values()):
    stats['var'] = jax.random.uniform(key, stats['var'].shape, minval=0.5, maxval=2)
  params, stats = variables['params'], variables['batch_stats']
  norms = {
    name: np.abs(params[name]['kernel']).sum((0, 1, 2))
    / np.sqrt(np.asarray(stats[f'{name}_bn']['var']) + 1e-5)
    for name in params
    if name.startswith('conv') and not name.endswith('_bn')
  }
  return importance.importance(net, variables), norms


def test_a_projection_adds_its_norm_to_that_of_the_branch():
  shortcut = (layers.Conv(6, kernel=1, stride=2),)
  values, norms = found(
    layers.Conv(4), layers.Activation(), layers.Residual(BRANCH, shortcut), layers.Activation()
  )
  for value, expected in zip(
    values, (norms['conv0'], norms['conv1'], norms['conv2'] + norms['conv3'])
  ):
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_a_shortcut_without_weights_adds_nothing():
  shortcut = (layers.PadShortcut(6, 2),)
  values, norms = found(
    layers.Conv(4), layers.Activation(), layers.Residual(BRANCH, shortcut), layers.Activation()
  )
  np.testing.assert_allclose(values[2], norms['conv2'], rtol=1e-5)


def test_a_batch_norm_of_its_own_gives_its_scale():
  net = networks.Network((layers.Conv(4), layers.BatchNorm(), layers.Activation()), (8, 8, 3))
  variables = net.init(jax.random.key(0))
  variables['params']['batch_norm0']['scale'] = np.asarray([-3.0, 1.0, 0.0, 2.0])
  (scales,) = importance.importance(net, variables)
  np.testing.assert_array_equal(scales, [3, 1, 0, 2])


def test_epsilon_is_that_of_the_layer():
  def norms(epsilon):
    net = networks.Network((layers.Conv(4, epsilon=epsilon), layers.Activation()), (8, 8, 3))
    return importance.importance(net, net.init(jax.random.key(0)))[0]

  np.testing.assert_allclose(norms(0.21) * np.sqrt(1.21), norms(1e-9), rtol=1e-5)


def test_activations_whose_channels_no_filter_makes_are_refused():
  with pytest.raises(ValueError, match='activation0 has 3 channels.*any linear layer'):
    found(layers.Activation(), layers.Conv(4))
  with pytest.raises(ValueError, match='activation0 has 256 channels.*conv0'):
    found(layers.Conv(4), layers.Flatten(), layers.Activation())

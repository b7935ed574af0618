"""Weights that a config names for training to start with."""

import jax
import numpy as np
import pytest

from experiments.configs import cnn7_fashion
from experiments.lib import from_config, imported
from safenet_jax.approximation import activation, planned_weights
from safenet_jax.models import network as networks


@pytest.fixture
def start(tmp_path):
  """Writes a planned network with so many channels of every layer replaced, and starts from it."""
  config = cnn7_fashion.get_config('smoke').unlock()
  net = from_config.network(config)
  variables = net.init(jax.random.key(3))

  def call(replaced):
    layers = [
      activation.Approximation(
        np.arange(channels) < replaced, np.int32(2), np.full(4, 0.25, np.float32), floor=0.0
      )
      for channels in networks.activation_channels(net)
    ]
    path = tmp_path / 'model.npz'
    np.savez(path, **planned_weights.flatten_planned(variables, layers))
    config.pretrain.weights = str(path)
    return variables, imported.start(config, net)

  return call


def test_training_starts_from_an_export_that_replaces_nothing(start):
  jax.tree.map(np.testing.assert_array_equal, *start(0))


def test_training_does_not_start_from_polynomials(start):
  with pytest.raises(
    ValueError, match='model.npz has polynomials, want the weights of an all-ReLU'
  ):
    start(1)

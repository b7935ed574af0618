"""A planned network as arrays, and back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.approximation import activation, importance, planned_weights, plans
from safenet_jax.models import layers
from safenet_jax.models import network as networks
from safenet_jax.quantization import quantize

NETWORK = networks.Network(
  (
    layers.Conv(6),
    layers.Activation(),
    layers.Conv(4),
    layers.Activation(),
    layers.Conv(4),
    layers.Activation(),
    layers.Flatten(),
    layers.Dense(3),
  ),
  (6, 6, 2),
)


@functools.cache
def initial():
  variables = jax.jit(NETWORK.init)(jax.random.key(0))
  return variables, importance.ranks(NETWORK, variables)


def planned(per_channel=False, **options):
  variables, ranks = initial()
  coefficients = activation.initial_coefficients((6, 4, 4), per_channel=per_channel)
  # A leading coefficient below its floor, which is not the one that is used.
  coefficients = tuple(c.at[..., 2].set(-0.1) for c in coefficients)
  plan = plans.from_twentieths([10, 15, 5], [2, 0, 3])
  return variables, activation.approximate(plan, ranks, coefficients, **options)


@pytest.mark.parametrize('per_channel', [False, True])
def test_a_saved_network_is_the_same_network(tmp_path, per_channel):
  variables, approximation = planned(per_channel, floor=0.05)
  arrays = planned_weights.flatten_planned(variables, approximation)
  np.savez(tmp_path / 'model.npz', **arrays)
  with np.load(tmp_path / 'model.npz') as found:
    loaded = planned_weights.load_planned(NETWORK, found)
  images = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 2), np.uint8)
  normal = images / 255 - 0.5
  np.testing.assert_array_equal(
    NETWORK.apply(loaded[0], normal, loaded[1]),
    NETWORK.apply(variables, normal, approximation),
  )
  models = [
    quantize.quantize(NETWORK, *network, images, mean=(0.5, 0.5), std=(1.0, 1.0))
    for network in ((variables, approximation), loaded)
  ]
  np.testing.assert_array_equal(models[0].run(images), models[1].run(images))


@pytest.mark.parametrize(
  'name, value, message',
  [
    ('activation1/mask', None, 'missing activation1/mask'),
    ('activation0/mask', np.zeros(5, bool), r'activation0/mask bool \(5,\), want bool \(6,\)'),
    ('activation0/mask', np.zeros(6), 'activation0/mask float64'),
    ('activation2/degree', np.int32(1), 'activation2/degree 1, want one of'),
    ('activation0/coefficients', np.zeros(3), r'of shape \(3,\), want finite \(4,\)'),
    ('activation0/coefficients', np.full(4, np.nan), 'want finite'),
    ('conv0/kernel', None, 'missing conv0/kernel'),
    ('conv9/kernel', np.zeros(3), 'unknown conv9/kernel'),
  ],
)
def test_arrays_of_another_network_are_named(name, value, message):
  arrays = planned_weights.flatten_planned(*planned())
  arrays[name] = value
  arrays = {name: array for name, array in arrays.items() if array is not None}
  with pytest.raises(ValueError, match=message):
    planned_weights.load_planned(NETWORK, arrays)


def test_a_network_with_relu_still_mixed_in_is_not_saved():
  with pytest.raises(ValueError, match='activation0 has blend 0.5, want 0'):
    planned_weights.flatten_planned(*planned(blend=jnp.float32(0.5)))

"""Trains the network of CryptoNets as floats, and makes it integers.

Weights are rounded to signed integers, the largest of a layer to `LARGEST`. So every value of the
integer network is a multiple of the float network's, up to rounding, and the largest logit is the
same class.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from safenet_jax import data
from safenet_jax.systems import fitting, square_network
from safenet_jax.systems.square_network import SquareNetwork

LARGEST = 15


def initial(key: jax.Array, maps: int, units: int, classes: int) -> dict[str, jax.Array]:
  """Parameters of a float network; the key is consumed."""
  sizes = {
    'conv': (square_network.KERNEL**2, maps),
    'hidden': (square_network.MAP**2 * maps, units),
    'output': (units, classes),
  }
  keys = jax.random.split(key, len(sizes))
  found = {}
  for (name, shape), key_layer in zip(sizes.items(), keys):
    found[name] = jax.random.normal(key_layer, shape) / np.sqrt(shape[0])
    found[f'{name}_bias'] = jnp.zeros(shape[1])
  return found


def forward(parameters: dict[str, jax.Array], images: jax.Array) -> jax.Array:
  """Logits float [B, 10] of images uint8 [B, 28, 28, 1]."""
  inputs = (images >> 4).reshape(len(images), -1).astype(jnp.float32) / square_network.PIXEL
  inputs = jnp.pad(inputs, ((0, 0), (0, 1)))
  value = inputs[:, square_network.PATCHES] @ parameters['conv'] + parameters['conv_bias']
  value = (value**2).reshape(len(images), -1) @ parameters['hidden'] + parameters['hidden_bias']
  return value**2 @ parameters['output'] + parameters['output_bias']


def train(
  images: data.Dataset, *, maps: int = 5, units: int = 100, epochs: int = 20, seed: int = 0
) -> SquareNetwork:
  """Trains the paper's network, or one with fewer maps and units."""

  def loss(parameters, some, labels):
    logits = forward(parameters, some)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  start = initial(jax.random.key(seed), maps, units, images.classes)
  trained = fitting.fit(loss, start, images.train, epochs=epochs, seed=seed)
  return quantized({name: np.asarray(value, np.float64) for name, value in trained.items()})


def quantized(parameters: dict[str, np.ndarray]) -> SquareNetwork:
  """The integer network of float parameters."""

  def scale(weights):
    return LARGEST / np.abs(weights).max()

  whole = functools.partial(_rounded, parameters)
  unit = scale(parameters['conv']) * square_network.PIXEL
  conv = whole('conv', scale(parameters['conv']), unit)
  unit = unit**2 * scale(parameters['hidden'])
  hidden = whole('hidden', scale(parameters['hidden']), unit)
  unit = unit**2 * scale(parameters['output'])
  output = whole('output', scale(parameters['output']), unit)
  exact = np.array([int(value) for value in output[1]], object)
  return SquareNetwork(*_integers(*conv), *_integers(*hidden), output[0].astype(np.int64), exact)


def _rounded(parameters, name: str, weights: float, bias: float) -> tuple[np.ndarray, np.ndarray]:
  return np.rint(parameters[name] * weights), np.rint(parameters[f'{name}_bias'] * bias)


def _integers(weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  return weights.astype(np.int64), bias.astype(np.int64)

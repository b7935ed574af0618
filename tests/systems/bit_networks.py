"""Small networks of bits with random secrets, and their layers by hand."""

import numpy as np

from safenet_jax.systems.bit_network import BitNetwork, Pool, Secret, Sums, Window


def network(*, sparse=False, seed=0):
  """Every kind of layer on images [8, 8, 2]; if sparse, one with 20 of 45 weights."""
  random = np.random.default_rng(seed)
  positions = None
  if sparse:
    positions = np.sort([random.permutation(45)[:20] for _ in range(6)])
  layers = (
    Sums(Window(8, 8, 2, 3, 1, 1), 5),
    Sums(Window(8, 8, 5, 3, 1, 1), 6, positions),
    Pool(8, 8, 6),
    Sums(Window(4, 4, 6, 3, 2, 1), 3),
    Sums(Window(2, 2, 3), 4),
  )
  return with_secrets(layers, random)


def with_secrets(layers, random):
  """Random signs; thresholds that about half of the neurons reach."""
  secrets = []
  for number, layer in enumerate(layers):
    if isinstance(layer, Pool):
      secrets.append(None)
      continue
    if number == 0:
      limits = random.integers(-300, 300, layer.outputs)
    elif number == len(layers) - 1:
      limits = random.integers(0, 5, layer.outputs)
    else:
      limits = layer.inputs // 2 + random.integers(-1, 3, layer.outputs)
    signs = random.integers(0, 2, (layer.outputs, layer.inputs)).astype(np.uint8)
    secrets.append(Secret(signs, limits))
  return BitNetwork(layers, tuple(secrets))


def images(count, seed=1, shape=(8, 8, 2)):
  return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)

"""Small fixed-point models, made without training."""

import functools

import jax
import numpy as np

from safenet_jax.approximation import activation as activation_
from safenet_jax.approximation import importance
from safenet_jax.approximation import plan as plans
from safenet_jax.crypto import ring
from safenet_jax.models import layers
from safenet_jax.models import network
from safenet_jax.protocol import formats
from safenet_jax.protocol import quantize


def activation(relu, polynomial, degree, map_shape, window=1):
  """A format whose bits fit."""
  return formats.ActivationFormat(
      relu=relu, polynomial=polynomial, degree=degree, map_shape=map_shape, window=window,
      input_fraction=15, sign_bits=24, select_bits=28, shift=5 if polynomial else 0,
      modulus=ring.PRIME_41 if polynomial else 0, value_fraction=20 if polynomial else 0,
      output_fraction=7,
  )


def model(seed=0, features=6):
  """A planned network whose weights alone depend on the seed."""
  rng = np.random.default_rng(seed)

  def linear(shape, stride=1):
    return formats.LinearWeights(
        rng.integers(-(1 << 14), 1 << 14, shape), rng.integers(-(1 << 30), 1 << 30, shape[-1]),
        stride, limb=int(rng.integers(8, 20)),
    )

  return formats.FixedPointModel(
      layers=(
          layers.Conv(features, batch_norm=False), layers.Activation(), layers.AveragePool(2),
          layers.Conv(4, stride=2, batch_norm=False), layers.Activation(), layers.Flatten(),
          layers.Dense(3),
      ),
      input_shape=(8, 8, 2), mean=(0.5, 0.25), std=(0.3, 0.2), precision=formats.Precision(),
      activations={
          'activation0': activation(4, features - 4, 2, (8, 8), window=2),
          'activation1': activation(4, 0, 0, (2, 2)),
      },
      linear={
          'conv0': linear((3, 3, 2, features)), 'conv1': linear((3, 3, features, 4), stride=2),
          'dense0': linear((16, 3)),
      },
      polynomials={
          'activation0': rng.integers(-(1 << 40), 1 << 40, (3, features - 4)),
      },
      absorbed=frozenset({'average_pool0'}), input_fraction=7, output_fraction=12,
  )


@functools.cache
def calibrated():
  """A small planned network whose values fit its formats: half squares, then ReLUs."""
  net = network.Network(
      (
          layers.Conv(6), layers.Activation(), layers.AveragePool(2),
          layers.Conv(4, stride=2), layers.Activation(), layers.Flatten(), layers.Dense(3),
      ),
      input_shape=(8, 8, 2),
  )
  variables = net.init(jax.random.key(0))
  approximation = activation_.approximate(
      plans.make([10, 0], [2, 2]), importance.ranks(net, variables),
      activation_.initial_coefficients((6, 4)),
  )
  images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 2), dtype=np.uint8)
  return quantize.quantize(
      net, variables, approximation, images, mean=(0.5, 0.5), std=(0.3, 0.3)
  )

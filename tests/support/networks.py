"""Small random networks of every kind of record, planned and quantised."""

import functools

import jax
import numpy as np

from safenet_jax.approximation import activation, importance, plans
from safenet_jax.fixed_point import formats
from safenet_jax.models import network as networks
from safenet_jax.models.layers import (
  Activation,
  AveragePool,
  BatchNorm,
  Concat,
  Conv,
  Dense,
  Flatten,
  MaxPool,
  PadShortcut,
  Residual,
)
from safenet_jax.quantization import quantize

SHAPE = (8, 8, 2)
STATISTICS = {'mean': (0.5, 0.4), 'std': (0.3, 0.25)}
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
FINE = formats.Precision(activation=10, weight=11, square=11, cubic=9)

ACT, END = Activation(), (AveragePool(None), Flatten(), Dense(4))
NETWORKS = {
  # As ResNet-32: pads and strides, the activation after the addition.
  'padded': (
    Conv(6),
    ACT,
    Residual((Conv(6), ACT, Conv(6))),
    ACT,
    Residual((Conv(9, stride=2), ACT, Conv(9)), (PadShortcut(9, 2),)),
    ACT,
    *END,
  ),
  # As ResNet-18: projections, here with a pool after the addition.
  'projected': (
    Conv(6),
    ACT,
    Residual((Conv(8, stride=2), ACT, Conv(8)), (Conv(8, kernel=1, stride=2),)),
    ACT,
    AveragePool(2),
    Residual((Conv(8),)),
    ACT,
    *END,
  ),
  # The sum goes on beside the activation that reads it.
  'pre-activation': (
    Conv(6),
    Residual((ACT, Conv(6), ACT, Conv(6))),
    Residual((ACT, Conv(9, stride=2), ACT, Conv(9)), (PadShortcut(9, 2),)),
    ACT,
    *END,
  ),
  # A pool in a shortcut comes after an activation in the branch, but not of it.
  'nested': (
    Conv(4),
    ACT,
    Residual(
      (Conv(4), Residual((Conv(4), ACT)), AveragePool(2), Conv(6), ACT),
      (AveragePool(2), PadShortcut(6)),
    ),
    ACT,
    Conv(4, batch_norm=False),
    ACT,
    *END,
  ),
}
# What other people's networks have: see `tests/protocol/delphi/linear_chains_test.py`.
CHAINS = {
  # As MobileNetV1.
  'depthwise': (
    Conv(6, batch_norm=False),
    ACT,
    Conv(6, groups=6),
    ACT,
    Conv(8, 1, epsilon=1e-3),
    ACT,
    Conv(8, stride=2, groups=8, padding=((0, 1), (0, 1))),
    ACT,
    *END,
  ),
  # As MobileNetV2: blocks end in a convolution, and sums of those are read by another one.
  'bottleneck': (
    Conv(4),
    ACT,
    Conv(3, 1),
    Residual((Conv(6, 1), ACT, Conv(6, groups=6), ACT, Conv(3, 1))),
    Conv(6, 1),
    ACT,
    *END,
  ),
  'stem': (Conv(4), Residual((Conv(4), ACT, Conv(4, batch_norm=False))), ACT, *END),
  'pre-activation': (
    Conv(4, batch_norm=False),
    Residual((BatchNorm(1e-3), ACT, Conv(4), ACT, Conv(4, batch_norm=False))),
    BatchNorm(),
    ACT,
    *END,
  ),
  'grouped': (
    Conv(6),
    ACT,
    Conv(6, groups=2, dilation=2),
    ACT,
    Conv(9, groups=3, padding=((1, 1), (2, 0))),
    ACT,
    *END,
  ),
}
# As VGG-16: pools directly behind activations.
VGG = (
  Conv(5),
  ACT,
  MaxPool(),
  Conv(6),
  ACT,
  Conv(6),
  ACT,
  MaxPool(),
  Flatten(),
  Dense(8, batch_norm=True),
  ACT,
  Dense(4),
)


_AROUND = ((1, 1), (1, 1))
# What other people's networks have. The maxima behind mixed channels are a layer of their own.
OTHERS = {
  # As SqueezeNet: overlapping maxima, Fire modules, logits that are means of 49 values.
  'fire': (
    Conv(5, stride=1, batch_norm=False),
    ACT,
    MaxPool(3, 1, ((1, 0), (1, 0))),
    Conv(3, 1, batch_norm=False),
    ACT,
    Concat(((Conv(3, 1, batch_norm=False), ACT), (Conv(3, batch_norm=False), ACT))),
    Conv(4, 1, batch_norm=False),
    ACT,
    AveragePool(None),
    Flatten(),
  ),
  # As Inception: a max pool of a concatenation, and means with other divisors at the border.
  'inception': (
    Conv(4),
    ACT,
    Concat(
      (
        (Conv(3, 1), ACT),
        (MaxPool(3, 1, _AROUND), Conv(2, 1), ACT),
        (AveragePool(3, 1, _AROUND, count_padding=False), Conv(2, 1), ACT),
      )
    ),
    MaxPool(3, 2),
    Conv(4),
    ACT,
    *END,
  ),
  # As MobileNetV2 and YOLO, with a mean of 9 values whose factor meets others.
  'limits': (
    Conv(5),
    Activation(limit=6),
    Conv(5),
    Activation(slope=0.1),
    Residual((Conv(5), Activation(limit=1.5, slope=0.125)), (AveragePool(3, 1, _AROUND),)),
    Conv(4),
    AveragePool(3, 2),
    ACT,
    Flatten(),
    Dense(4),
  ),
  # As DenseNet: every layer reads all channels before it.
  'dense': (
    Conv(4),
    Concat(((), (BatchNorm(), ACT, Conv(3, batch_norm=False)))),
    Concat(((), (BatchNorm(), ACT, Conv(2, batch_norm=False)))),
    BatchNorm(),
    ACT,
    Conv(4, 1, batch_norm=False),
    AveragePool(2),
    BatchNorm(),
    ACT,
    *END,
  ),
  # A ReLU that may be taken before its max pool, and a concatenation that an activation reads.
  'swapped': (
    Conv(4),
    MaxPool(3, 2, _AROUND),
    ACT,
    Concat(((), (Conv(3), ACT))),
    ACT,
    Conv(4),
    ACT,
    Concat(((Flatten(),), (AveragePool(2), Flatten()))),
    Dense(4),
  ),
}


@functools.cache
def trained(layers, seed=0):
  """A network with random batch statistics."""
  net = networks.Network(layers, SHAPE)
  variables = jax.jit(net.init)(jax.random.key(seed))
  rng = np.random.default_rng(seed)

  def perturbed(path, x):
    kind = path[-1].key
    x = np.asarray(x)
    if kind in ('scale', 'var'):
      return x * rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
    if kind in ('bias', 'mean'):
      return rng.normal(0, 0.2, x.shape).astype(np.float32)
    return x

  return net, jax.tree_util.tree_map_with_path(perturbed, variables)


@functools.cache
def floating(net):
  """The float network, compiled once for all plans."""
  return jax.jit(net.apply)


@functools.cache
def approximation(net):
  """The approximation of a plan with cubic terms, compiled once."""
  start = activation.initial_coefficients(networks.activation_channels(net))

  def approximate(plan, variables):
    ranks = importance.ranks(net, variables)
    return activation.approximate(plan, ranks, tuple(c.at[3].set(0.02) for c in start))

  return jax.jit(approximate)


def planned(net, variables, ratios, degrees):
  return approximation(net)(plans.from_twentieths(ratios, degrees), variables)


def quantised(net, variables, approximation, precision=None):
  return quantize.quantize(net, variables, approximation, IMAGES, **STATISTICS, precision=precision)


def normal(images):
  values = (images / 255 - np.asarray(STATISTICS['mean'])) / np.asarray(STATISTICS['std'])
  return values.astype(np.float32)

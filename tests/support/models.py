"""Small fixed-point models, made without training."""

import dataclasses
import functools

import jax
import numpy as np

from safenet_jax.approximation import activation as activation_
from safenet_jax.approximation import importance, plans
from safenet_jax.crypto import ring
from safenet_jax.fixed_point import formats
from safenet_jax.fixed_point.model import FixedPointModel, LinearWeights, PublicModel
from safenet_jax.models import layers, network
from safenet_jax.quantization import quantize


def activation(relu, polynomial, degree, map_shape, pool=None):
  """A format whose bits fit."""
  return formats.ActivationFormat(
    relu=relu,
    polynomial=polynomial,
    degree=degree,
    map_shape=map_shape,
    input_fraction=15,
    sign_bits=24,
    select_bits=28,
    shift=5 if polynomial else 0,
    modulus=ring.PRIME_41 if polynomial else 0,
    value_fraction=20 if polynomial else 0,
    output_fraction=7,
    pool=pool,
  )


def model(seed=0, features=6):
  """A planned network whose weights alone depend on the seed."""
  rng = np.random.default_rng(seed)

  def linear(shape):
    return LinearWeights(
      rng.integers(-(1 << 14), 1 << 14, shape),
      rng.integers(-(1 << 30), 1 << 30, shape[-1]),
      limb=int(rng.integers(8, 20)),
    )

  public = PublicModel(
    layers=(
      layers.Conv(features, batch_norm=False),
      layers.Activation(),
      layers.AveragePool(2),
      layers.Conv(4, stride=2, batch_norm=False),
      layers.Activation(),
      layers.Flatten(),
      layers.Dense(3),
    ),
    input_shape=(8, 8, 2),
    mean=(0.5, 0.25),
    std=(0.3, 0.2),
    precision=formats.Precision(),
    activations={
      'activation0': activation(4, features - 4, 2, (8, 8), layers.AveragePool(2)),
      'activation1': activation(4, 0, 0, (2, 2)),
    },
    absorbed=frozenset({'average_pool0'}),
    input_fraction=7,
    output_fraction=12.0,
  )
  weights = {
    'conv0': linear((3, 3, 2, features)),
    'conv1': linear((3, 3, features, 4)),
    'dense0': linear((16, 3)),
  }
  coefficients = rng.integers(-(1 << 40), 1 << 40, (3, features - 4))
  return FixedPointModel(public, weights, {'activation0': coefficients})


def altered(model, **changes):
  """A model with other public fields and the same weights."""
  return dataclasses.replace(model, public=dataclasses.replace(model.public, **changes))


def cubic(seed=0):
  """As `model`, with cubics in the place of the squares: three products for each value."""
  plain = model(seed)
  form = dataclasses.replace(
    plain.public.activations['activation0'], degree=3, modulus=ring.PRIME_50, shift=7
  )
  coefficients = np.concatenate([plain.polynomials['activation0'][:1]] * 4)
  return altered(
    dataclasses.replace(plain, polynomials={'activation0': coefficients}),
    activations=plain.public.activations | {'activation0': form},
  )


def chained(seed=0):
  """As `model`, with a depthwise convolution that reads the first one's output, less 8 bits."""
  plain, rng = model(seed), np.random.default_rng(seed + 9)
  first, *rest = plain.public.layers
  depthwise = LinearWeights(
    rng.integers(-(1 << 10), 1 << 10, (3, 3, 1, first.features)),
    rng.integers(-(1 << 20), 1 << 20, first.features),
    limb=16,
  )
  names = {'conv0': 'conv0', 'conv1': 'conv2', 'dense0': 'dense0'}
  linear = {names[name]: weights for name, weights in plain.linear.items()}
  added = layers.Conv(first.features, groups=first.features, batch_norm=False)
  return altered(
    dataclasses.replace(plain, linear=linear | {'conv1': depthwise}),
    layers=(first, layers.Truncate(8), added, *rest),
  )


def zeroed(model):
  """The same formats, and no weights, biases or coefficients."""
  return dataclasses.replace(
    model,
    linear={
      name: dataclasses.replace(w, kernel=0 * w.kernel, bias=0 * w.bias)
      for name, w in model.linear.items()
    },
    polynomials={name: 0 * c for name, c in model.polynomials.items()},
  )


def pooled(seed=0):
  """As `model`, with maxima of the first activation layer's channels, all of them garbled."""
  plain = model(seed)
  found = list(plain.public.layers)
  found[2] = layers.MaxPool(2)
  form = dataclasses.replace(activation(6, 0, 0, (8, 8), layers.MaxPool(2)), select_bits=24 - 8 + 1)
  return altered(
    dataclasses.replace(plain, polynomials={}),
    layers=tuple(found),
    activations=plain.public.activations | {'activation0': form},
    absorbed=frozenset({'max_pool0'}),
  )


def others(seed=0):
  """As `model`, with a limit, and maxima of windows that overlap as a layer of their own."""
  plain = model(seed)
  found = list(plain.public.layers)
  found[1:3] = layers.Activation(limit=6.0), layers.MaxPool(3, 2, ((1, 1), (1, 1)))
  limited = dataclasses.replace(activation(6, 0, 0, (8, 8)), limit=6 << 15)
  maxima = dataclasses.replace(
    activation(6, 0, 0, (8, 8), found[2]),
    input_fraction=7,
    sign_bits=14,
    select_bits=15,
    rectified=False,
  )
  forms = {'activation0': limited, 'max_pool0': maxima}
  return altered(
    dataclasses.replace(plain, polynomials={}),
    layers=tuple(found),
    activations=plain.public.activations | forms,
    absorbed=frozenset(),
  )


def long_words():
  """As `pooled`, with sign tests that are too long for the mode ot."""
  plain = pooled()
  forms = plain.public.activations
  form = dataclasses.replace(forms['activation1'], input_fraction=7)
  return altered(plain, activations=forms | {'activation1': form})


@functools.cache
def calibrated():
  """A small planned network whose values fit its formats: half squares, then ReLUs."""
  return _calibrated(
    (
      layers.Conv(6),
      layers.Activation(),
      layers.AveragePool(2),
      layers.Conv(4, stride=2),
      layers.Activation(),
      layers.Flatten(),
      layers.Dense(3),
    ),
    (8, 8, 2),
    [10, 0],
  )


@functools.cache
def maxima():
  """As `calibrated`, with maxima of windows that overlap in the place of squares and means."""
  return _calibrated(
    (
      layers.Conv(3),
      layers.Activation(),
      layers.MaxPool(3, 2, ((1, 1), (1, 1))),
      layers.Conv(4),
      layers.Activation(),
      layers.Flatten(),
      layers.Dense(3),
    ),
    (8, 8, 2),
    [0, 0],
  )


@functools.cache
def coloured():
  """As `smallest`, of images with three colours."""
  return _calibrated(
    (layers.Conv(4), layers.Activation(), layers.Flatten(), layers.Dense(3)), (4, 4, 3), [10]
  )


@functools.cache
def smallest():
  """One activation layer of squares and ReLUs, for sessions of few messages."""
  return _calibrated(
    (layers.Conv(4), layers.Activation(), layers.Flatten(), layers.Dense(3)), (4, 4, 2), [10]
  )


def _calibrated(records, shape, ratios):
  net = network.Network(records, input_shape=shape)
  variables = net.init(jax.random.key(0))
  approximation = activation_.approximate(
    plans.from_twentieths(ratios, [2] * len(ratios)),
    importance.ranks(net, variables),
    activation_.initial_coefficients(network.activation_channels(net)),
  )
  images = np.random.default_rng(0).integers(0, 256, (64, *shape), dtype=np.uint8)
  mean, std = ((number,) * shape[-1] for number in (0.5, 0.3))
  return quantize.quantize(net, variables, approximation, images, mean=mean, std=std)

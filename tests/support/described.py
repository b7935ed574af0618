"""Public parts of models of any shape, and weights for them, without training or JAX."""

import dataclasses

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.fixed_point import formats
from safenet_jax.fixed_point.model import FixedPointModel, LinearWeights, PublicModel
from safenet_jax.models import layers as records
from safenet_jax.protocol.service.description import Description
from tests.support import models


def form(relu, polynomial, map_shape, degree=2, **changes):
  """The format of an activation; `changes` are fields that need not make sense."""
  found = models.activation(relu, polynomial, degree if polynomial else 0, map_shape)
  if degree == 3 and polynomial:
    found = dataclasses.replace(found, modulus=ring.PRIME_50)
  return dataclasses.replace(found, **changes)


def maxima(channels, map_shape, window, **changes):
  """The format of an activation with a max pool behind it."""
  plain = form(channels, 0, map_shape, pool=records.MaxPool(window), **changes)
  return dataclasses.replace(plain, select_bits=plain.sign_bits - plain.dropped + 1)


def public(layers, shape, activations=(), absorbed=(), **changes):
  """The public part of a model with these records, whether it makes sense or not."""
  channels = shape[-1]
  found = PublicModel(
    layers=tuple(layers),
    input_shape=shape,
    mean=(0.5,) * channels,
    std=(0.3,) * channels,
    precision=formats.Precision(),
    activations={f'activation{i}': each for i, each in enumerate(activations)},
    absorbed=frozenset(absorbed),
    input_fraction=7,
    output_fraction=12.0,
    logit_bits=24,
  )
  return dataclasses.replace(found, **changes)


def described(model, mode='delphi', outputs=('logits',), batch=1):
  """The description of a public part."""
  return Description(bytes(16), model, mode, outputs, batch)


def with_weights(model, seed=0):
  """A whole model with random weights."""
  rng = np.random.default_rng(seed)
  linear, polynomials = {}, {}
  for found in records.shapes(model.layers, model.input_shape):
    inputs, outputs = found.input_shape[-1], found.output_shape[-1]
    match found.layer:
      case records.Conv(kernel=side, groups=groups):
        kernel = rng.integers(-64, 64, (side, side, inputs // groups, outputs))
        linear[found.name] = LinearWeights(kernel, rng.integers(-9, 9, outputs), 8)
      case records.Dense():
        kernel = rng.integers(-64, 64, (inputs, outputs))
        linear[found.name] = LinearWeights(kernel, rng.integers(-9, 9, outputs), 8)
      case records.Activation() if model.activations[found.name].polynomial:
        own = model.activations[found.name]
        coefficients = rng.integers(1, 100, (own.degree + 1, own.polynomial))
        coefficients[2] = 1 if own.monic else coefficients[2]
        polynomials[found.name] = coefficients
  return FixedPointModel(model, linear, polynomials)

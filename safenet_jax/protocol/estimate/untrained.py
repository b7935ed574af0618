"""A planned network as it will be served, before anyone trains it.

Its weights are random, and normalised as batch norm does on images of noise. Its formats
have room for values of ten standard deviations, about as many as trained networks have.
So its shapes, sizes and numbers of operations are those of the network to come. A trained
network may differ in two things: a garbled layer may be a bit or two wider or narrower, and
other channels may be left at an addition whose readers prune some.
"""

import functools
import math

import jax
import numpy as np

from safenet_jax.approximation import activation, importance, plans
from safenet_jax.approximation.plans import Plan
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from safenet_jax.fixed_point import model as fixed_point
from safenet_jax.fixed_point.formats import Precision
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import weights
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.quantization import calibration, channel_order, quantize
from safenet_jax.quantization.statistics import Statistics

_IMAGES = 2
# How many standard deviations noise reaches. Trained networks reach ten and more, so that the
# margin is twice the usual one.
_NOISE = 5.0
_PRECISION = Precision(margin=2 * Precision().margin)


class _Normalised(Statistics):
  """Statistics that keep values near a standard deviation of 1, as training does.

  So they change the weights and the polynomials.
  """

  def __init__(self, folded, splits, layers):
    super().__init__(folded, splits)
    channels = channel_order.Channels(layers, splits)
    self._in_weights = {id(channels.folded(name)) for name in folded}

  def activation(self, name, layer, y):
    split = self._splits[name]
    if split.degree == 3 or (split.degree and id(split) not in self._in_weights):
      # Values grow with every addition of the network, and their powers would fit no field.
      powers = max(np.abs(y).max() / _NOISE, 1.0) ** np.arange(4)
      split.coefficients = split.coefficients / powers[:, None]
    return super().activation(name, layer, y)

  def _linear(self, name, layer, y):
    if layer.batch_norm:
      axes = tuple(range(y.ndim - 1))
      kernel, bias = self.folded[name]
      # Of one feature two images may have the same value: then all features say how far values go.
      mean, deviation = y.mean(axes), y.std(axes if y.ndim > 2 else None) + 1e-6
      self.folded[name] = kernel / deviation, (bias - mean) / deviation
      y = (y - mean) / deviation
    return super()._linear(name, layer, y)


def model(network: Network, plan: Plan) -> FixedPointModel:
  """A model with the formats and structure of `plan`, and weights that mean nothing.

  Raises:
    ValueError: the network cannot be served under this plan.
  """
  plans.check(plan, len(activation_channels(network)))
  variables = weights.untrained_variables(network)
  approximation = activation.approximate(
    plan,
    # Compiled as one: operation by operation a ResNet-50 takes five seconds.
    jax.jit(functools.partial(importance.ranks, network))(variables),
    activation.initial_coefficients(activation_channels(network)),
  )
  shape, channels = (_IMAGES, *network.input_shape), network.input_shape[-1]
  noise = InsecureSeededRandomness(0).words(-(-math.prod(shape) // 8)).view(np.uint8)
  layers, folded, splits = quantize.parts(network, variables, approximation)
  statistics = _Normalised(folded, splits, layers)
  mean, std = (0.5,) * channels, (0.3,) * channels
  images = noise[: math.prod(shape)].reshape(shape)
  statistics.add_images(layers, fixed_point.normalise(images, mean, std))
  found = calibration.Prepared(layers, network.input_shape, folded, splits, statistics)
  return quantize.build(calibration.Calibration(found, _PRECISION), mean=mean, std=std)

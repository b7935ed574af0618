"""A planned network as it will be served, before anyone trains it.

Its weights are random, and normalised as batch norm does on images of noise. Its formats
have room for values of ten standard deviations, about as many as trained networks have.
So its shapes, sizes and numbers of operations are those of the network to come. A trained
network may differ in two things: a garbled layer may be a bit or two wider or narrower, and
other channels may be left at an addition whose readers prune some.
"""

import math

import numpy as np

from safenet_jax.approximation import activation, importance, plans
from safenet_jax.approximation.plans import Plan
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from safenet_jax.fixed_point import calibration, quantize
from safenet_jax.fixed_point.formats import Precision
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import weights
from safenet_jax.models.network import activation_channels, Network

_IMAGES = 2
# How many standard deviations noise reaches. Trained networks reach ten and more, so that the
# margin is twice the usual one.
_NOISE = 5.0
_PRECISION = Precision(margin=2 * Precision().margin)


class _Normalised(calibration.Calibration):
  """Calibration that keeps values near a standard deviation of 1, as training does."""

  def activation(self, name, layer, value):
    split = self.split(name)
    if split.degree and not value.folded:
      # Values grow with every addition of the network, and their powers would fit no field.
      powers = max(np.abs(value.x).max() / _NOISE, 1.0) ** np.arange(4)
      split.coefficients = split.coefficients / powers[:, None]
    return super().activation(name, layer, value)

  def _scaled(self, layer, x, kernel, bias, apply):
    if not layer.batch_norm:
      return super()._scaled(layer, x, kernel, bias, apply)
    product = apply(x, kernel)
    axes = tuple(range(product.ndim - 1))
    deviation = product.std(axes) + 1e-6
    return kernel / deviation, -product.mean(axes) / deviation


def model(network: Network, plan: Plan) -> FixedPointModel:
  """A model with the formats and structure of `plan`, and weights that mean nothing.

  Raises:
    ValueError: the network cannot be served under this plan.
  """
  plans.check(plan, len(activation_channels(network)))
  variables = weights.untrained_variables(network)
  approximation = activation.approximate(
    plan,
    importance.ranks(network, variables),
    activation.initial_coefficients(activation_channels(network)),
  )
  shape, channels = (_IMAGES, *network.input_shape), network.input_shape[-1]
  noise = InsecureSeededRandomness(0).words(-(-math.prod(shape) // 8)).view(np.uint8)
  return quantize.build(
    network,
    _Normalised(network, variables, approximation, _PRECISION),
    noise[: math.prod(shape)].reshape(shape),
    mean=(0.5,) * channels,
    std=(0.3,) * channels,
  )

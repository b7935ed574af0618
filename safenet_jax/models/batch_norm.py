"""Batch normalisation whose gradient reads and writes its arrays few times.

On a CPU that is most of its time. Autodiff would write out x - mean and its products with the
cotangent. Here the gradient is two sums over (cotangent, x), and a sum of both with factors for
each channel.
"""

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp


class BatchNorm(nn.Module):
  """Normalises the channels of x [..., C]; the result has its type.

  Holds `scale` and `bias` [C] in `params`, and the moving `mean` and `var` [C] in `batch_stats`,
  as `flax.linen.BatchNorm` does.

  Attributes:
    train: normalise by the batch's statistics, and move the average towards them.
    momentum: the share of the moving average that stays.
    epsilon: added to the variance.
  """

  train: bool
  momentum: float
  epsilon: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    if not self.train:
      inverse = lax.rsqrt(var.value + self.epsilon)
      return _scaled(x, scale * inverse, bias - mean.value * scale * inverse)
    y, *batch = _normalised(x, scale, bias, self.epsilon)
    if not self.is_initializing():
      for average, value in zip((mean, var), batch):
        average.value = self.momentum * average.value + (1 - self.momentum) * value
    return y


def _scaled(x, factor, offset):
  return (x * factor + offset).astype(x.dtype)


def _normalised(x, scale, bias, epsilon):
  """x normalised by its own statistics, then its mean and variance, which have no gradient."""
  return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
  axes = tuple(range(x.ndim - 1))
  mean = jnp.mean(x, axes, jnp.float32)
  # Of the squares, so that both means need one pass; rounding may take it below zero.
  var = jnp.maximum(jnp.mean(lax.square(x.astype(jnp.float32)), axes) - lax.square(mean), 0)
  inverse = lax.rsqrt(var + epsilon)
  y = _scaled(x, scale * inverse, bias - mean * scale * inverse)
  return (y, mean, var), (x, scale, mean, inverse)


def _backward(epsilon, residuals, cotangents):
  del epsilon
  x, scale, mean, inverse = residuals
  dy = cotangents[0].astype(jnp.float32)
  axes = tuple(range(x.ndim - 1))
  d_bias = dy.sum(axes)
  d_scale = ((dy * x).sum(axes) - mean * d_bias) * inverse
  # With n values a channel and z = (x - mean) * inverse:
  # dx = scale * inverse * (dy - d_bias / n - z * d_scale / n).
  factor = scale * inverse
  of_x = -factor * inverse * d_scale * x.shape[-1] / x.size
  offset = -factor * d_bias * x.shape[-1] / x.size - of_x * mean
  return (dy * factor + (x * of_x + offset)).astype(x.dtype), d_scale, d_bias


_normalised = jax.custom_vjp(_normalised, nondiff_argnums=(3,))
_normalised.defvjp(_forward, _backward)

"""Trains MiniONN's network as floats, and makes it a served model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from safenet_jax import data
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import network as networks
from safenet_jax.quantization import quantize
from safenet_jax.systems import fitting, minionn

_CALIBRATION = 200


def train(
  images: data.Dataset,
  *,
  epochs: int = 8,
  seed: int = 0,
  report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> FixedPointModel:
  """Trains the network on images of 28 x 28 in grey; `report` as for `fitting.fit`."""
  net = networks.Network(minionn.LAYERS, minionn.SHAPE)
  mean, std = images.mean, images.std

  def loss(parameters, some, labels):
    normal = (some / 255.0 - jnp.asarray(mean)) / jnp.asarray(std)
    logits = net.apply({'params': parameters}, normal.astype(jnp.float32))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  start = net.init(jax.random.key(seed))['params']
  trained = fitting.fit(loss, start, images.train, epochs=epochs, seed=seed, report=report)
  some = np.asarray(images.train.images[:_CALIBRATION])
  return quantize.quantize(net, {'params': trained}, None, some, mean=mean, std=std)

"""A task of three activation layers that compiles in seconds."""

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax import data
from safenet_jax.approximation import importance
from safenet_jax.models.layers import Activation, AveragePool, Conv, Dense, Flatten
from safenet_jax.models.network import Network
from safenet_jax.search import members, pbt

LAYERS = 3


NETWORK = Network(
  (
    Conv(4),
    Activation(),
    AveragePool(4),
    Conv(8, kernel=1),
    Activation(),
    Flatten(),
    Dense(8),
    Activation(),
    Dense(3),
  ),
  (8, 8, 1),
)


def task(net=NETWORK, validation_images=16, **options):
  """The task and its untrained all-ReLU member: 8x8 images of three brightnesses."""
  variables = net.init(jax.random.key(0))
  training = members.Training(
    **(
      {'batch_size': 8, 'augment': False, 'evaluation_batch': 16, 'recalibration_batches': 1}
      | options
    )
  )
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 48 + validation_images)
  images = rng.normal(60 + 70 * labels[:, None, None, None], 20, (labels.size, 8, 8, 1))
  images = jnp.asarray(np.clip(images, 0, 255), jnp.uint8)
  labels = jnp.asarray(labels, jnp.int32)
  shared = members.Task(
    train=data.Split(images[:48], labels[:48]),
    validation=data.Split(images[48:], labels[48:]),
    channel_ranks=importance.ranks(net, variables),
    network=net,
    training=training,
    mean=(0.5,),
    std=(0.25,),
  )
  return shared, members.all_relu(variables, 0.01, net, training)


def evolution(**options):
  return pbt.Evolution(**({'population': 4, 'iterations': 2, 'threshold': 0.0} | options))

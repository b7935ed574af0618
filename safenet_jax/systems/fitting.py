"""Training that the systems share: a loss is minimised by AdamW with a cosine schedule."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from safenet_jax import data

Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]


def fit(
  loss: Loss,
  parameters: Any,
  split: data.Split,
  *,
  epochs: int,
  rate: float = 2e-3,
  decay: float = 1e-2,
  batch: int = 64,
  padding: int = 0,
  flip: bool = False,
  seed: int = 0,
  report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Any:
  """The parameters after so many epochs.

  Args:
    loss: of parameters, images uint8 [B, H, W, C] and labels [B].
    parameters: a pytree of arrays to start from.
    split: the training images.
    epochs: passes over them.
    rate, decay: the largest learning rate, and AdamW's weight decay.
    batch: images of a step.
    padding: the largest shift of an image in pixels, by `data.augment`; 0 is none.
    flip: also mirror at random.
    seed: of orders and augmentation.
    report: called after every epoch with its number and mean loss.
  """
  images, labels = (jax.numpy.asarray(part) for part in split)
  steps = epochs * (len(labels) // batch)
  schedule = optax.cosine_decay_schedule(rate, steps)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=decay))

  # Images are an argument: as constants of the compiled function they would take minutes.
  @jax.jit
  def epoch(state, images, labels, order):
    def step(state, chosen):
      parameters, moments, key = state
      key, key_augment = jax.random.split(key)
      some = images[chosen]
      if padding or flip:
        some = data.augment(key_augment, some, flip=flip, padding=padding)
      value, gradient = jax.value_and_grad(loss)(parameters, some, labels[chosen])
      update, moments = optimizer.update(gradient, moments, parameters)
      return (optax.apply_updates(parameters, update), moments, key), value

    return jax.lax.scan(step, state, order)

  state = parameters, optimizer.init(parameters), jax.random.key(seed)
  for number in range(epochs):
    order = data.epoch_order(jax.random.key(seed + number), len(labels), batch)
    state, losses = epoch(state, images, labels, order)
    report(number, float(np.mean(losses)))
  return state[0]

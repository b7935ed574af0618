"""How a member is trained: the options of its steps, and their optimiser."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from safenet_jax import ranges
from safenet_jax.approximation import activation

DTYPES = ('auto', 'float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class Training:
  """How a member is trained; the defaults are those that never diverged."""

  batch_size: int = 128
  momentum: float = 0.9
  weight_decay: float = 5e-4
  # The largest norm of a gradient. Without it polynomial networks reached NaN in every run; 0 is
  # off.
  clip_norm: float = 1.0
  coefficient_rate: float = 0.1  # learning rate of coefficients, as a multiple of the weights'
  polynomials: bool = True  # False: the network is all-ReLU, and no polynomial is computed
  per_channel: bool = False  # True: a polynomial for every channel, not one for a layer
  leading_floor: float = activation.LEADING_FLOOR  # least leading coefficient of degree 2
  # Inputs x of polynomials with |x| above range_limit are penalised, because a served square must
  # fit 15 bits. range_penalty is the weight of that in the loss; 0 is off.
  range_limit: float = 6.0
  range_penalty: float = 1.0
  # The polynomial sees x clipped to [-range_clip, range_clip] while it trains, and while batch norm
  # is recalibrated; 0 is off. Otherwise a single image whose squares grow from layer to layer
  # widens the batch statistics of all the others. A clip gained accuracy, but more served images
  # left their formats (docs/lab_log.md has three seeds).
  range_clip: float = 0.0
  label_smoothing: float = 0.0
  distillation: float = 0.0  # weight of the teacher's soft labels in the loss, 0..1
  temperature: float = 4.0
  augment: bool = True
  # Decay of a moving average of the weights, which is then what is scored and served; 0 is off.
  ema: float = 0.0
  dtype: str = 'auto'  # that the network computes in, see compute_dtype
  recalibration_batches: int = 16
  evaluation_batch: int = 250

  def __post_init__(self):
    ranges.check(dataclasses.asdict(self))
    if self.dtype not in DTYPES:
      raise ValueError(f"dtype '{self.dtype}', want one of {', '.join(DTYPES)}")


def record(training: Training) -> dict[str, Any]:
  """The options by name; ValueError for anything but a `Training`."""
  ranges.check_type('training', training, Training)
  return dataclasses.asdict(training)


def compute_dtype(training: Training) -> jnp.dtype:
  """The type a network computes in; weights, statistics and momentum stay float32.

  'auto' is bfloat16 on accelerators and float32 on CPU, which has no fast bfloat16.
  """
  if training.dtype == 'auto':
    return jnp.dtype(jnp.float32 if jax.default_backend() == 'cpu' else jnp.bfloat16)
  return jnp.dtype(training.dtype)


def optimizer(training: Training, momentum=None) -> optax.GradientTransformation:
  """SGD with clipped gradients and momentum, on {'params', 'coefficients'}.

  Its updates are for learning rate 1, and to be subtracted; the caller multiplies by the rate.
  """
  momentum = training.momentum if momentum is None else momentum

  def labels(trainable):
    return {name: jax.tree.map(lambda _, name=name: name, tree) for name, tree in trainable.items()}

  decay = optax.add_decayed_weights(
    training.weight_decay, mask=lambda tree: jax.tree.map(lambda a: a.ndim > 1, tree)
  )
  groups = {
    'params': optax.chain(decay, optax.trace(momentum)),
    'coefficients': optax.chain(optax.trace(momentum), optax.scale(training.coefficient_rate)),
  }
  clip = optax.clip_by_global_norm(training.clip_norm) if training.clip_norm else optax.identity()
  return optax.chain(clip, optax.partition(groups, labels))

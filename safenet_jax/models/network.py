"""The Flax network of a tuple of layer records: a pure function of its inputs.

    variables = network.init(key)
    logits = network.apply(variables, images, approximation)

`variables` holds `params` (`conv0/kernel` [k, k, I / groups, O], `conv0/bias` [O]
where there is no batch norm, `dense0/kernel` [I, O], `dense0/bias` [O],
`conv0_bn/scale` and `conv0_bn/bias` [O], `batch_norm0/scale` and `batch_norm0/bias`
[C]) and `batch_stats` (`conv0_bn/mean`, `conv0_bn/var`, `batch_norm0/mean` and
`batch_norm0/var`). One such tree serves every plan.
"""

from collections.abc import Callable, Iterable, Sequence
import numbers
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from safenet_jax.models import batch_norm, convolution
from safenet_jax.models import layers as records

BATCH_NORM_MOMENTUM = 0.9


class Network(nn.Module):
  """A network of layer records; see `safenet_jax.models.layers`.

  Attributes:
    layers: the records.
    input_shape: (H, W, C) of one image.
    dtype: type of the computation; parameters and statistics stay float32.

  Raises:
    ValueError: something is no record, or layers that do not fit each other or the input.
  """

  layers: tuple[records.Layer, ...]
  input_shape: tuple[int, int, int] = (32, 32, 3)
  dtype: Any = jnp.float32

  def __post_init__(self):
    # jit hashes a network; lists would not be hashable.
    object.__setattr__(self, 'layers', records.sequence(self.layers))
    object.__setattr__(self, 'input_shape', _map_shape(self.input_shape))
    records.shapes(self.layers, self.input_shape)  # raises where layers do not fit
    super().__post_init__()

  @property
  def output_shape(self) -> tuple[int, ...]:
    """Of one image; (classes,) in a network that classifies."""
    found = records.shapes(self.layers, self.input_shape)
    return found[-1].output_shape if found else self.input_shape

  def init(self, key: jax.Array, *args, **kwargs):  # type: ignore[override]
    """Variables from a key; images default to one image of zeros."""
    if not args:
      args = (jnp.zeros((1, *self.input_shape)),)
    variables = super().init(key, *args, **kwargs)
    return {name: variables[name] for name in ('params', 'batch_stats') if name in variables}

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    approximation: Sequence[Callable[[jax.Array], jax.Array]] | None = None,
    train: bool = False,
  ) -> jax.Array:
    """Logits float32 [B, classes] of normalised images [B, H, W, C].

    Args:
      images: float, of `input_shape`.
      approximation: for each activation a function that keeps the shape [B, ..., C] of its
        input, such as `approximation.activation.Approximation`; None is ReLU everywhere.
      train: normalise by the batch's statistics and update `batch_stats`.

    The inputs of the activations are sown in Flax's collection `preactivations`.
    """
    activations = len(activation_channels(self))
    if approximation is not None and len(approximation) != activations:
      raise ValueError(
        f'approximations of {len(approximation)} layers, want one for each of the {activations}'
      )
    if images.shape[1:] != self.input_shape or not jnp.issubdtype(images.dtype, jnp.floating):
      height, width, channels = self.input_shape
      raise ValueError(
        f'images {images.dtype} {images.shape}, '
        f'want normalised ones, float [B, {height}, {width}, {channels}]'
      )
    operations = _Forward(self, approximation, train)
    logits = records.run(self.layers, operations, images.astype(self.dtype))
    return logits.astype(jnp.float32)


def _map_shape(shape) -> tuple[int, int, int]:
  found = tuple(shape) if isinstance(shape, Iterable) else ()
  if len(found) != 3 or not all(isinstance(n, numbers.Integral) and int(n) >= 1 for n in found):
    raise ValueError(f'input_shape {shape}, want three positive integers (H, W, C)')
  height, width, channels = map(int, found)
  return height, width, channels


class _Forward:
  """Operations on activations [B, ..., C], inside the module's compact scope."""

  def __init__(self, module: Network, approximation, train: bool):
    self.module, self.approximation, self.train = module, approximation, train
    self.activations = 0

  def conv(self, name, layer, x):
    shape = (layer.kernel, layer.kernel, x.shape[-1] // layer.groups, layer.features)
    x = _Linear(shape, not layer.batch_norm, name=name)(
      x, lambda x, kernel: convolution.convolve_layer(x, kernel, layer)
    )
    return self.batch_norm(f'{name}_bn', layer, x) if layer.batch_norm else x

  def batch_norm(self, name, layer, x):
    return batch_norm.BatchNorm(self.train, BATCH_NORM_MOMENTUM, layer.epsilon, name=name)(x)

  def dense(self, name, layer, x):
    shape = (x.shape[-1], layer.features)
    x = _Linear(shape, not layer.batch_norm, name=name)(x, jnp.dot)
    return self.batch_norm(f'{name}_bn', layer, x) if layer.batch_norm else x

  def activation(self, name, layer, x):
    del layer
    self.module.sow('preactivations', name, x)
    activate = nn.relu if self.approximation is None else self.approximation[self.activations]
    self.activations += 1
    return activate(x)

  def average_pool(self, name, layer, x):
    del name
    return _windows(layer, x).mean((2, 4))

  def max_pool(self, name, layer, x):
    del name
    return _windows(layer, x).max((2, 4))

  def flatten(self, name, layer, x):
    del name, layer
    return x.reshape(x.shape[0], -1)

  def pad_shortcut(self, name, layer, x):
    del name
    more = layer.features - x.shape[-1]
    channels = (more // 2, more - more // 2)
    return jnp.pad(x[:, :: layer.stride, :: layer.stride], (*[(0, 0)] * 3, channels))

  def add(self, branch, shortcut):
    return branch + shortcut


def _windows(layer, x):
  """[B, H, W, C] to [B, H / n, n, W / n, n, C]."""
  b, h, w, c = x.shape
  n = records.window(layer, h, w)
  return x.reshape(b, h // n, n, w // n, n, c)


class _Linear(nn.Module):
  """A linear function with its kernel, which starts He-normal, and perhaps a bias."""

  shape: tuple[int, ...]
  use_bias: bool

  @nn.compact
  def __call__(self, x, apply):
    kernel = self.param('kernel', nn.initializers.he_normal(), self.shape)
    y = apply(x, kernel.astype(x.dtype))
    if self.use_bias:
      y += self.param('bias', nn.initializers.zeros, self.shape[-1:]).astype(x.dtype)
    return y


def relu_counts(network: Network) -> tuple[int, ...]:
  """Activations of one image per activation layer."""
  return tuple(
    shape.activations
    for shape in records.shapes(network.layers, network.input_shape)
    if isinstance(shape.layer, records.Activation)
  )


def activation_channels(network: Network) -> tuple[int, ...]:
  """Channels C of each activation layer."""
  return tuple(
    shape.output_shape[-1]
    for shape in records.shapes(network.layers, network.input_shape)
    if isinstance(shape.layer, records.Activation)
  )

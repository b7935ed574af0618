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

from safenet_jax.models import batch_norm, convolution, windows
from safenet_jax.models import layers as records

BATCH_NORM_MOMENTUM = 0.9

# Of an activation's input, and of the exact activation.
Replacement = Callable[[jax.Array, Callable[[jax.Array], jax.Array]], jax.Array]


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
    return records.output_shape(self.layers, self.input_shape)

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
    approximation: Sequence[Replacement] | None = None,
    train: bool = False,
  ) -> jax.Array:
    """Logits float32 [B, classes] of normalised images [B, H, W, C].

    Args:
      images: float, of `input_shape`.
      approximation: for each activation a function of its input [B, ..., C], whose shape it
        keeps, and of the function that it replaces, such as
        `approximation.activation.Approximation`; None replaces nothing.
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
    self.module.sow('preactivations', name, x)
    index, exact = self.activations, exact_activation(layer)
    self.activations += 1
    return exact(x) if self.approximation is None else self.approximation[index](x, exact)

  def average_pool(self, name, layer, x):
    del name
    found = windows.of(layer, *x.shape[1:3])
    if found.plain:
      return _parts(found, x).mean((2, 4))
    size, strides, padding = _options(found)
    return nn.avg_pool(x, size, strides, padding, count_include_pad=layer.count_padding)

  def max_pool(self, name, layer, x):
    del name
    found = windows.of(layer, *x.shape[1:3])
    return _parts(found, x).max((2, 4)) if found.plain else nn.max_pool(x, *_options(found))

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

  def concat(self, values):
    return jnp.concatenate(values, axis=-1)


def exact_activation(layer: records.Activation) -> Callable[[jax.Array], jax.Array]:
  """What an activation does to channels that no plan replaces: a ReLU, with limit and slope."""

  def activate(x):
    y = nn.leaky_relu(x, layer.slope) if layer.slope else nn.relu(x)
    return y if layer.limit is None else jnp.minimum(y, layer.limit)

  return nn.relu if layer == records.Activation() else activate


def _parts(found: windows.Windows, x):
  """[B, H, W, C] to [B, H / n, n, W / m, m, C], for windows that lie side by side."""
  b, _, _, c = x.shape
  (h, w), n, m = found.shape, found.rows.size, found.columns.size
  return x.reshape(b, h, n, w, m, c)


def _options(found: windows.Windows):
  """Size, strides and padding, as Flax takes them."""
  return tuple(zip(*((a.size, a.stride, (a.before, a.behind)) for a in found)))


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

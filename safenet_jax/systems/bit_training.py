"""Trains networks of `bit_network` as floats, and folds batch norm and sign into thresholds.

Weights and activations are signs in the forward pass. Backwards, a sign counts as the identity
within [-1, 1] and as constant beyond (the straight-through estimator, arXiv 1602.02830). Batch norm
has no scale: a sign does not see it.

With a density below 1, each neuron keeps that share of its weights, the largest ones, and the
others are 0 (ternary weights).
"""

from collections.abc import Callable, Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from safenet_jax import data
from safenet_jax.models import convolution
from safenet_jax.systems import bit_network, fitting
from safenet_jax.systems.bit_network import BitNetwork, Pool, Secret, Sums, Window

_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Layer:
  """A linear layer of so many outputs, with a maximum over 2 x 2 behind it if `pool`.

  A kernel of 0 makes it a dense layer.
  """

  outputs: int
  kernel: int = 0
  stride: int = 1
  pool: bool = False


def bm1(scale: float = 1.0) -> tuple[Layer, ...]:
  """XONN's BM1 (Table 5): dense layers of 128, 128 and 10."""
  wide = round(128 * scale)
  return Layer(wide), Layer(wide), Layer(10)


def bm2(scale: float = 1.0) -> tuple[Layer, ...]:
  """XONN's BM2: a convolution of 5 x 5 with stride 2 and 5 maps, dense layers of 100 and 10."""
  return Layer(round(5 * scale), 5, 2), Layer(round(100 * scale)), Layer(10)


def cnn7(width: float = 1.0) -> tuple[Layer, ...]:
  """XONN's BC1, which is CNN-7 with maxima for its mean pools.

  The last convolution keeps its 16 maps at any width: of bits, fewer would carry too little.
  """
  wide, narrow = round(64 * width), 16
  return (
    Layer(wide, 3),
    Layer(wide, 3, pool=True),
    Layer(wide, 3),
    Layer(wide, 3, pool=True),
    Layer(wide, 3),
    Layer(wide, 1),
    Layer(narrow, 1),
    Layer(10),
  )


def structure(
  layers: Sequence[Layer], shape: tuple[int, int, int], density: float = 1.0
) -> tuple[Sums | Pool, ...]:
  """The layers on images of this shape (H, W, C); with a density, positions are still to come."""
  found: list[Sums | Pool] = []
  height, width, channels = shape
  for layer in layers:
    before = (layer.kernel - 1) // 2 if layer.kernel else 0
    window = Window(height, width, channels, layer.kernel, layer.stride, before)
    inputs = window.patches.shape[1]
    kept = max(1, round(density * inputs))
    positions = None if kept == inputs else np.tile(np.arange(kept), (layer.outputs, 1))
    found.append(Sums(window, layer.outputs, positions))
    (height, width), channels = window.side, layer.outputs
    if layer.pool:
      found.append(Pool(height, width, channels))
      height, width = height // 2, width // 2
  return tuple(found)


@jax.custom_vjp
def sign(x: jax.Array) -> jax.Array:
  """1 where x is at least 0, else -1; straight through within [-1, 1]."""
  return jnp.where(x >= 0, 1.0, -1.0)


sign.defvjp(lambda x: (sign(x), x), lambda x, g: (jnp.where(jnp.abs(x) <= 1, g, 0.0),))


def largest(weights: jax.Array, kept: int) -> jax.Array:
  """Whether a weight is among the `kept` largest of its neuron, bool [outputs, k], but for ties.

  By halving the range of the least of them, which takes far less time than to sort them.
  """
  sizes = jnp.abs(weights)

  def halved(_, ends):
    low, high = ends
    middle = (low + high) / 2
    enough = (sizes >= middle).sum(1, keepdims=True) >= kept
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  ends = jnp.zeros((len(weights), 1)), sizes.max(1, keepdims=True) + 1e-6
  low, _ = jax.lax.fori_loop(0, 30, halved, jax.lax.stop_gradient(ends))
  return sizes >= low


def initial(key: jax.Array, layers: Sequence[Sums | Pool]) -> list[dict[str, jax.Array]]:
  """Parameters of every linear layer; the key is consumed."""
  linear = [layer for layer in layers if isinstance(layer, Sums)]
  keys = jax.random.split(key, len(linear))
  return [
    {
      'weights': jax.random.uniform(k, (s.outputs, s.window.patches.shape[1]), minval=-1),
      'shift': jnp.zeros(s.outputs),
    }
    for k, s in zip(keys, linear)
  ]


def forward(
  parameters: Sequence[dict[str, jax.Array]], layers: Sequence[Sums | Pool], images: jax.Array
) -> jax.Array:
  """Logits [B, classes] of images uint8 [B, H, W, C], normalised by the batch's statistics.

  ValueError for layers that do not end with a linear one.
  """
  value = (images.astype(jnp.float32) - bit_network.CENTRE) / bit_network.CENTRE
  border, waiting = 0.0, list(parameters)
  last = len(waiting)
  for layer in layers:
    if isinstance(layer, Pool):
      height, width = layer.height // 2, layer.width // 2
      value = value.reshape(-1, height, 2, width, 2, layer.channels).max((2, 4))
      continue
    own = waiting.pop(0)
    weights = sign(own['weights'])
    if layer.positions is not None:
      weights = weights * largest(own['weights'], layer.inputs)
    total = _linear(layer.window, weights, value, border) / np.sqrt(layer.inputs)
    border = -1.0
    if len(parameters) - len(waiting) == last:
      return total.reshape(len(images), -1) + own['shift']
    mean, variance = total.mean((0, 1, 2)), total.var((0, 1, 2))
    value = sign((total - mean) * jax.lax.rsqrt(variance + _EPSILON) + own['shift'])
  raise ValueError('no linear layer at the end')


def _linear(window: Window, weights: jax.Array, value: jax.Array, border: float) -> jax.Array:
  """[B, rows, columns, outputs] of a map [B, H, W, C]."""
  if not window.kernel:
    flat = value.transpose(0, 3, 1, 2).reshape(len(value), -1)
    return (flat @ weights.T)[:, None, None]
  kernel = weights.reshape(-1, window.channels, window.kernel, window.kernel).transpose(2, 3, 1, 0)
  # `convolve` has zeros beyond the border: so the map less the border, and what that leaves out.
  found = convolution.convolve(value - border, kernel, window.stride)
  return found + border * kernel.sum((0, 1, 2))


def train(
  images: data.Dataset,
  architecture: Sequence[Layer],
  *,
  density: float = 1.0,
  epochs: int = 20,
  rate: float = 2e-3,
  padding: int = 0,
  flip: bool = False,
  seed: int = 0,
  report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> BitNetwork:
  """Trains a network, and folds it with statistics of 1,000 training images."""
  shape = np.shape(images.train.images)[1:]
  layers = structure(architecture, shape, density)

  def loss(parameters, some, labels):
    logits = forward(parameters, layers, some)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  start = initial(jax.random.key(seed), layers)
  trained = fitting.fit(
    loss,
    start,
    images.train,
    epochs=epochs,
    rate=rate,
    decay=0.0,
    padding=padding,
    flip=flip,
    seed=seed,
    report=report,
  )
  return folded(trained, layers, np.asarray(images.train.images[:1000]))


def folded(
  parameters: Sequence[dict[str, jax.Array]], layers: Sequence[Sums | Pool], images: np.ndarray
) -> BitNetwork:
  """The network of bits; means and deviations are those of its own sums on these images."""
  own = list(parameters)
  fixed: list[Sums | Pool] = []
  secrets: list[Secret | None] = []
  for layer in layers:
    if isinstance(layer, Pool):
      fixed.append(layer)
      secrets.append(None)
      continue
    found = own.pop(0)
    weights, shift = (np.asarray(found[name], np.float64) for name in ('weights', 'shift'))
    if layer.positions is not None:
      positions = np.sort(np.argsort(-np.abs(weights), axis=1)[:, : layer.inputs], axis=1)
      layer = layer._replace(positions=positions)
      weights = np.take_along_axis(weights, positions, axis=1)
    signs = (weights >= 0).astype(np.uint8)
    limits = np.zeros(layer.outputs, np.int64)
    if own:
      limits = _limits(BitNetwork(tuple(fixed), tuple(secrets)), layer, signs, shift, images)
    else:
      # A count is half of a sum, and the shift is of a sum over the root of K.
      whole = np.rint(shift * np.sqrt(layer.inputs) / 2).astype(np.int64)
      limits = whole - whole.min()
    fixed.append(layer)
    secrets.append(Secret(signs, limits))
  return BitNetwork(tuple(fixed), tuple(secrets))


def _limits(
  before: BitNetwork, layer: Sums, signs: np.ndarray, shift: np.ndarray, images: np.ndarray
) -> np.ndarray:
  """Thresholds int64 [outputs] of a layer behind others, as in `Secret`."""
  total = []
  for some in np.array_split(images, max(1, len(images) // 100)):
    if before.layers:
      found = 2 * bit_network.counts(layer, signs, before.bits(some)) - layer.inputs
    else:
      found = bit_network.sums(layer, signs, bit_network.centred(layer, some))
    total.append(found.astype(np.float32))
  sums = np.concatenate(total, axis=2)
  deviation = np.sqrt(sums.var((1, 2), dtype=np.float64) + 1e-9)
  limits = sums.mean((1, 2), dtype=np.float64) - shift * deviation
  if before.layers:
    limits = (limits + layer.inputs) / 2
  return np.ceil(limits).astype(np.int64).clip(_least(layer, before), _most(layer, before))


def _least(layer: Sums, before: BitNetwork) -> int:
  return 0 if before.layers else -bit_network.CENTRE * layer.inputs


def _most(layer: Sums, before: BitNetwork) -> int:
  """One more than the largest count or sum: a neuron that is never 1."""
  return (1 if before.layers else bit_network.CENTRE) * layer.inputs + 1

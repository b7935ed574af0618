"""Where a training step goes: its operations alone, batch 128, 32 x 32 images.

`profile/<network>/<operation>`: milliseconds of one operation, summed over all layers that have it.
The floor is the limit of the machine, measured in the same run. It is the time of as many
multiplications in a large product of matrices, or of reading every input and writing every output
of the operation once, whichever is longer. Maps that stay in a cache can be faster than that.

`profile/<network>/rest` is what a whole step takes beyond the sum, such as copies, additions, pools
and the loss. It is negative where XLA joins operations that were timed apart.

Operations are timed one by one, because XLA runs several at a time inside a step: a profile of the
step ends an operation's event when its parts are handed out, not when they are done.
"""

from collections.abc import Callable, Iterator
import functools
import math
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import benchmarks
from experiments.benchmarks import Row, training
from safenet_jax import data
from safenet_jax.approximation import activation
from safenet_jax.models import architectures, batch_norm, compilation, convolution, layers, network
from safenet_jax.search import members
from safenet_jax.search.training import optimizer

REPETITIONS = 15


class Operation(NamedTuple):
  """One compiled function with its arguments, and the floating-point operations that it needs."""

  function: Callable
  arguments: tuple
  operations: float = 0.0

  @property
  def bytes(self) -> int:
    """Of all arguments, and of all results."""
    results = jax.eval_shape(self.function, *self.arguments)
    return sum(
      leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((self.arguments, results))
    )

  def seconds(self) -> float:
    """Of the fastest call."""
    run = compilation.jit(self.function)
    return _best(lambda: jax.block_until_ready(run(*self.arguments)))


def _best(run: Callable[[], object]) -> float:
  run()  # compiles
  return benchmarks.best({'': run}, REPETITIONS)['']


def rows() -> Iterator[Row]:
  """Measures every network of `training.NETWORKS`; some three minutes in all on two cores."""
  speed, bandwidth = _limits()
  setting = f'batch {training.BATCH}, {len(os.sched_getaffinity(0))} cores'
  yield Row('operations', 'limit/product', f'2048 x 2048, {setting}', speed / 1e9, 'GFLOP/s')
  yield Row('operations', 'limit/memory', f'copy of 256 MB, {setting}', bandwidth / 1e9, 'GB/s')
  for name in ['cnn7_quarter'] if benchmarks.QUICK.value else training.NETWORKS:
    architecture, width = training.NETWORKS[name]
    built = architectures.build(architecture, width=width)
    total = 0.0
    for kind, found in _operations(built).items():
      # Layers of one shape are timed once.
      seconds = limit = 0.0
      for operation, count in found.values():
        seconds += count * operation.seconds()
        limit += count * max(operation.operations / speed, operation.bytes / bandwidth)
      total += seconds if kind != POLYNOMIALS else 0.0
      yield Row('operations', f'profile/{name}/{kind}', setting, 1e3 * seconds, 'ms', 1e3 * limit)
    step = _best(training.ours(built, training.STEPS)) / training.STEPS
    yield Row('operations', f'profile/{name}/rest', setting, 1e3 * (step - total), 'ms')
    yield Row('operations', f'profile/{name}/step', setting, 1e3 * step, 'ms')


def _limits() -> tuple[float, float]:
  """Floating-point operations a second of a large product, and bytes a second of a copy."""
  square = jnp.ones((2048, 2048))
  product = Operation(jnp.matmul, (square, square), 2 * 2048**3)
  copy = Operation(lambda x: x + 1, (jnp.ones(1 << 26),))
  return product.operations / product.seconds(), copy.bytes / copy.seconds()


POLYNOMIALS = 'activation with polynomials'


def _operations(built: network.Network) -> dict[str, dict[tuple, tuple[Operation, int]]]:
  """For every kind of operation, one of each shape, and how many layers have it."""
  found: dict[str, dict[tuple, tuple[Operation, int]]] = {}

  def add(kind: str, shape: tuple, make: Callable[[], Operation]):
    same = found.setdefault(kind, {})
    operation, count = same.get(shape) or (make(), 0)
    same[shape] = operation, count + 1

  first = True
  for layer in layers.shapes(built.layers, built.input_shape):
    shape = layer.input_shape, layer.output_shape, layer.layer
    match layer.layer:
      case layers.Conv() | layers.Dense():
        for kind in ('forward', 'input gradient', 'kernel gradient'):
          if not (first and kind == 'input gradient'):
            what = 'convolution' if isinstance(layer.layer, layers.Conv) else 'dense'
            add(f'{what}, {kind}', shape, functools.partial(_linear, layer, kind))
        first = False
        if layer.layer.batch_norm:
          add('batch norm', layer.output_shape, functools.partial(_normalise, layer.output_shape))
      case layers.Activation():
        for kind, one in (('activation, ReLU', False), (POLYNOMIALS, True)):
          add(kind, layer.output_shape, functools.partial(_activate, layer.output_shape, one))
  add('augmentation', (), functools.partial(_augment, built))
  add('optimiser', (), functools.partial(_optimise, built))
  return found


def _map(shape: tuple[int, ...]) -> jax.Array:
  return jax.random.normal(jax.random.key(math.prod(shape)), (training.BATCH, *shape))


def _linear(layer: layers.LayerShape, kind: str) -> Operation:
  """One of the three products of a convolution or a dense layer."""
  x, y = _map(layer.input_shape), _map(layer.output_shape)
  shape: tuple[int, ...] = (x.shape[-1], y.shape[-1])
  apply: Callable = jnp.dot
  if isinstance(layer.layer, layers.Conv):
    shape = (layer.layer.kernel, layer.layer.kernel, *shape)
    apply = functools.partial(convolution.convolve, stride=layer.layer.stride)
  kernel = jax.random.normal(jax.random.key(0), shape)
  # Products with the border's zeros are counted too.
  operations = 2.0 * y.size * kernel.size / kernel.shape[-1]
  if kind == 'forward':
    return Operation(lambda x, w: apply(x, w), (x, kernel), operations)
  which = 0 if kind == 'input gradient' else 1

  def gradient(x, w, dy):
    return jax.vjp(apply, x, w)[1](dy)[which]

  return Operation(gradient, (x, kernel, y), operations)


def _with_gradient(function: Callable, *arguments) -> Operation:
  """The function and its gradients in all arguments; the last result's shape is the cotangent's."""
  cotangent = jnp.ones_like(jax.eval_shape(function, *arguments))

  def both(cotangent, *arguments):
    result, pullback = jax.vjp(function, *arguments)
    return result, pullback(cotangent)

  return Operation(both, (cotangent, *arguments))


def _normalise(shape: tuple[int, ...]) -> Operation:
  module = batch_norm.BatchNorm(True, network.BATCH_NORM_MOMENTUM, layers.BatchNorm().epsilon)
  variables = module.init(jax.random.key(0), _map(shape))
  statistics = variables['batch_stats']

  def apply(params, x):
    variables = {'params': params, 'batch_stats': statistics}
    return module.apply(variables, x, mutable=['batch_stats'])[0]

  return _with_gradient(apply, variables['params'], _map(shape))


def _activate(shape: tuple[int, ...], polynomials: bool) -> Operation:
  if not polynomials:
    return _with_gradient(jax.nn.relu, _map(shape))
  layer = activation.all_relu(shape[-1:])[0]

  def apply(coefficients, mask, x):
    return layer.replace(coefficients=coefficients, mask=mask > 0)(x)

  mask = jnp.arange(shape[-1]) % 2.0
  return _with_gradient(apply, layer.coefficients, mask, _map(shape))


def _augment(built: network.Network) -> Operation:
  shape = (training.BATCH, *built.input_shape)
  images = jax.random.randint(jax.random.key(0), shape, 0, 256).astype(jnp.uint8)

  def augment(seed, images):
    images = data.augment(jax.random.wrap_key_data(seed), images)
    return data.normalise(images, (0.5,) * 3, (0.25,) * 3)

  return Operation(augment, (jax.random.key_data(jax.random.key(0)), images))


def _optimise(built: network.Network) -> Operation:
  options = members.Training(batch_size=training.BATCH, polynomials=False)
  member, _ = training.start(built, options)
  trainable = {'params': member.params, 'coefficients': member.coefficients}

  def update(gradients, state, trainable):
    updates, state = optimizer(options).update(gradients, state, trainable)
    return jax.tree.map(lambda w, u: w - 0.01 * u, trainable, updates), state

  return Operation(update, (trainable, member.optimizer_state, trainable))

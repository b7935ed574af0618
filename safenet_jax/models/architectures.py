"""The paper's networks as tuples of layer records.

Every function takes the class count, a width multiplier and the input shape
(H, W, C), and returns a `Network`.
"""

from collections.abc import Callable

from safenet_jax import ranges
from safenet_jax.models.layers import (
  Activation,
  AveragePool,
  Conv,
  Dense,
  Flatten,
  Layer,
  MaxPool,
  PadShortcut,
  Residual,
)
from safenet_jax.models.network import Network, relu_counts


def _scaled(features: int, width: float) -> int:
  ranges.check({'width': width})
  scaled = round(features * width)
  if scaled < 1:
    raise ValueError(f'width {width} leaves no channel of {features}, want a larger width')
  return scaled


def cnn7(
  classes: int = 10,
  width: float = 1.0,
  input_shape: tuple[int, int, int] = (32, 32, 3),
  *,
  pool_before_activation: bool = False,
) -> Network:
  """CNN-7: MiniONN's CIFAR-10 network (eprint 2017/452, Figure 13), 173,056 ReLUs.

  With `pool_before_activation` the pools come before the second and fourth
  activation. The network then has 111,616 ReLUs; the paper's Figure 2 is made from
  this count.
  """
  wide, narrow = _scaled(64, width), _scaled(16, width)
  pooled: tuple[Layer, ...] = (Activation(), AveragePool())
  if pool_before_activation:
    pooled = (AveragePool(), Activation())
  layers = (
    Conv(wide),
    Activation(),
    Conv(wide),
    *pooled,
    Conv(wide),
    Activation(),
    Conv(wide),
    *pooled,
    Conv(wide),
    Activation(),
    Conv(wide, kernel=1),
    Activation(),
    Conv(narrow, kernel=1),
    Activation(),
    Flatten(),
    Dense(classes),
  )
  return Network(layers, input_shape)


def vgg16(
  classes: int = 10,
  width: float = 1.0,
  input_shape: tuple[int, int, int] = (32, 32, 3),
  *,
  max_pool: bool = False,
) -> Network:
  """VGG-16 (arXiv 1409.1556, D) with one hidden dense layer of 512, 276,992 ReLUs.

  Five pools halve the map, so the sides of an image must be multiples of 32.
  """
  layers: list[Layer] = []
  for features, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
    layers += [Conv(_scaled(features, width)), Activation()] * repeats
    layers.append(MaxPool() if max_pool else AveragePool())
  layers += [
    Flatten(),
    Dense(_scaled(512, width), batch_norm=True),
    Activation(),
    Dense(classes),
  ]
  return Network(tuple(layers), input_shape)


def resnet32(
  classes: int = 10,
  width: float = 1.0,
  input_shape: tuple[int, int, int] = (32, 32, 3),
) -> Network:
  """ResNet-32 for CIFAR (arXiv 1512.03385, section 4.2), option A, 303,104 ReLUs."""
  first, *_ = stages = [_scaled(features, width) for features in (16, 32, 64)]
  return _resnet(first, stages, 5, _padded, classes, input_shape)


def resnet18(
  classes: int = 10,
  width: float = 1.0,
  input_shape: tuple[int, int, int] = (32, 32, 3),
) -> Network:
  """ResNet-18 with a 3x3 stem for CIFAR and projection shortcuts, 557,056 ReLUs."""
  first, *_ = stages = [_scaled(features, width) for features in (64, 128, 256, 512)]
  return _resnet(first, stages, 2, _projected, classes, input_shape)


def _padded(features: int, stride: int) -> tuple[Layer, ...]:
  return (PadShortcut(features, stride),)


def _projected(features: int, stride: int) -> tuple[Layer, ...]:
  return (Conv(features, kernel=1, stride=stride),)


def _resnet(
  first: int,
  stages: list[int],
  blocks: int,
  shortcut: Callable[[int, int], tuple[Layer, ...]],
  classes: int,
  input_shape: tuple[int, int, int],
) -> Network:
  """Stages of basic blocks; every stage but the first begins with stride 2 and a `shortcut`."""
  layers: list[Layer] = [Conv(first), Activation()]
  for stage, features in enumerate(stages):
    for block in range(blocks):
      shrinks = stage > 0 and block == 0
      stride = 2 if shrinks else 1
      branch = (Conv(features, stride=stride), Activation(), Conv(features))
      layers += [
        Residual(branch, shortcut(features, stride) if shrinks else ()),
        Activation(),
      ]
  return Network((*layers, AveragePool(None), Flatten(), Dense(classes)), input_shape)


ARCHITECTURES = {'cnn7': cnn7, 'vgg16': vgg16, 'resnet32': resnet32, 'resnet18': resnet18}
_OWN: dict[str, Callable[..., Network]] = {}


def register(name: str, architecture: Callable[..., Network]) -> None:
  """Makes a user's own network known to `build`, and so to configs, by a name.

  Args:
    name: any but those of this module. A name may be registered again, because a config
      file that registers one is read twice.
    architecture: function of `classes`, `input_shape` and options, as in this module.

  Raises:
    ValueError: the name is one of this module's, or no function is given.
  """
  if not callable(architecture):
    raise ValueError(f'network {name!r} as {architecture!r}, want a function that returns it')
  if name in ARCHITECTURES:
    raise ValueError(f"network '{name}' is ready-made, want another name")
  _OWN[name] = architecture


def names() -> tuple[str, ...]:
  """What `build` knows, in alphabetical order."""
  return tuple(sorted(ARCHITECTURES | _OWN))


def build(name: str, **options) -> Network:
  """The network of that name; ValueError for an unknown name or option."""
  known = ARCHITECTURES | _OWN
  if name not in known:
    raise ValueError(f"unknown network '{name}', want one of {', '.join(names())}")
  try:
    return known[name](**options)
  except TypeError as error:
    raise ValueError(f'network {name}: {error}') from error


# Widths are tried in steps of `limit` / 4096. Layers have up to 512 features, so that a step
# changes none by more than one channel.
_STEPS = 4096


def widest(network: Callable[[float], Network], relus: int, limit: float = 1.0) -> float:
  """The largest width up to `limit` that leaves a network at most `relus` ReLUs.

  Args:
    network: makes a network from a width, which narrows every layer alike.
    relus: the most ReLUs of one image, in all layers together.
    limit: the largest width, at which every layer has a channel at least.

  Raises:
    ValueError: even the narrowest network, in which some layer has a single channel, has
      too many.
  """
  network(limit)  # raises whatever else is wrong with the network

  def count(step: int) -> int:
    try:
      return sum(relu_counts(network(limit * step / _STEPS)))
    except ValueError:
      return 0  # a layer without a channel

  low, high = 0, _STEPS + 1  # low fits, high does not
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if count(middle) <= relus else (low, middle)
  if not count(low):
    raise ValueError(f'no width leaves at most {relus} ReLUs, want a plan that leaves more')
  return limit * low / _STEPS

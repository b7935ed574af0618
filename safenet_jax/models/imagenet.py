"""The networks by which private inference measures itself at 224 x 224, as torchvision has them.

Weights are not here: these show what such networks cost, and check what is imported from others.
"""

from collections.abc import Callable

from safenet_jax.models.layers import (
  Activation,
  AveragePool,
  Concat,
  Conv,
  Dense,
  Flatten,
  Layer,
  MaxPool,
  NO_PADDING,
  Residual,
)
from safenet_jax.models.network import Network

_SHAPE = (224, 224, 3)
# Zeros around a map as PyTorch has them, the same on all sides.
_ONE, _THREE = ((1, 1), (1, 1)), ((3, 3), (3, 3))


def resnet18(classes: int = 1000, input_shape: tuple[int, int, int] = _SHAPE) -> Network:
  """ResNet-18 (arXiv 1512.03385, Table 1): 1.81 G multiplications, 2,308,096 ReLUs."""
  return _resnet((2, 2, 2, 2), _basic, classes, input_shape)


def resnet50(classes: int = 1000, input_shape: tuple[int, int, int] = _SHAPE) -> Network:
  """ResNet-50 with strides in the 3x3 convolutions: 4.09 G multiplications, 9,608,704 ReLUs."""
  return _resnet((3, 4, 6, 3), _bottleneck, classes, input_shape)


def squeezenet(classes: int = 1000, input_shape: tuple[int, int, int] = _SHAPE) -> Network:
  """SqueezeNet 1.1 (arXiv 1602.07360): 0.35 G multiplications."""
  layers: list[Layer] = [Conv(64, stride=2, batch_norm=False, padding=NO_PADDING), Activation()]
  for squeezes in ((16, 16), (32, 32), (48, 48, 64, 64)):
    layers.append(MaxPool(3, stride=2))
    for squeeze in squeezes:
      layers += _fire(squeeze)
  head = (Conv(classes, kernel=1, batch_norm=False), Activation(), AveragePool(None), Flatten())
  return Network((*layers, *head), input_shape)


def mobilenet_v2(classes: int = 1000, input_shape: tuple[int, int, int] = _SHAPE) -> Network:
  """MobileNetV2 (arXiv 1801.04381, Table 2): 0.30 G multiplications."""
  layers: list[Layer] = [Conv(32, stride=2, padding=_ONE), Activation(limit=6.0)]
  channels = 32
  for expand, features, repeats, stride in (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
  ):
    for repeat in range(repeats):
      branch = _inverted(channels, expand, features, stride if repeat == 0 else 1)
      layers += [Residual(branch)] if repeat else branch
      channels = features
  head = (Conv(1280, kernel=1), Activation(limit=6.0), AveragePool(None), Flatten(), Dense(classes))
  return Network((*layers, *head), input_shape)


def _resnet(
  repeats: tuple[int, ...],
  block: Callable[[int, int], tuple[Layer, ...]],
  classes: int,
  input_shape: tuple[int, int, int],
) -> Network:
  layers: list[Layer] = [Conv(64, kernel=7, stride=2, padding=_THREE), Activation()]
  layers.append(MaxPool(3, stride=2, padding=_ONE))
  channels = 64
  for stage, count in enumerate(repeats):
    for repeat in range(count):
      stride = 2 if stage and not repeat else 1
      branch = block(64 << stage, stride)
      features = branch[-1].features  # type: ignore[union-attr]
      shortcut = (Conv(features, kernel=1, stride=stride, padding=NO_PADDING),)
      changes = stride > 1 or features != channels
      layers += [Residual(branch, shortcut if changes else ()), Activation()]
      channels = features
  return Network((*layers, AveragePool(None), Flatten(), Dense(classes)), input_shape)


def _basic(features: int, stride: int) -> tuple[Layer, ...]:
  return Conv(features, stride=stride, padding=_ONE), Activation(), Conv(features)


def _bottleneck(features: int, stride: int) -> tuple[Layer, ...]:
  first = Conv(features, kernel=1), Activation()
  return (
    *first,
    Conv(features, stride=stride, padding=_ONE),
    Activation(),
    Conv(4 * features, kernel=1),
  )


def _fire(squeeze: int) -> list[Layer]:
  one = Conv(4 * squeeze, kernel=1, batch_norm=False)
  three = Conv(4 * squeeze, batch_norm=False)
  return [
    Conv(squeeze, kernel=1, batch_norm=False),
    Activation(),
    Concat(((one,), (three,))),
    Activation(),
  ]


def _inverted(channels: int, expand: int, features: int, stride: int) -> tuple[Layer, ...]:
  hidden = channels * expand
  first = (Conv(hidden, kernel=1), Activation(limit=6.0)) if expand > 1 else ()
  depthwise = Conv(hidden, stride=stride, groups=hidden, padding=_ONE)
  return (*first, depthwise, Activation(limit=6.0), Conv(features, kernel=1))


NETWORKS = {
  'squeezenet': squeezenet,
  'mobilenet_v2': mobilenet_v2,
  'resnet18': resnet18,
  'resnet50': resnet50,
}

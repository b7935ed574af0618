"""The paper's networks as tuples of layer records.

Every function takes the class count, a width multiplier and the input shape
(H, W, C), and returns a `Network`.
"""

from safenet_jax.models.layers import Activation, AveragePool, Conv, Dense, Flatten, Layer
from safenet_jax.models.network import Network


def _scaled(features: int, width: float) -> int:
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
  activation: 111,616 ReLUs, which is the count behind the paper's Figure 2.
  """
  wide, narrow = _scaled(64, width), _scaled(16, width)
  pooled: tuple[Layer, ...] = (Activation(), AveragePool())
  if pool_before_activation:
    pooled = (AveragePool(), Activation())
  layers = (
      Conv(wide), Activation(),
      Conv(wide), *pooled,
      Conv(wide), Activation(),
      Conv(wide), *pooled,
      Conv(wide), Activation(),
      Conv(wide, kernel=1), Activation(),
      Conv(narrow, kernel=1), Activation(),
      Flatten(),
      Dense(classes),
  )
  return Network(layers, input_shape)


ARCHITECTURES = {'cnn7': cnn7}


def build(name: str, **options) -> Network:
  """The network of that name; ValueError for an unknown name or option."""
  if name not in ARCHITECTURES:
    raise ValueError(f"unknown network '{name}', want one of {', '.join(sorted(ARCHITECTURES))}")
  try:
    return ARCHITECTURES[name](**options)
  except TypeError as error:
    raise ValueError(f'network {name}: {error}') from error

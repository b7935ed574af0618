"""A planned network as a flat mapping of names to arrays, and back.

Beside the arrays of `models.weights`, every activation layer has

    activation0/mask bool [C], True where the channel is a polynomial
    activation0/degree int32 [], 0, 2 or 3
    activation0/coefficients float32 [4] or [C, 4], constant term first, as they are used
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import activation, plans
from safenet_jax.approximation.activation import Approximation
from safenet_jax.models import network as networks
from safenet_jax.models import weights


def flatten_planned(variables, approximation: tuple[Approximation, ...]) -> dict[str, np.ndarray]:
  """The inverse of `load_planned`, for numpy.savez.

  ValueError where `blend` is not 0: training has not finished replacing ReLU.
  """
  found = weights.flatten_variables(variables)
  for t, layer in enumerate(approximation):
    if np.asarray(layer.blend).any():
      raise ValueError(f'activation{t} has blend {layer.blend}, want 0: ReLU is still mixed in')
    used = activation.effective(layer.coefficients, layer.degree, layer.floor)
    for name, value in (('mask', layer.mask), ('degree', layer.degree), ('coefficients', used)):
      found[f'activation{t}/{name}'] = np.asarray(value)
  return found


def load_planned(
  network: networks.Network, arrays: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[Approximation, ...]]:
  """Variables and approximation of a planned network, such as those of an opened .npz.

  Args:
    network: whose they are.
    arrays: under the names and in the layouts of this module.

  Raises:
    ValueError: names arrays that are missing, unknown, or not of the network.
  """
  layers, others = [], {name: arrays[name] for name in arrays}
  for t, channels in enumerate(networks.activation_channels(network)):
    names = [f'activation{t}/{part}' for part in ('mask', 'degree', 'coefficients')]
    missing = [name for name in names if name not in others]
    if missing:
      raise ValueError(f'missing {", ".join(missing)}: no planned network of this architecture')
    mask, degree, coefficients = (np.asarray(others.pop(name)) for name in names)
    _check_layer(f'activation{t}', channels, mask, degree, coefficients)
    layers.append(
      Approximation(
        jnp.asarray(mask),
        jnp.asarray(degree, jnp.int32),
        jnp.asarray(coefficients, jnp.float32),
        floor=0.0,
      )
    )
  return weights.load_variables(network, others), tuple(layers)


def check(network: networks.Network, approximation: Sequence[Approximation]) -> None:
  """ValueError unless these are the approximations of the network's activation layers."""
  channels = networks.activation_channels(network)
  if len(approximation) != len(channels):
    raise ValueError(
      f'approximations of {len(approximation)} layers, want one for each of the {len(channels)}'
    )
  for t, (count, layer) in enumerate(zip(channels, approximation)):
    if not isinstance(layer, Approximation):
      raise ValueError(f'activation{t}: {type(layer).__name__}, want an Approximation')
    parts = map(np.asarray, (layer.mask, layer.degree, layer.coefficients))
    _check_layer(f'activation{t}', count, *parts)


def _check_layer(
  name: str, channels: int, mask: np.ndarray, degree: np.ndarray, coefficients: np.ndarray
) -> None:
  if mask.shape != (channels,) or mask.dtype != bool:
    raise ValueError(f'{name}/mask {mask.dtype} {mask.shape}, want bool ({channels},)')
  if degree.shape or degree not in plans.DEGREES:
    raise ValueError(f'{name}/degree {degree}, want one of {plans.DEGREES}')
  if coefficients.shape not in ((4,), (channels, 4)) or not np.isfinite(coefficients).all():
    raise ValueError(
      f'{name}/coefficients of shape {coefficients.shape}, want finite (4,) or ({channels}, 4)'
    )

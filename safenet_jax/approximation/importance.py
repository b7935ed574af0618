"""Which channels a plan replaces: those whose filters have the least L1 norm (Eq. 3).

A plan replaces a share alpha of a layer's channels, the least important first. As
printed in the paper, Eq. 3 would replace the other 1 - alpha. Its text ("in the
ascending order of their channel important factors") is right, and is what is done here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import plans
from safenet_jax.models import layers as records
from safenet_jax.models import producers, weights
from safenet_jax.models.network import activation_channels, Network


def importance(network: Network, variables) -> tuple[jax.Array, ...]:
  """Per activation layer, float [C]: the L1 norm of the filter that makes each channel.

  Batch norm is folded into the filters first, as it is when they are served.
  After a residual addition a channel has the sum of the norms of all branches;
  a shortcut without weights adds nothing. Batch norm that stands alone makes channels
  of deviation |scale|, which is taken for a norm (Liu et al. 2017, arXiv 1708.06519).

  Raises:
    ValueError: an activation whose channels are not those of a linear layer.
  """
  params, stats = variables['params'], variables.get('batch_stats', {})
  shapes = records.shapes(network.layers, network.input_shape)
  layers: dict[str, Any] = {shape.name: shape.layer for shape in shapes}

  def norm(name):
    if isinstance(layers[name], records.BatchNorm):
      return jnp.abs(params[name]['scale'])
    kernel = params[name]['kernel']
    total = jnp.abs(kernel).sum(tuple(range(kernel.ndim - 1)))
    if f'{name}_bn' in params:
      variance = stats[f'{name}_bn']['var']
      total *= jnp.abs(params[f'{name}_bn']['scale']) / jnp.sqrt(variance + layers[name].epsilon)
    return total

  found = []
  for t, (filters, channels) in enumerate(
    zip(producers.producers(network.layers, network.input_shape[-1]), activation_channels(network))
  ):
    if len(filters) != channels or not all(filters):
      names = ' and '.join(dict.fromkeys(name for some in filters for name, _ in some))
      raise ValueError(
        f'activation{t} has {channels} channels, which are not the outputs of '
        f'{names or "any linear layer"}: no filter has their importance'
      )
    places: dict[str, list[tuple[int, int]]] = {}
    for channel, some in enumerate(filters):
      for name, index in some:
        places.setdefault(name, []).append((channel, index))
    total = jnp.zeros(channels)
    for name, pairs in places.items():
      at, index = np.array(pairs).T
      total = total.at[at].add(norm(name)[index])
    found.append(total)
  return tuple(found)


def ranks(network: Network, variables) -> tuple[jax.Array, ...]:
  """Per activation layer, int32 [C]: rank of each channel, 0 the least important.

  ValueError for weights that are not the network's, or not finite; in a compiled function they
  are not checked.
  """
  if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(variables)):
    weights.check(network, variables)

  def rank(values):
    order = jnp.argsort(values, stable=True)
    return jnp.zeros_like(order).at[order].set(jnp.arange(order.size)).astype(jnp.int32)

  return tuple(rank(values) for values in importance(network, variables))


def masks(plan: plans.Plan, channel_ranks: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
  """Per activation layer, bool [C]: True where the channel is replaced (Eq. 3)."""
  counts = plans.replaced_channels(plan, jnp.asarray([rank.size for rank in channel_ranks]))
  return tuple(rank < count for rank, count in zip(channel_ranks, counts))

"""The mode `minionn`, as `serve --mode=minionn` and estimates see it."""

import math

from safenet_jax.protocol.delphi import costs, material, server_offline
from safenet_jax.protocol.delphi.mode import Mode
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.protocol.minionn import offline, online, structure


class Costs(costs.Costs):
  """What only the mode `minionn` does; that circuits come online is in the layers' structure."""

  @classmethod
  def held(cls, structure: Structure) -> dict[str, int]:
    found = super().held(structure)
    garbled = [layer for layer in structure.activations if layer.blocks]
    shares = sum(math.prod((*layer.form.map_shape, layer.form.relu)) for layer in garbled)
    found['client'] += 8 * shares
    return found


MINIONN = Mode(
  name='minionn',
  client_offline=offline.ClientOffline,
  client_online=online.ClientOnline,
  server_offline=server_offline.ServerOffline,
  server_online=online.ServerOnline,
  server_material=material.ServerMaterial,
  kept_in_files=True,
  costs=Costs,
  activation=structure.ActivationStructure,
)

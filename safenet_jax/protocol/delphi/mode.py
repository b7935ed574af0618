"""What a mode is, and Delphi's mode, in which linear layers are prepared for known masks."""

from collections.abc import Callable
import dataclasses

from safenet_jax.fixed_point.model import PublicModel
from safenet_jax.protocol.delphi import client_offline, costs, material, online, server_offline
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure


def _serves_all(structure: Structure) -> None:
  """Refuses nothing."""
  del structure


@dataclasses.dataclass(frozen=True)
class Mode:
  """How a network is served: both parties' phases, and what other modules need to know of them.

  name: what `serve --mode` and descriptions call it.
  client_offline, client_online, server_offline, server_online: classes of the phases. All
    are made from a party and an output, and the online ones from materials too.
  server_material: class of what the server keeps of a preparation.
  kept_in_files: whether a client's preparations can be kept in a directory.
  costs: counts what only this mode does, for estimates.
  check: raises ValueError for a structure that this mode does not serve.
  activation: class of what both parties know of an activation layer.
  """

  name: str
  client_offline: type[client_offline.ClientOffline]
  client_online: type[online.ClientOnline]
  server_offline: type[server_offline.ServerOffline]
  server_online: type[online.ServerOnline]
  server_material: type[material.ServerMaterial]
  kept_in_files: bool
  costs: type[costs.Costs]
  check: Callable[[Structure], None] = _serves_all
  activation: type[ActivationStructure] = ActivationStructure

  def structure(self, model: PublicModel) -> Structure:
    """What both parties know of an inference; ValueError for a model that is not served."""
    found = Structure.of(model, self.activation)
    self.check(found)
    return found


DELPHI = Mode(
  name='delphi',
  client_offline=client_offline.ClientOffline,
  client_online=online.ClientOnline,
  server_offline=server_offline.ServerOffline,
  server_online=online.ServerOnline,
  server_material=material.ServerMaterial,
  kept_in_files=True,
  costs=costs.Costs,
)

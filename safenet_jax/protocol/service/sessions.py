"""How the linear layers are served: Delphi's way, or Gazelle's as a baseline."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, NamedTuple

from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.delphi import client_offline as offline_client
from safenet_jax.protocol.delphi import keys, material, message_shapes, online
from safenet_jax.protocol.delphi import server_offline as offline_server
from safenet_jax.protocol.delphi.keys import ClientKeys, ServerKeys
from safenet_jax.protocol.gazelle import correlations
from safenet_jax.protocol.gazelle import offline as gazelle_offline
from safenet_jax.protocol.gazelle import online as gazelle_online
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError


class Mode(NamedTuple):
  """Both parties' phases, and what the server keeps between them.

  encrypted_online: whether an inference needs the session's keys.
  """

  client_offline: type[offline_client.ClientOffline]
  client_online: type[online.ClientOnline]
  server_offline: type[offline_server.ServerOffline]
  server_online: type[online.ServerOnline]
  server_material: type[material.ServerMaterial]
  encrypted_online: bool


MODES = {
  'delphi': Mode(
    offline_client.ClientOffline,
    online.ClientOnline,
    offline_server.ServerOffline,
    online.ServerOnline,
    material.ServerMaterial,
    False,
  ),
  'gazelle': Mode(
    gazelle_offline.ClientOffline,
    gazelle_online.ClientOnline,
    gazelle_offline.ServerOffline,
    gazelle_online.ServerOnline,
    correlations.ServerMaterial,
    True,
  ),
}


class ClientSession:
  """The client's side of one connection; its keys are made when they are first needed.

  `structures` are by output, those of `structure.OUTPUTS` that are served.
  """

  def __init__(
    self,
    mode: Mode,
    channel: Channel,
    model: FixedPointModel,
    structures: Mapping[str, Structure],
    randomness: Randomness,
  ):
    self._mode, self._randomness = mode, randomness
    self._channel, self._model, self._structures = channel, model, structures
    self._keys: ClientKeys | None = None
    self._phases: dict[str, offline_client.ClientOffline] = {}

  def prepare(self, count: int, output: str):
    """As `ClientOffline.prepare`, once the server is asked to."""
    if output not in self._phases:
      self._phases[output] = self._mode.client_offline(
        self._channel, self._model, self._structures[output], self._own_keys(), self._randomness
      )
    return self._phases[output].prepare(count)

  def infer(self, materials: Sequence, images, output: str) -> Any:
    """As `ClientOnline.run`, once the server is asked to."""
    extra = (self._own_keys(), self._randomness) if self._mode.encrypted_online else ()
    return self._mode.client_online(
      self._channel, self._model, self._structures[output], materials, *extra
    ).run(images)

  @functools.cached_property
  def lot(self) -> int:
    """How many images share the flights of their offline phase."""
    return min(
      message_shapes.lot(structure, self._contexts[0]) for structure in self._structures.values()
    )

  @functools.cached_property
  def _contexts(self) -> dict[int, bfv.Context]:
    # The same for every output.
    return keys.contexts(next(iter(self._structures.values())))

  def _own_keys(self) -> ClientKeys:
    if self._keys is None:
      structure = next(iter(self._structures.values()))
      self._keys = keys.client(self._channel, structure, self._contexts, self._randomness)
    return self._keys


class ServerSession:
  """The server's side of one connection; `structures` as for `ClientSession`."""

  def __init__(
    self,
    mode: Mode,
    channel: Channel,
    model: FixedPointModel,
    structures: Mapping[str, Structure],
    contexts: dict,
    linear: offline_server.LinearReplies,
    randomness: Randomness,
  ):
    self._mode, self._randomness = mode, randomness
    self._channel, self._model, self._structures = channel, model, structures
    self._contexts, self._linear = contexts, linear
    self._keys: ServerKeys | None = None
    self._phases: dict[str, offline_server.ServerOffline] = {}

  def prepare(self, count: int, output: str):
    """As `ServerOffline.prepare`; ProtocolError for an output that is not served."""
    structure = self._structure(output)
    if output not in self._phases:
      self._phases[output] = self._mode.server_offline(
        self._channel, structure, self._own_keys(), self._linear, self._randomness
      )
    return self._phases[output].prepare(count)

  def infer(self, materials: Sequence, output: str) -> None:
    """As `ServerOnline.run`; ProtocolError for materials that are for another output."""
    structure = self._structure(output)
    for each in materials:
      if each.output != output:
        raise ProtocolError(f'a preparation for {each.output}, want one for {output}')
    extra = (self._own_keys(), self._linear) if self._mode.encrypted_online else ()
    self._mode.server_online(self._channel, self._model, structure, materials, *extra).run()

  def _structure(self, output: str) -> Structure:
    if output not in self._structures:
      raise ProtocolError(f'output {output}, want {" or ".join(self._structures)}')
    return self._structures[output]

  def _own_keys(self) -> ServerKeys:
    if self._keys is None:
      structure = next(iter(self._structures.values()))
      self._keys = keys.server(self._channel, structure, self._contexts, self._randomness)
    return self._keys

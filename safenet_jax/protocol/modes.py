"""How the linear layers are served: Delphi's way, or Gazelle's as a baseline."""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

from safenet_jax.crypto import homomorphic
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.protocol import gazelle
from safenet_jax.protocol import gazelle_offline
from safenet_jax.protocol import gazelle_online
from safenet_jax.protocol import material
from safenet_jax.protocol import offline
from safenet_jax.protocol import offline_client
from safenet_jax.protocol import offline_server
from safenet_jax.protocol import online
from safenet_jax.protocol import session
from safenet_jax.protocol.channel import Channel
from safenet_jax.protocol.formats import FixedPointModel
from safenet_jax.protocol.session import ClientKeys, ServerKeys
from safenet_jax.protocol.structure import Structure


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
        offline_client.ClientOffline, online.ClientOnline,
        offline_server.ServerOffline, online.ServerOnline, material.ServerMaterial, False,
    ),
    'gazelle': Mode(
        gazelle_offline.ClientOffline, gazelle_online.ClientOnline,
        gazelle_offline.ServerOffline, gazelle_online.ServerOnline, gazelle.ServerMaterial, True,
    ),
}


class ClientSession:
  """The client's side of one connection; its keys are made when they are first needed."""

  def __init__(
      self, mode: Mode, channel: Channel, model: FixedPointModel, structure: Structure,
      randomness: Randomness,
  ):
    self._mode, self._randomness = mode, randomness
    self._parts = channel, model, structure
    self._keys: ClientKeys | None = None
    self._phase: offline_client.ClientOffline | None = None

  def prepare(self, count: int):
    """As `ClientOffline.prepare`, once the server is asked to."""
    if self._phase is None:
      self._phase = self._mode.client_offline(*self._parts, self._own_keys(), self._randomness)
    return self._phase.prepare(count)

  def infer(self, materials: Sequence, images) -> Any:
    """As `ClientOnline.run`, once the server is asked to."""
    extra = (self._own_keys(), self._randomness) if self._mode.encrypted_online else ()
    return self._mode.client_online(*self._parts, materials, *extra).run(images)

  @functools.cached_property
  def lot(self) -> int:
    """How many images share the flights of their offline phase."""
    return offline.lot(self._parts[-1], self._contexts[0])

  @functools.cached_property
  def _contexts(self) -> dict[int, homomorphic.Context]:
    return session.contexts(self._parts[-1])

  def _own_keys(self) -> ClientKeys:
    if self._keys is None:
      channel, _, structure = self._parts
      self._keys = session.client(channel, structure, self._contexts, self._randomness)
    return self._keys


class ServerSession:
  """The server's side of one connection."""

  def __init__(
      self, mode: Mode, channel: Channel, model: FixedPointModel, structure: Structure,
      contexts: dict, linear: offline_server.LinearReplies, randomness: Randomness,
  ):
    self._mode, self._randomness = mode, randomness
    self._channel, self._model, self._structure = channel, model, structure
    self._contexts, self._linear = contexts, linear
    self._keys: ServerKeys | None = None
    self._phase: offline_server.ServerOffline | None = None

  def prepare(self, count: int):
    """As `ServerOffline.prepare`."""
    if self._phase is None:
      self._phase = self._mode.server_offline(
          self._channel, self._structure, self._own_keys(), self._linear, self._randomness
      )
    return self._phase.prepare(count)

  def infer(self, materials: Sequence) -> None:
    """As `ServerOnline.run`."""
    extra = (self._own_keys(), self._linear) if self._mode.encrypted_online else ()
    self._mode.server_online(
        self._channel, self._model, self._structure, materials, *extra
    ).run()

  def _own_keys(self) -> ServerKeys:
    if self._keys is None:
      self._keys = session.server(self._channel, self._structure, self._contexts, self._randomness)
    return self._keys

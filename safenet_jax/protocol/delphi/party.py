"""A party in one session: what each of its phases is given."""

import dataclasses

from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.model import FixedPointModel, PublicModel
from safenet_jax.protocol.delphi import keys
from safenet_jax.protocol.delphi.keys import ClientKeys, ServerKeys
from safenet_jax.protocol.delphi.linear_replies import LinearReplies
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.transport.channel import Channel


@dataclasses.dataclass(eq=False)
class _Party:
  """What both parties have.

  channel: to the other party.
  structure: of the served model.
  contexts: of homomorphic encryption, from `keys.contexts`; they hold no secret, and
    sessions may share them.
  randomness: what this party draws its secrets from.
  """

  channel: Channel
  structure: Structure
  contexts: dict[int, bfv.Context]
  randomness: Randomness


@dataclasses.dataclass(eq=False)
class ClientParty(_Party):
  """The client: it has its keys, and of the model it knows the public part and nothing else.

  model: that public part.
  """

  model: PublicModel
  # Not a `cached_property`: up to Python 3.11 this has one lock for all parties of a process, and
  # a peer that sends nothing would keep all others from their keys.
  _keys: ClientKeys | None = dataclasses.field(default=None, init=False)

  @property
  def keys(self) -> ClientKeys:
    """The session's keys; the first access exchanges messages with the server.

    So a phase that needs them has to ask for them at its start, as the server's phase does.
    """
    if self._keys is None:
      self._keys = keys.client(self.channel, self.contexts, self.randomness)
    return self._keys


@dataclasses.dataclass(eq=False)
class ServerParty(_Party):
  """The server: it has the weights too.

  model: the whole model.
  linear: answers what clients encrypt for linear layers.
  """

  model: FixedPointModel
  linear: LinearReplies
  _keys: ServerKeys | None = dataclasses.field(default=None, init=False)

  @property
  def keys(self) -> ServerKeys:
    """The session's keys; the first access exchanges the same messages as `ClientParty.keys`."""
    if self._keys is None:
      self._keys = keys.server(self.channel, self.contexts, self.randomness)
    return self._keys

"""A party in one session: what every phase of it is given."""

import dataclasses
import functools

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
  """What both have.

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
  """The client: with its keys, it knows the public part of the model and nothing else."""

  model: PublicModel

  @functools.cached_property
  def keys(self) -> ClientKeys:
    """The session's keys, from messages with the server when they are first asked for.

    A phase that needs them asks for them at its start, as the server's does.
    """
    return keys.client(self.channel, self.contexts, self.randomness)


@dataclasses.dataclass(eq=False)
class ServerParty(_Party):
  """The server: it has the weights too.

  linear: answers what clients encrypt for linear layers.
  """

  model: FixedPointModel
  linear: LinearReplies

  @functools.cached_property
  def keys(self) -> ServerKeys:
    """As those of `ClientParty`, from the same messages."""
    return keys.server(self.channel, self.contexts, self.randomness)

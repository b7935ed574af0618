"""Both parties of a session in two threads of this process."""

import dataclasses
import functools
import time
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.protocol.delphi import keys, linear_replies
from safenet_jax.protocol.delphi.party import ClientParty, ServerParty
from safenet_jax.protocol.layers import share_walks
from safenet_jax.protocol.service import sessions
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.ledger import Ledger
from tests.support import peers, shares

context = functools.lru_cache(8)(bfv.Context)


@dataclasses.dataclass
class Run:
  """What a session leaves: materials, logits, and every share by layer name.

  sizes: bytes of the server's materials before they were used, and as they were foreseen.
  """

  client: list
  server: list
  logits: np.ndarray
  c: list
  s: dict
  m: dict
  ledgers: tuple
  sizes: list

  def trace(self, model):
    """What the shares of every linear and activation layer stand for, by name."""
    found = {}
    for name, server in self.s.items():
      if name.startswith(('activation', 'max_pool')):
        client = [material.layers[name].mask for material in self.client]
      else:
        client = [c[name] for c in self.c]
      found[name] = shares.reconstruct(model, name, np.concatenate(client), server)
    return found


def set_up(model, mode='delphi'):
  """The structure of a model and contexts, which both parties have; no secret is in them."""
  structure = sessions.MODES[mode].structure(model.public)
  parameters = keys.parameters(structure, b'model id')
  return structure, {modulus: context(found) for modulus, found in parameters.items()}


def client_party(channel, model, structure, contexts, randomness=None):
  """A client, which has the public part of the model alone."""
  randomness = randomness or SystemRandomness()
  return ClientParty(channel, structure, contexts, randomness, model=model.public)


def server_party(channel, model, structure, contexts, randomness=None):
  """A server that computes in its own thread."""
  randomness = randomness or SystemRandomness()
  linear = linear_replies.InSession(model.linear, structure, contexts, randomness)
  return ServerParty(channel, structure, contexts, randomness, model, linear)


def run(model, images, *, mode='delphi', output='logits'):
  """Prepares for and infers a batch over a socket pair; the ledgers have each party's seconds."""
  structure, contexts = set_up(model, mode)
  client, server, shares, s, m = _observed(sessions.MODES[mode], len(images))
  sizes: list[tuple[int, int]] = []

  with peers.channels(timeout=600) as (ours, theirs):
    ours.ledger, theirs.ledger = Ledger(time.thread_time), Ledger(time.thread_time)

    def run_client():
      party = client_party(ours, model, structure, contexts)
      prepared = list(client.offline(party, output).prepare(len(images)))
      return prepared, client.online(party, output, prepared).run(images)

    def run_server():
      party = server_party(theirs, model, structure, contexts)
      prepared = list(server.offline(party, output).prepare(len(images)))
      sizes.extend((each.nbytes, type(each).size(structure, output)) for each in prepared)
      server.online(party, output, prepared).run()
      return prepared

    original, share_walks.Shares = (
      share_walks.Shares,
      _shares(shares) if mode != 'gazelle' else share_walks.Shares,
    )
    try:
      results = peers.both(_ending(ours, run_client), _ending(theirs, run_server))
    finally:
      share_walks.Shares = original
    # A party that fails leaves the other with a closed channel: what it says comes last.
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, ProtocolError)):
      raise error
    (mine, logits), prepared = results
    return Run(mine, prepared, logits, shares, s, m, (ours.ledger, theirs.ledger), sizes)


def _ending(channel, function):
  """The function, after whose error the peer does not wait for its timeout."""

  def run():
    try:
      return function()
    except BaseException:
      channel.abort('an error')
      raise

  return run


class Phases(NamedTuple):
  """A party's classes."""

  offline: type
  online: type


def _observed(mode, images):
  """Both parties' phases, and where they leave c, s and m."""
  shares, s, m = [], {}, {}

  class Server(mode.server_online):
    def conv(self, name, layer, value):
      m[name] = value
      s[name] = super().conv(name, layer, value)
      return s[name]

    dense = conv

    def truncate(self, name, layer, value):
      s[name] = super().truncate(name, layer, value)
      return s[name]

    def activation(self, name, layer, value):
      s[name] = super().activation(name, layer, value)
      return s[name]

  server = Phases(mode.server_offline, Server)
  if mode.name != 'gazelle':
    return Phases(mode.client_offline, mode.client_online), server, shares, s, m
  shares += [{} for _ in range(images)]

  class Client(mode.client_online):
    def conv(self, name, layer, value):
      c = super().conv(name, layer, value)
      for found, share in zip(shares, c):
        found[name] = share[None]
      return c

    dense = conv

    def truncate(self, name, layer, value):
      c = super().truncate(name, layer, value)
      for found, share in zip(shares, c):
        found[name] = share[None]
      return c

  return Phases(mode.client_offline, Client), server, shares, s, m


def _shares(found):
  """The walk of Delphi's client, which leaves its shares."""

  class Shares(share_walks.Shares):
    def __init__(self, model, masks, outputs):
      super().__init__(model, masks, outputs)
      found.append(outputs)

    def truncate(self, name, layer, share):
      self.outputs[name] = super().truncate(name, layer, share)
      return self.outputs[name]

  return Shares

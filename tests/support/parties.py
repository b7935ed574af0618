"""Both parties of a session in two threads of this process."""

import dataclasses
import time
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.protocol.delphi import client_offline, online, server_offline
from safenet_jax.protocol.delphi import keys as session
from safenet_jax.protocol.gazelle import offline as gazelle_offline
from safenet_jax.protocol.gazelle import online as gazelle_online
from safenet_jax.protocol.layers import share_walks
from safenet_jax.protocol.layers import structure as structures
from safenet_jax.protocol.service import description
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.ledger import Ledger
from tests.support import peers


class Linear:
  """Homomorphic replies in this process."""

  def __init__(self, model, structure, context, randomness):
    self.weights = {
      name: encrypted_convolution.prepare(
        context, layer, model.linear[name].kernel.reshape(layer.kernel_shape)
      )
      for name, layer in structure.linear.items()
    }
    self.randomness = randomness

  def reply(self, keys, name, upload, tag):
    return encrypted_convolution.reply(
      keys.publics[0], self.weights[name], upload, self.randomness, tag
    )


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

  def trace(self, bits):
    """What the shares of every linear and activation layer stand for, by name."""
    found = {}
    for name, server in self.s.items():
      if name.startswith('activation'):
        client = [material.layers[name].mask for material in self.client]
      else:
        client = [c[name] for c in self.c]
      found[name] = ring.reconstruct(np.concatenate(client), server, bits)
    return found


def run(model, images, *, mode='delphi', output='logits'):
  """Prepares for and infers a batch over a socket pair; the ledgers have each party's seconds."""
  public = description.describe(model, SystemRandomness()).client_model()
  structure = structures.structure(model, output)
  assert structures.structure(public, output) == structure
  contexts = {
    modulus: bfv.Context(parameters)
    for modulus, parameters in session.parameters(structure).items()
  }
  client, server, shares, s, m = _observed(mode, len(images))
  sizes: list[tuple[int, int]] = []

  with peers.channels(timeout=600) as (ours, theirs):
    ours.ledger, theirs.ledger = Ledger(time.thread_time), Ledger(time.thread_time)

    def run_client():
      randomness = SystemRandomness()
      keys = session.client(ours, structure, contexts, randomness)
      phase = client.offline(ours, public, structure, keys, randomness)
      prepared = list(phase.prepare(len(images)))
      extra = (keys, randomness) if mode == 'gazelle' else ()
      return prepared, client.online(ours, public, structure, prepared, *extra).run(images)

    def run_server():
      randomness = SystemRandomness()
      keys = session.server(theirs, structure, contexts, randomness)
      linear = Linear(model, structure, contexts[0], randomness)
      phase = server.offline(theirs, structure, keys, linear, randomness)
      prepared = list(phase.prepare(len(images)))
      sizes.extend((each.nbytes, type(each).size(structure)) for each in prepared)
      extra = (keys, linear) if mode == 'gazelle' else ()
      server.online(theirs, model, structure, prepared, *extra).run()
      return prepared

    original, share_walks.Shares = (
      share_walks.Shares,
      _shares(shares) if mode == 'delphi' else share_walks.Shares,
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
  theirs = {'delphi': online, 'gazelle': gazelle_online}[mode]

  class Server(theirs.ServerOnline):
    def conv(self, name, layer, value):
      m[name] = value
      s[name] = super().conv(name, layer, value)
      return s[name]

    dense = conv

    def activation(self, name, layer, value):
      s[name] = super().activation(name, layer, value)
      return s[name]

  if mode == 'delphi':
    client = Phases(client_offline.ClientOffline, online.ClientOnline)
    return client, Phases(server_offline.ServerOffline, Server), shares, s, m
  shares += [{} for _ in range(images)]

  class Client(gazelle_online.ClientOnline):
    def conv(self, name, layer, value):
      c = super().conv(name, layer, value)
      for found, share in zip(shares, c):
        found[name] = share[None]
      return c

    dense = conv

  client = Phases(gazelle_offline.ClientOffline, Client)
  return client, Phases(gazelle_offline.ServerOffline, Server), shares, s, m


def _shares(found):
  """The walk of Delphi's client, which leaves its shares."""

  class Shares(share_walks.Shares):
    def __init__(self, model, masks, outputs):
      super().__init__(model, masks, outputs)
      found.append(outputs)

  return Shares

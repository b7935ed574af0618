"""Both parties of a session in two threads of this process."""

import dataclasses

import numpy as np

from safenet_jax.crypto import encrypted_convolution
from safenet_jax.crypto import homomorphic
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.protocol import description
from safenet_jax.protocol import local
from safenet_jax.protocol import offline_client
from safenet_jax.protocol import offline_server
from safenet_jax.protocol import online
from safenet_jax.protocol import session
from safenet_jax.protocol import structure as structures
from tests.protocol import peers


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
  """What a session leaves: materials, logits, and every share by layer name."""

  client: list
  server: list
  logits: np.ndarray
  c: list
  s: dict
  m: dict
  ledgers: tuple


def run(model, images, *, tamper=None):
  """Prepares for and infers a batch over a socket pair."""
  public = description.describe(model, SystemRandomness()).client_model()
  structure = structures.structure(model)
  assert structures.structure(public) == structure
  contexts = {
      modulus: homomorphic.Context(parameters)
      for modulus, parameters in session.parameters(structure).items()
  }
  shares, s, m = [], {}, {}

  class Shares(local.Shares):
    def __init__(self, model, masks, outputs):
      super().__init__(model, masks, outputs)
      shares.append(outputs)

  class Server(online.ServerOnline):
    def conv(self, name, layer, value):
      m[name] = value
      s[name] = super().conv(name, layer, value)
      return s[name]

    dense = conv

  with peers.channels() as (ours, theirs):

    def client():
      randomness = SystemRandomness()
      keys = session.client(ours, structure, contexts, randomness)
      phase = offline_client.ClientOffline(ours, public, structure, keys, randomness)
      prepared = list(phase.prepare(len(images)))
      return prepared, online.ClientOnline(ours, public, structure, prepared).run(images)

    def server():
      randomness = SystemRandomness()
      keys = session.server(theirs, structure, contexts, randomness)
      linear = Linear(model, structure, contexts[0], randomness)
      phase = offline_server.ServerOffline(theirs, structure, keys, linear, randomness)
      prepared = list(phase.prepare(len(images)))
      Server(theirs, model, structure, prepared).run()
      return prepared

    original, local.Shares = local.Shares, Shares
    try:
      results = peers.both(client, server)
    finally:
      local.Shares = original
    for result in results:
      if isinstance(result, BaseException):
        raise result
    (mine, logits), prepared = results
    return Run(mine, prepared, logits, shares, s, m, (ours.ledger, theirs.ledger))

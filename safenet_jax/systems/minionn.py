"""MiniONN (Liu et al., eprint 2017/452): dot-product triplets offline, circuits garbled online.

Its protocol is the mode `minionn` of `safenet serve`; `protocol.minionn.online` shows the messages,
and says what they hide and what differs from the paper. Here it runs on a channel alone. The
network is the paper's for MNIST (Figure 12).

    client                                      server
                     <-- seed --------------    drawn before it hears of the client
    then the messages of the mode `minionn`
"""

import numpy as np

from safenet_jax.crypto.homomorphic import residues
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.model import FixedPointModel, PublicModel
from safenet_jax.models import layers
from safenet_jax.protocol.delphi import keys, linear_replies
from safenet_jax.protocol.delphi.party import ClientParty, ServerParty
from safenet_jax.protocol.minionn.mode import MINIONN
from safenet_jax.transport.channel import Channel

# Of an image, and of the network.
SHAPE = 28, 28, 1
LAYERS = (
  layers.Conv(16, kernel=5, batch_norm=False, padding=layers.NO_PADDING),
  layers.Activation(),
  layers.MaxPool(2),
  layers.Conv(16, kernel=5, batch_norm=False, padding=layers.NO_PADDING),
  layers.Activation(),
  layers.MaxPool(2),
  layers.Flatten(),
  layers.Dense(100),
  layers.Activation(),
  layers.Dense(10),
)


def client(
  channel: Channel, public: PublicModel, images: np.ndarray, randomness: Randomness
) -> np.ndarray:
  """The logits, float64 [B, classes], of images uint8 [B, H, W, C]; ValueError for other images."""
  public.encode(images)  # raises before anything is sent
  structure = MINIONN.structure(public)
  with channel.scope(phase='setup', layer='session', primitive='keys'):
    (seed,) = channel.receive('seed', [(bytes, (residues.SEED_BYTES,))])
  contexts = keys.contexts(structure, seed)
  party = ClientParty(channel, structure, contexts, randomness, model=public)
  prepared = list(MINIONN.client_offline(party, 'logits').prepare(len(images)))
  return public.decode(MINIONN.client_online(party, 'logits', prepared).run(images))


def server(channel: Channel, model: FixedPointModel, images: int, randomness: Randomness) -> None:
  """Serves one client, for so many images."""
  structure = MINIONN.structure(model.public)
  seed = randomness.bytes(residues.SEED_BYTES)
  contexts = keys.contexts(structure, seed)
  linear = linear_replies.InSession(model.linear, structure, contexts, randomness)
  with channel.scope(phase='setup', layer='session', primitive='keys'):
    channel.send('seed', seed)
  party = ServerParty(channel, structure, contexts, randomness, model, linear)
  prepared = list(MINIONN.server_offline(party, 'logits').prepare(images))
  MINIONN.server_online(party, 'logits', prepared).run()

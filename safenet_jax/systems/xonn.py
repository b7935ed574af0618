"""XONN (Riazi et al., USENIX Security 2019, eprint 2019/171): a binary network, garbled whole.

Weights and activations are -1 and 1 (`bit_network`). So products are XNORs, which are free, and a
neuron is a count and a comparison (section 3.2). Only the first layer reads integers. Its sums come
from oblivious transfers (the paper's oblivious conditional addition): for a pixel x and a weight w
of 0 or 1 for -1 or 1, they share w 2 x, and the client takes off x.

The server is the garbler, the client the evaluator. bits is the width of the first layer's sums, c
a uniform share that the client draws, s the server's. For each weight the client gets pads p_0 and
p_1, and the server p_w (`word_transfer`). theta is the threshold.

             client                                    server
  offline                                              choices w
             <-- transfers of w, hash keys -----------
             --- transfers of c's bits ------------->  labels of c
             <-- tables, decoding of the scores -----  (online, if they are too many to keep)
  online     --- e = sum of x + sum of p_0 + c ----->
             --- d = 2 x + p_0 - p_1 --------------->  s = sum of (p_w + w d) - e - theta
             <-- labels of s ------------------------
             garbled: c + s >= 0, then all layers; scores

sum of (p_w + w d) is sum of (w 2 x + p_0), so that c + s is the sum of (2 w - 1) x, less theta.

What the server sees: transfers are uniform to it; e holds c, which is uniform and nowhere else but
in choices that the server does not learn; each d holds a pad that it does not know. What the client
sees: transfers of w are uniform to it, and so are hash keys; of each bit of s one label; tables, by
`garbling` and `chained`; and what decodes the scores. Those are counts in the last layer, the
network's logits. So beside the result the client learns the shape of the network. Where neurons
read only some places of their windows (`soteria`), the client learns which.

A network of a few MB of tables is garbled offline. A larger one is garbled and evaluated block by
block online, so that neither party holds more than a few blocks. Both ways take one round online.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing, messages
from safenet_jax.crypto.garbled_circuits import garbled_block
from safenet_jax.crypto.garbled_circuits.garbled_block import GarbledBlock
from safenet_jax.crypto.oblivious_transfer import correlated_transfer, word_transfer
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.protocol.delphi import keys
from safenet_jax.systems import bit_garbling, bit_network
from safenet_jax.systems.bit_network import BitNetwork, Pool, Sums
from safenet_jax.transport import frames, packed_words
from safenet_jax.transport.channel import Channel

# The two uses of transfers in a session.
_WEIGHTS, _SHARES = b'weights', b'shares'


class First(NamedTuple):
  """The sizes of the first layer for so many images.

  neurons: outputs x windows x images, in that order; `inputs` weights each.
  bits: of the ring of its sums less a threshold.
  """

  neurons: int
  inputs: int
  bits: int

  @property
  def transfers(self) -> int:
    """One for every weight of every neuron."""
    return self.neurons * self.inputs

  @property
  def mask(self) -> np.uint64:
    """The bits of the ring."""
    return np.uint64((1 << self.bits) - 1)

  @property
  def words(self) -> list[packed_words.Words]:
    """e and d."""
    return [
      packed_words.Words((self.neurons,), self.bits),
      packed_words.Words((self.transfers,), self.bits),
    ]


def first(layers: Sequence[Sums | Pool], images: int) -> First:
  """Those sizes."""
  layer = bit_network.linear(layers[0])
  most = 2 * bit_network.CENTRE * layer.inputs + 1
  return First(layer.neurons * images, layer.inputs, most.bit_length() + 1)


def _read(layer: Sums, values: np.ndarray) -> np.ndarray:
  """What every neuron reads of a map [places, B]: uint64 [outputs, windows, B, K]."""
  edged = np.concatenate([values, np.zeros((1, values.shape[1]), values.dtype)])
  patches = layer.window.patches
  if layer.positions is None:
    index = np.broadcast_to(patches, (layer.outputs, *patches.shape))
  else:
    index = patches[:, layer.positions].swapaxes(0, 1)
  return edged[index].swapaxes(2, 3).astype(np.uint64)


def client(
  channel: Channel,
  layers: Sequence[Sums | Pool],
  images: np.ndarray,
  randomness: Randomness,
  streamed: bool = False,
) -> np.ndarray:
  """The logits int64 [B, classes] of images uint8 [B, H, W, C].

  Args:
    channel: to the server.
    layers: of the network; the secrets are the server's.
    images: asked for together.
    randomness: of the client's secrets.
    streamed: whether tables come online; both parties have to say the same.

  Raises:
    ValueError: images of another size than the network reads.
  """
  pixels = bit_network.centred(layers[0], images)
  begin, last = bit_network.linear(layers[0]), bit_network.linear(layers[-1])
  sizes = first(layers, len(images))
  own = keys.client(channel, {}, randomness)

  with channel.scope(phase='offline', layer='first', primitive='transfers'):
    message = _receive_transfers(channel, 'weights', sizes.transfers)
    labels = frames.checked(own.words.extend, own.nonce + _WEIGHTS, message, sizes.transfers)
    blocks = -(-sizes.transfers // hashing.MAX_ROWS)
    (drawn,) = channel.receive('hash keys', [(np.uint8, (blocks, hashing.KEY_BYTES))])
    pads = word_transfer.sender_pads(labels, own.delta, drawn)
    c = randomness.ring(sizes.bits, sizes.neurons)
    message, ours = own.labels.extend(
      own.nonce + _SHARES, _packed(_bits(c, sizes.bits)), sizes.bits * sizes.neurons
    )
    channel.send('shares', message.identifier, message.words)
  received: Iterator[GarbledBlock] = _blocks(channel, layers, sizes, len(images), streamed)
  shape = bit_garbling.score_bits(last.inputs), last.outputs, len(images)
  if not streamed:
    received = iter(list(received))
    decoding = _receive_decoding(channel, 'offline', shape)

  with channel.scope(phase='online', layer='first', primitive='inputs'):
    x = _read(begin, pixels).reshape(sizes.neurons, sizes.inputs)
    base = pads.words[0].reshape(x.shape).sum(axis=1)
    e = (x.sum(axis=1) + base + c) & sizes.mask
    d, _ = word_transfer.send_products((2 * x).reshape(-1) & sizes.mask, pads, bits=sizes.bits)
    channel.send('identifier', d.identifier)
    packed_words.send(channel, 'inputs', sizes.words, [e, d.words])
  with channel.scope(phase='online', layer='first', primitive='labels'):
    (theirs,) = channel.receive('labels', [(np.uint64, (sizes.bits, sizes.neurons, 2))])
  with channel.scope(phase='online', layer='all', primitive='evaluation'):
    both = np.concatenate([ours.reshape(theirs.shape), theirs])
    both = both.reshape(len(both), -1, len(images), 2)
    scores = frames.checked(bit_garbling.evaluate, layers, both, received)
  if streamed:
    decoding = _receive_decoding(channel, 'online', shape)
  bits = (scores[..., 0] & np.uint64(1)).astype(np.int64) ^ decoding
  return (bits << np.arange(len(bits))[:, None, None]).sum(axis=0).T


def server(
  channel: Channel,
  network: BitNetwork,
  images: int,
  randomness: Randomness,
  streamed: bool = False,
) -> None:
  """Serves the network to a client that asks for so many images; arguments as for `client`."""
  begin, secret = bit_network.linear(network.layers[0]), network.weights(0)
  sizes = first(network.layers, images)
  own = keys.server(channel, {}, randomness)

  with channel.scope(phase='offline', layer='first', primitive='transfers'):
    each = begin.outputs, len(begin.window.patches) * images, sizes.inputs
    choices = _packed(np.broadcast_to(secret.signs[:, None], each))
    message, labels = own.words.extend(own.nonce + _WEIGHTS, choices, sizes.transfers)
    channel.send('weights', message.identifier, message.words)
    drawn = word_transfer.hash_keys(sizes.transfers, randomness)
    channel.send('hash keys', drawn)
    pads = word_transfer.receiver_pads(labels, drawn)
    count = sizes.bits * sizes.neurons
    message = _receive_transfers(channel, 'shares', count)
    theirs = frames.checked(own.labels.extend, own.nonce + _SHARES, message, count)
    ours = randomness.words((sizes.bits, sizes.neurons, 2))

  def garble(phase: str) -> None:
    with channel.scope(phase=phase, layer='all', primitive='tables'):
      zeros = np.concatenate([theirs.reshape(ours.shape), ours])
      zeros = zeros.reshape(len(zeros), -1, images, 2)

      def send(block: GarbledBlock) -> None:
        channel.send('tables', block.seed, block.check, block.tables)

      scores = bit_garbling.garble(network, zeros, own.delta, randomness, send)
      channel.send('decoding', (scores[..., 0] & np.uint64(1)).astype(np.uint8))

  if not streamed:
    garble('offline')
  with channel.scope(phase='online', layer='first', primitive='inputs'):
    (identifier,) = channel.receive('identifier', [(bytes, (messages.BYTES,))])
    e, d = packed_words.receive(channel, 'inputs', sizes.words)
    products = frames.checked(
      word_transfer.receive_products,
      messages.Words(identifier, d),
      choices,
      pads,
      bits=sizes.bits,
    )
    limits = np.repeat(secret.thresholds, each[1]).astype(np.uint64)
    s = (products.reshape(-1, sizes.inputs).sum(axis=1) - e - limits) & sizes.mask
  with channel.scope(phase='online', layer='first', primitive='labels'):
    channel.send('labels', ours ^ _bits(s, sizes.bits)[..., None] * own.delta)
  if streamed:
    garble('online')


def _bits(words: np.ndarray, width: int) -> np.ndarray:
  """uint64 [width, n] of words [n], the lowest bit first."""
  return words >> np.arange(width, dtype=np.uint64)[:, None] & np.uint64(1)


def _packed(bits: np.ndarray) -> np.ndarray:
  return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder='little')


def _receive_transfers(channel: Channel, tag: str, count: int) -> messages.Words:
  rows = 128 // correlated_transfer.GROUP_BITS['softspoken'], 2 * -(-count // 128)
  found = channel.receive(tag, [(bytes, (messages.BYTES,)), (np.uint64, rows)])
  return messages.Words(*found)


def _receive_decoding(channel: Channel, phase: str, shape: tuple[int, ...]) -> np.ndarray:
  """The values of labels of colour 0 of the scores' bits."""
  with channel.scope(phase=phase, layer='all', primitive='tables'):
    return channel.receive('decoding', [(np.uint8, shape)])[0]


def _blocks(
  channel: Channel, layers: Sequence[Sums | Pool], sizes: First, images: int, streamed: bool
) -> Iterator[GarbledBlock]:
  """The server's blocks, each received when it is asked for."""
  for gates, count in bit_garbling.blocks(layers, sizes.bits, images):
    with channel.scope(phase='online' if streamed else 'offline', layer='all', primitive='tables'):
      seed, check, tables = channel.receive(
        'tables',
        [
          (bytes, (garbled_block.SEED_BYTES,)),
          (bytes, (garbled_block.CHECK_BYTES,)),
          (np.uint64, garbled_block.tables_shape(gates, count)),
        ],
      )
    yield GarbledBlock(seed, check, tables)

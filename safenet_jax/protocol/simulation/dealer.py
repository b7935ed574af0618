"""A trusted dealer in place of the offline phase, for the simulator only.

The dealer hands out what homomorphic encryption and oblivious transfer (OT) would make.
It is called insecure because it sees both parties' secrets to do so. Every value that it
gives to one party is uniform given what that party knows, so that the online phase is
the real one.
"""

from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.formats import ActivationFormat, Rescale
from safenet_jax.protocol.layers import blocks, max_pool, polynomial, relu
from safenet_jax.transport.ledger import Ledger

_LABEL_BITS = 128


class Products(NamedTuple):
  """Shares of c'^j rho_j in F_p (`polynomial`), uint64 [products, ...] each.

  alphas (client) and betas (server) add up to the client's powers times `pads`, which are
  the server's rho_j.
  """

  alphas: np.ndarray
  betas: np.ndarray
  pads: np.ndarray


class Transfers(NamedTuple):
  """Random OTs, in which the client has two keys and the server gets one (`truncation`).

  keys: K_0 and K_1 of the client, uint64 [2, ...].
  choice: the server's random bits, uint64 [...].
  chosen: the keys that they choose, uint64 [...].
  """

  keys: np.ndarray
  choice: np.ndarray
  chosen: np.ndarray


class InsecureDealer:
  """Deals correlated randomness; every call draws anew and counts what it hands out."""

  def __init__(self, randomness: Randomness, ledger: Ledger):
    self.randomness, self.ledger = randomness, ledger
    self.delta = garbling.fresh_delta(randomness)
    self._garblers: dict[tuple, garbling.Garbler] = {}

  def _give(self, layer: str, primitive: str, values: np.ndarray, bits: int) -> None:
    self.ledger.send('offline', layer, f'dealt {primitive}', 'dealer', values, bits)

  def relu(
    self, layer: str, share: np.ndarray, form: ActivationFormat
  ) -> tuple[list[relu.ClientBlock], list[relu.ServerBlock]]:
    """Garbles a layer for the client's share c, uint64 [n].

    Deals the labels of the bits of c, and the shares of p c (`relu`).
    """
    circuit = relu.circuit(form)
    client, server = [], []
    for block in relu.cut(share.size):
      part = share[block.first : block.end]
      garbler = self._garbler(circuit, block.size)
      garbled, encoding = garbler.garble()
      self.ledger.send('offline', layer, 'garbled tables', 'server', garbled)
      labels = encoding.labels('client', relu.entering(part, form, block.size))
      self._give(layer, 'labels', labels[..., 0], _LABEL_BITS)
      key = relu.word_key(self.randomness, form)
      p = relu.colour_zero_bits(encoding)[: part.size]
      ours = self.randomness.ring(form.select_bits, part.size)
      self._give(layer, 'products', ours, 2 * form.select_bits)
      server.append(relu.ServerBlock(encoding, ring.reduce(p * part - ours, form.select_bits), key))
      client.append(relu.ClientBlock(garbled, labels, part, ours, key))
    return client, server

  def max_pool(
    self, layer: str, share: np.ndarray, form: ActivationFormat
  ) -> tuple[list[max_pool.ClientBlock], list[max_pool.ServerBlock]]:
    """Garbles a layer with max pools for the client's share c, uint64 [B, H, W, C].

    Deals the labels of the bits of c.
    """
    circuit = max_pool.circuit(form)
    words = max_pool.windows(share, form, server=False)
    client, server = [], []
    for block in max_pool.cut(form, len(share)):
      garbled, encoding = self._garbler(circuit, block.size).garble()
      bits = blocks.pack(
        words[:, block.first : block.end], form.sign_bits - form.dropped, block.size
      )
      labels = encoding.labels('client', bits)
      self._give(layer, 'labels', labels[..., 0], _LABEL_BITS)
      kept, mask_labels, decoding = max_pool.offline_server(
        encoding, self.randomness, form, block.count
      )
      for primitive, message in (
        ('garbled tables', garbled),
        ('mask labels', mask_labels),
        ('decoding', decoding),
      ):
        self.ledger.send('offline', layer, primitive, 'server', message)
      server.append(kept)
      client.append(max_pool.ClientBlock(garbled, labels, mask_labels, decoding))
    return client, server

  def _garbler(self, circuit, size):
    key = (circuit, size)
    if key not in self._garblers:
      self._garblers[key] = garbling.Garbler(circuit, size, self.randomness, delta=self.delta)
    return self._garblers[key]

  def products(self, layer: str, powers: np.ndarray, form: ActivationFormat) -> Products:
    """Shares of c'^j rho_j for the client's powers c'^j, uint64 [degree, ...]."""
    shape = (polynomial.products(form), *powers.shape[1:])
    alphas, pads = (self.randomness.residues(form.modulus, shape) for _ in range(2))
    p = np.uint64(form.modulus)
    dealt = ring.multiply_mod(np, powers[: shape[0]], pads, form.modulus)
    self._give(layer, 'products', pads, 3 * form.modulus.bit_length())
    return Products(alphas, (dealt + p - alphas) % p, pads)

  def transfers(self, layer: str, shape: tuple[int, ...], rescale: Rescale) -> Transfers:
    """Random OTs that truncate a block of `shape`, one for each value (`truncation`)."""
    keys = self.randomness.ring(rescale.wrap_bits, (2, *shape))
    choice = self.randomness.bits(shape).astype(np.uint64)
    self._give(layer, 'transfers', choice, 3 * rescale.wrap_bits + 1)
    return Transfers(keys, choice, np.where(choice == 1, keys[1], keys[0]))

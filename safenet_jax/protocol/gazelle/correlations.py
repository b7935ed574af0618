"""Gazelle as a baseline: linear layers under encryption online, circuits prepared offline.

This is Gazelle (Juvekar et al., eprint 2018/073) as a mode of this protocol. The client and
the server have shares x = x_c + x_s in Z_2^l of a linear layer's input, and shares
y = c + s of its output y = W x + b. In Delphi the client knows c offline, and the offline
phase prepares the activation layer behind for that c. Here c is known online only. So the
offline phase prepares the same things for random values in the place of c, and the online
phase corrects them.

             client                                   server
  offline    rho uniform bits, a_j uniform in F_p     garbles under fresh labels
               ---- choices rho, Enc(a_j) ----------------->
               <--- tables, Enc(a_j rho_j - beta_j), choices p and beta
             t = q xor rho delta                      q, labels Z of value 0
             w_0, w_1                                 w_p
             alpha_j                                  rho_j, beta_j
             K_0, K_1 as in `truncation`              K_beta
  online     for every linear layer
               ---- Enc(x_c) ------------------------------>
               <--- Enc(W x_c - u), masked -----------------
             c = W x_c - u                            s = W x_s + u + b
             for every activation layer
               ---- d = bits of c xor rho ----------------->
               ---- e = c + w_0 - w_1, g_j = c'^j - a_j --->
               <--- Z xor d delta xor q --------------------
               <--- as in Delphi: labels of s, words, delta_j, d
               ---- as in Delphi: E, B --------------------->
             x_c = r                                  x_s = m
    at first x_c is the image and x_s zero; at last the server sends s of the logits

The symbols, those of an activation layer as in `relu`, `polynomial` and `truncation` of
`protocol.layers`:
 - Enc is encryption under the client's key. u is the server's mask of a linear layer's
   output, and r the client's mask of the next one's input; m is that input less r.
 - delta is the difference of the two labels of every wire. Z are the labels of value 0 of
   the wires that the client's bits of c enter. q and t are the labels that correlated
   transfers leave with the server and with the client, who chooses with the bits rho.
 - p is the bit that colour 0 of a sign test's output stands for. w_0 and w_1 are random
   pads of the client, of which the server gets the one that it chooses with p, w_p.
 - c' is c truncated, and p in F_p is a prime. a_j are random factors in the place of the
   powers c'^j. rho_j are the server's random factors. alpha_j and beta_j are shares of the
   products a_j rho_j.
 - beta (without an index) are random bits of the server, which choose between the client's
   keys K_0 and K_1.
 - d of the client's message corrects labels. delta_j, the d of the server's message, E and
   B are the messages of `polynomial` and `truncation`.

Three corrections make an activation layer ready for c:
 - The client's labels are Z xor d delta xor q xor t = Z xor c delta, bit by bit.
 - The shares of p c are -w_0 (client) and w_p + p e (server).
 - With alpha + beta = sum_j a_j rho_j, the server adds g_j rho_j to beta for each j, so
   that alpha + beta = sum_j c'^j rho_j.

A linear layer and an activation layer take a round trip each. The first message of a
linear layer goes together with the last one of the activation layer before it. Offline
there is one round trip.

What every message shows:
 - Enc(x_c) and Enc(a_j) are BFV under the client's key. The replies are masked
   (`crypto.homomorphic.encrypted_convolution`, `crypto.homomorphic.ole`): c and alpha are
   uniform whatever W and rho_j are.
 - d, e and g_j are under one-time pads, which the server has seen encrypted or not at
   all. d is under rho, of which the transfers say nothing. e is under the one of w_0 and
   w_1 that the server has not chosen. g_j is under a_j. Each pad is drawn by itself, the
   a_j of every power too: if all a_j were powers of one a, the differences to the c'^j
   would be equations in c'.
 - Z xor d delta xor q is under Z, fresh for every bit. With t the client gets one
   label of each wire, and it has no other term in Z or q.
 - The server's other messages show what they show in Delphi.

In the paper's Gazelle, the garbled circuit masks its output anew. So the client's share of
the next layer's input is known only after the circuit is evaluated. Here that share is r,
which the client draws as in Delphi, and Enc(r) could have gone offline. That it goes online
is the difference that this baseline shows.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from safenet_jax.crypto import messages, ring
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.protocol.delphi import material
from safenet_jax.protocol.layers import max_pool, polynomial, relu
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure
from safenet_jax.transport import packed_words


@dataclasses.dataclass
class ClientCorrelations:
  """What the client has prepared of one activation layer, without knowing its input.

  What a layer has no use for is None or empty.

  choices: rho, packed, uint8 [transfers / 8].
  labels: t, uint64 [transfers, 2].
  tables: garbled blocks and the keys of their select words. Blocks of max pools are complete
    but for their labels, and are with the layer.
  offsets: w_0 - w_1 under the transfer's identifier.
  shares: -w_0, uint64 [instances].
  pads: a_j, uint64 [products, 1, ...].
  """

  choices: np.ndarray
  labels: np.ndarray
  tables: list[tuple[garbling.GarbledBlock, bytes]]
  offsets: messages.Words | None = None
  shares: np.ndarray | None = None
  pads: np.ndarray | None = None


@dataclasses.dataclass
class ServerCorrelations:
  """What the server has prepared of one activation layer; see `ClientCorrelations`.

  zeros: q, uint64 [transfers, 2].
  circuits: of each block the garbler's labels and the key of its select words, or what
    `max_pool` keeps.
  colours: p, packed.
  products: the pads w_p.
  """

  zeros: np.ndarray
  circuits: Sequence[tuple[garbling.Encoding, bytes] | max_pool.ServerBlock]
  colours: np.ndarray | None = None
  products: word_transfer.Pads | None = None


@dataclasses.dataclass
class ClientMaterial(material.ClientMaterial):
  """What the client keeps of one inference; each layer is completed once its input is known.

  `mask` and `share` are empty: the image is not masked, and the share of the logits is
  not known offline.

  correlations: of each activation layer, by name; spent when the layer is completed.
  """

  correlations: dict[str, ClientCorrelations]

  def arrays(self) -> dict[str, np.ndarray]:
    """Raises ValueError: this material stays in memory."""
    raise ValueError('preparations of mode gazelle stay in memory')


@dataclasses.dataclass
class ServerMaterial(material.ServerMaterial):
  """What the server keeps of one inference; each layer is completed online.

  `u` is empty: the replies of linear layers come online.

  correlations: of each activation layer, by name; spent when the layer is completed.
  """

  correlations: dict[str, ServerCorrelations]

  @property
  def nbytes(self) -> int:
    total = super().nbytes
    for layer in self.correlations.values():
      total += layer.zeros.nbytes + sum(
        kept.nbytes if isinstance(kept, max_pool.ServerBlock) else kept[0].nbytes
        for kept in layer.circuits
      )
    return total

  @classmethod
  def size(cls, structure: Structure, output: str) -> int:
    # Here the labels of the client's bits and q are kept too. u, and the server's shares of
    # products, are made online only.
    later = sum(math.prod(layer.output_shape) for layer in structure.linear.values())
    later += sum(layer.selected for layer in structure.activations)
    return super().size(structure, output) + 32 * structure.transfers(output) - 8 * later


def product_words(layer: ActivationStructure) -> packed_words.Words:
  """How e of a layer is packed."""
  return packed_words.Words((layer.instances,), layer.form.select_bits)


def power_words(layer: ActivationStructure) -> packed_words.Words:
  """How the g_j of a layer are packed."""
  return packed_words.field((layer.powers, 1, *layer.polynomial_shape), layer.form.modulus)


def corrections_message(layer: ActivationStructure) -> list[tuple]:
  """The parts of the client's message: d, e with its identifier, and the g_j."""
  parts: list[tuple] = []
  if layer.blocks:
    parts.append((np.uint8, (layer.transfers // 8,)))
  if layer.selected:
    parts += [(bytes, (messages.BYTES,)), (np.uint8, (product_words(layer).size,))]
  if layer.powers:
    parts.append((np.uint8, (power_words(layer).size,)))
  return parts


def correct(
  layer: ActivationStructure, mine: ClientMaterial, c: np.ndarray, bits: int
) -> list[np.ndarray | bytes]:
  """The client's message, from its share c [1, ...] of the layer's input.

  Spends the layer's correlations. Completes the layer except for its labels, which
  `take_labels` gets from the server's answer. `bits` is l, the width of the linear ring.
  """
  spent = mine.correlations.pop(layer.name)
  plain, form, values = mine.layers[layer.name], layer.form, []
  if layer.blocks:
    entering = layer.entering(c[..., : form.relu])
    values.append(np.concatenate([bits.reshape(-1) for bits in entering]) ^ spent.choices)
  if spent.offsets is not None and spent.shares is not None:
    flat = relu.tested(c[..., : form.relu], form, layer.tests, server=False)
    products = ring.reduce(spent.offsets.words + flat, form.select_bits)
    values += [spent.offsets.identifier, product_words(layer).pack(products)]
    start = 0
    for block, (garbled, key) in zip(layer.blocks, spent.tables, strict=True):
      end = start + layer.width * block.size
      plain.blocks.append(
        relu.ClientBlock(
          garbled,
          spent.labels[start:end].reshape(layer.width, block.size, 2),
          flat[block.first : block.end],
          spent.shares[block.first : block.end],
          key,
        )
      )
      start = end
  if spent.pads is not None:
    plain.powers = polynomial.offline_client(np, c[..., form.relu :], form, bits)
    p = np.uint64(form.modulus)
    values.append(power_words(layer).pack((plain.powers[: layer.powers] + p - spent.pads) % p))
  return values


def take_labels(layer: ActivationStructure, mine: ClientMaterial, labels: np.ndarray) -> None:
  """Completes the client's layer with the server's Z xor d delta xor q.

  `labels` are uint64 [transfers, 2].
  """
  plain, start = mine.layers[layer.name], 0
  for i, block in enumerate(plain.blocks):
    end = start + block.labels[..., 0].size
    plain.blocks[i] = block._replace(
      labels=block.labels ^ labels[start:end].reshape(block.labels.shape)
    )
    start = end


def answer(
  layer: ActivationStructure, mine: ServerMaterial, received: Sequence
) -> np.ndarray | None:
  """The server's answer to a client's corrections: Z xor d delta xor q, uint64 [transfers, 2].

  None where the layer has no garbled channels. Spends the layer's correlations, and
  completes the layer.

  Raises:
    ValueError: the corrections are not for this material.
    ProtocolError: a word is out of its range.
  """
  spent = mine.correlations.pop(layer.name)
  plain, form, labels = mine.layers[layer.name], layer.form, None
  values, shares = list(received), np.empty(0, np.uint64)
  d = values.pop(0) if layer.blocks else None
  if spent.products is not None and spent.colours is not None:
    identifier, packed = values[:2]
    del values[:2]
    shares = word_transfer.receive_products(
      messages.Words(identifier, product_words(layer).unpack(packed)),
      spent.colours,
      spent.products,
      bits=form.select_bits,
    )
  if d is not None:
    labels, start = spent.zeros, 0
    for block, kept in zip(layer.blocks, spent.circuits, strict=True):
      end = start + layer.width * block.size
      if isinstance(kept, max_pool.ServerBlock):
        state: max_pool.ServerBlock | relu.ServerBlock = kept
      else:
        encoding, key = kept
        state = relu.ServerBlock(encoding, shares[block.first : block.end], key)
      chosen = state.encoding.labels('client', d[start // 8 : end // 8].reshape(layer.width, -1))
      labels[start:end] ^= chosen.reshape(-1, 2)
      plain.blocks.append(state)
      start = end
  if plain.pads is not None:
    differences = power_words(layer).unpack(values[0])
    products = ring.multiply_mod(np, differences, plain.pads, form.modulus)
    plain.betas = np.concatenate([plain.betas, products])
  return labels

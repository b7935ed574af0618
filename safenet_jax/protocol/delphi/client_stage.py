"""The client's side of a stage: activation layers that are made ready together.

           client                                       server
             --- choices of labels, Enc(c'^j) ------------>
             <-- garbled tables, OLE replies, choices -----
             --- products of colours and shares ---------->

These are three of the flights of `client_offline`, where the symbols are defined. Most modes send
them offline. The mode `minionn` sends those of garbled circuits online.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from safenet_jax.crypto import messages, ring
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.homomorphic import ole
from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.protocol.delphi import message_shapes
from safenet_jax.protocol.delphi.material import ClientLayer
from safenet_jax.protocol.delphi.party import ClientParty
from safenet_jax.protocol.layers import class_output, max_pool, polynomial, relu
from safenet_jax.protocol.layers.structure import ActivationStructure
from safenet_jax.transport import frames, packed_words


class ClientStage:
  """One image's part in a stage, flight by flight.

  phase, place: under which phase and layer a ledger counts what all layers share.
  """

  phase, place = 'offline', 'all'

  def __init__(self, party: ClientParty):
    """Takes the session's party. `begin` has to come before a flight."""
    self.party, self.channel = party, party.channel
    # The client's shares of what enters activation layers, by name, and of the logits.
    self.inputs: dict[str, Any] = {}
    self.share = np.empty(0, np.uint64)

  def begin(
    self, stage: message_shapes.Stage, tag: Callable[[str], bytes], layers: dict[str, ClientLayer]
  ) -> None:
    """Begins a stage.

    Args:
      stage: which layers, and what for.
      tag: names each of its messages.
      layers: of the stage, by name; the flights fill them.
    """
    self.structure, self.stage_tag, self.layers = stage.structure, tag, layers
    self.comparison = self.structure.comparison_for(stage.output)
    self.transfers = self.structure.transfers(stage.output)
    self.forget()
    self.compared: tuple[garbling.GarbledBlock, np.ndarray] | None = None
    self.sender_pads: Iterator[word_transfer.Pads] = iter(())

  def forget(self) -> None:
    """Drops what only the flights need, unless a comparison was made."""
    self.labels = np.empty((0, 2), np.uint64)
    self.garbled: dict[str, list[tuple]] = {}

  def _scope(self, layer: str, primitive: str):
    return self.channel.scope(phase=self.phase, layer=layer, primitive=primitive)

  def send_choices(self) -> None:
    """Sends the choices of labels by the bits of c that enter circuits, and Enc(c'^j)."""
    if self.transfers:
      with self._scope(self.place, 'labels'):
        message, self.labels = self.party.keys.labels.extend(
          self.stage_tag('labels'), self._label_choices(), self.transfers
        )
        self.channel.send('labels', message.identifier, message.words)
    for (modulus, products), layers in self.structure.products().items():
      with self._scope(self.place, 'polynomial'):
        factors = [self._factors(layer).reshape(products, -1) for layer in layers]
        request = ole.request(
          self.party.keys.secrets[modulus],
          np.concatenate(factors, axis=1),
          self.party.randomness,
          self.stage_tag(f'products {modulus} {products}'),
        )
        self.channel.send('powers', request)

  def _label_choices(self) -> np.ndarray:
    """The choice bits of all label transfers, packed."""
    parts = [
      packed.reshape(-1) for layer in self.structure.activations for packed in self._entering(layer)
    ]
    if self.comparison:
      parts.append(self.comparison.entering(self.share[0]).reshape(-1))
    return np.concatenate(parts)

  def _entering(self, layer: ActivationStructure) -> list[np.ndarray]:
    """The choice bits of each block of a layer, uint8 [width, size / 8]."""
    return layer.entering(self.inputs[layer.name][..., : layer.form.relu])

  def _factors(self, layer: ActivationStructure) -> np.ndarray:
    """The client's factors of a layer's products, uint64 [products, 1, ...]."""
    c = self.inputs[layer.name][..., layer.form.relu :]
    powers = polynomial.offline_client(np, c, layer.form, self.structure.bits)
    self.layers[layer.name].powers = powers
    return powers[: layer.powers]

  def _garbled(self, layer: ActivationStructure):
    """Each block of a layer, with the client's shares of its instances."""
    share = self.inputs[layer.name][..., : layer.form.relu]
    flat = relu.tested(share, layer.form, layer.tests, server=False)
    return [(block, flat[block.first : block.end]) for block in layer.blocks]

  def receive_tables(self) -> None:
    """Receives the garbled tables, the OLE replies and the server's choices."""
    self.garbled = {
      layer.name: [
        self._receive_tables(layer, block, labels)
        for block, labels in zip(layer.blocks, self._block_labels(layer))
      ]
      for layer in self.structure.activations
    }
    if self.comparison:
      self.compared = class_output.offline_client(self.channel, self.comparison)
    self._receive_products()
    self.sender_pads = self._receive_choices() if self.structure.choices else iter(())

  def send_shares(self) -> None:
    """Sends the client's part in the products p c, and keeps the keys of wrap bits.

    p is the server's bit that colour 0 of a sign test stands for (`relu`). From the
    keys K_0 and K_1 come shares of the bit that says whether an output's shares wrap around
    (`truncation`).
    """
    for layer in self.structure.activations:
      if layer.selected:
        self._send_products(layer, self.garbled[layer.name], next(self.sender_pads))
      elif layer.blocks:
        self.layers[layer.name].blocks = [
          max_pool.ClientBlock(garbled, labels, *rest)
          for labels, (garbled, *rest) in zip(self._block_labels(layer), self.garbled[layer.name])
        ]
      for shape, rescale in layer.outputs:
        keys = word_transfer.random_words(next(self.sender_pads), bits=rescale.wrap_bits)
        self.layers[layer.name].keys.append(keys.reshape(2, 1, *shape))

  def _block_labels(self, layer: ActivationStructure) -> Iterator[np.ndarray]:
    """The labels of the client's bits in each block."""
    start = layer.offset
    for block in layer.blocks:
      end = start + layer.width * block.size
      yield self.labels[start:end].reshape(layer.width, block.size, 2)
      start = end

  def _receive_tables(self, layer, block, labels: np.ndarray) -> tuple:
    """A garbled block and what comes with it, see `message_shapes.tables_parts`.

    `labels` are those of the client's bits.
    """
    del labels  # garbled tables are opened online
    with self._scope(layer.name, 'garbling'):
      parts = message_shapes.tables_parts(layer, block)
      seed, check, tables, *rest = self.channel.receive('tables', parts)
      return garbling.GarbledBlock(seed, check, tables), *rest

  def _receive_products(self) -> None:
    for (modulus, products), layers in self.structure.products().items():
      with self._scope(self.place, 'polynomial'):
        secret = self.party.keys.secrets[modulus]
        sizes = [int(np.prod(layer.polynomial_shape)) for layer in layers]
        (reply,) = self.channel.receive(
          'products', [(bytes, (ole.reply_size(secret.context, sum(sizes)),))]
        )
        alphas = frames.checked(
          ole.finish, secret, reply, sum(sizes), self.stage_tag(f'products {modulus} {products}')
        )
        for layer, part in zip(layers, np.split(alphas, np.cumsum(sizes)[:-1])):
          self.layers[layer.name].alphas = part.reshape(1, 1, *layer.polynomial_shape)

  def _receive_choices(self) -> Iterator[word_transfer.Pads]:
    """The client's pads of the transfers in which the server chooses.

    One for each of `message_shapes.choice_parts`, in their order.
    """
    keys = self.party.keys
    with self._scope(self.place, 'transfers'):
      parts = message_shapes.choice_parts(self.structure)
      identifier, words, hash_keys = self.channel.receive(
        'choices', message_shapes.choice_message(parts)
      )
      labels = frames.checked(
        keys.words.extend, self.stage_tag('choices'), messages.Words(identifier, words), sum(parts)
      )
      return iter(
        [
          frames.checked(word_transfer.sender_pads, rows, keys.delta, key)
          for rows, key in message_shapes.split_choices(parts, labels, hash_keys)
        ]
      )

  def _send_products(self, layer: ActivationStructure, garbled, pads) -> None:
    mine, form = self.layers[layer.name], layer.form
    with self._scope(layer.owner, 'products'):
      blocks = self._garbled(layer)
      factors = ring.reduce(np.concatenate([part for _, part in blocks]), form.select_bits)
      message, shares = word_transfer.send_products(factors, pads, bits=form.select_bits)
      self.channel.send(
        'shares',
        message.identifier,
        packed_words.Words(factors.shape, form.select_bits).pack(message.words),
      )
      parts = zip(blocks, garbled, self._block_labels(layer))
      for (block, part), kept, labels in parts:
        mine.blocks.append(self._sign_block(kept, labels, part, shares[block.first : block.end]))

  def _sign_block(self, kept, labels, share, product_share):
    """A block of sign tests, from what `_receive_tables` gave."""
    tables, key = kept
    return relu.ClientBlock(tables, labels, share, product_share, key)


def run(images: Sequence[ClientStage]) -> None:
  """All flights of a stage, each for all images before the next: they wait for it together."""
  for image in images:
    image.send_choices()
  for image in images:
    image.receive_tables()
  for image in images:
    image.send_shares()

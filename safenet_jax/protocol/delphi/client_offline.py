"""The client's offline phase: everything of an inference that needs no image.

           client                                       server
             --- Enc(r) of every linear layer ------------>
             <-- Enc(W r - u) of every linear layer -------
               (once more for those that read linear layers)
             --- choices of labels, Enc(c'^j) ------------>
             <-- garbled tables, OLE replies, choices -----
             --- products of colours and shares ---------->

Enc is encryption under the client's key. r is the client's mask of a linear layer's input,
W are the layer's weights, and u is the server's mask of its output. c = W r - u is the
client's share of that output, and c' is c with low bits dropped. An OLE reply gives the
parties shares of the products of the powers c'^j and factors of the server. A colour is
the bit of a label that the evaluator of a circuit may see.

These are five flights, that is messages that go one way together, for any number of layers
and for as many images as a queue holds (`message_shapes.lots`). Layers need not wait for
each other, because the input of each is masked afresh. Only a layer that reads what another
linear layer made waits for that one: its r is the client's share c of what it reads (`linear`).
Such layers come in a wave of their own, with two flights more. What a message shows is argued where
it is made: `linear`, `relu`, `max_pool`, `polynomial` and `truncation` of `protocol.layers`,
and `class_output` where the class alone is asked for.
"""

from collections.abc import Callable, Iterator
import functools
from typing import Any

import numpy as np

from safenet_jax.crypto import messages, ring
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, ole
from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.models import layers as records
from safenet_jax.protocol.delphi import message_shapes
from safenet_jax.protocol.delphi.material import ClientLayer, ClientMaterial
from safenet_jax.protocol.delphi.party import ClientParty
from safenet_jax.protocol.layers import class_output, max_pool, polynomial, relu, share_walks
from safenet_jax.protocol.layers.structure import ActivationStructure
from safenet_jax.transport import frames, packed_words


class Image:
  """One image's offline phase, step by step."""

  def __init__(self, party: ClientParty, output: str, number: int):
    self.party, self.channel, self.structure = party, party.channel, party.structure
    self.comparison = self.structure.comparison_for(output)
    self.transfers = self.structure.transfers(output)
    self.tag = message_shapes.Tag(party.keys.nonce, number)
    randomness, widths = party.randomness, self.structure.rings.values
    self.mask = randomness.ring(widths['input'], (1, *self.structure.input_shape))
    self.layers: dict[str, ClientLayer] = {}
    for layer in self.structure.activations:
      channels = layer.form.relu + layer.form.polynomial
      mask = randomness.ring(layer.bits, (1, *layer.pooled_shape, channels))
      self.layers[layer.name] = ClientLayer(mask)
    self.masks = {name: layer.mask for name, layer in self.layers.items()}
    self.outputs: dict[str, np.ndarray] = {}
    self.inputs: dict[str, np.ndarray] = {}
    self.share = np.empty(0, np.uint64)
    self.labels = np.empty((0, 2), np.uint64)
    self.garbled: dict[str, list[tuple]] = {}
    self.compared: tuple[garbling.GarbledBlock, np.ndarray] | None = None
    self.sender_pads: Iterator[word_transfer.Pads] = iter(())

  def send_masks(self, wave: tuple[str, ...]) -> None:
    """Sends Enc(r) of the linear layers of a wave; most r are drawn as they are encrypted."""
    known: dict[str, np.ndarray] | None = None
    for name in wave:
      with self.channel.scope(phase='offline', layer=name, primitive='linear'):
        if name in self.structure.drawn:
          upload, known = self._draw(name), None  # a mask has changed
        else:
          known = self._inputs() if known is None else known
          upload = self._encrypt(name, known[name])
        self.channel.send('masks', upload)

  def _inputs(self) -> dict[str, np.ndarray]:
    """The mask r of each linear layer's input that is known by now."""
    walk = share_walks.Masks(self.party.model, self.masks, self.outputs)
    records.run(self.party.model.layers, walk, self.mask)
    return walk.inputs

  def _encrypt(self, name: str, r: np.ndarray) -> bytes:
    """Enc(r) of a linear layer; the masks that are a part of r are known."""
    layer, bits = self.structure.linear[name], self.structure.rings.linear[name]
    r = ring.reduce(r, bits).reshape(layer.input_shape)
    return encrypted_convolution.encrypt_map(
      self._secret(name), layer, r, self.party.randomness, self.tag(name)
    )

  def _secret(self, name: str) -> bfv.SecretKey:
    return self.party.keys.secrets[self.structure.plain_modulus(name)]

  def _draw(self, name: str) -> bytes:
    """Enc(r) of a linear layer for a fresh r, which becomes the low bits of its input's mask."""
    upload, r = encrypted_convolution.draw_map(
      self._secret(name), self.structure.linear[name], self.party.randomness, self.tag(name)
    )
    # The array is changed in place: `masks` and the material have it too.
    source = self.structure.drawn[name]
    mask = self.mask if source == 'input' else self.masks[source]
    mask -= ring.reduce(mask, self.structure.rings.linear[name])
    mask += r.reshape(mask.shape)
    return upload

  def receive_linear(self, wave: tuple[str, ...]) -> None:
    """Receives c = W r - u of the linear layers of a wave."""
    for name in wave:
      with self.channel.scope(phase='offline', layer=name, primitive='linear'):
        layer, secret = self.structure.linear[name], self._secret(name)
        size = encrypted_convolution.reply_size(secret.context, layer)
        (reply,) = self.channel.receive('linear', [(bytes, (size,))])
        c = frames.checked(encrypted_convolution.decrypt_map, secret, layer, reply, self.tag(name))
        self.outputs[name] = c.reshape(1, *self.structure.shapes[name])

  def find_shares(self) -> None:
    """Finds the shares of what every activation layer reads, and of the logits."""
    walk = share_walks.Shares(self.party.model, self.masks, self.outputs)
    self.share = records.run(self.party.model.layers, walk, self.mask)
    self.inputs = walk.inputs

  def send_choices(self) -> None:
    """Sends the choices of labels by the bits of c that enter circuits, and Enc(c'^j)."""
    if self.transfers:
      with self.channel.scope(phase='offline', layer='all', primitive='labels'):
        message, self.labels = self.party.keys.labels.extend(
          self.tag('labels'), self._label_choices(), self.transfers
        )
        self.channel.send('labels', message.identifier, message.words)
    for (modulus, products), layers in self.structure.products().items():
      with self.channel.scope(phase='offline', layer='all', primitive='polynomial'):
        factors = [self._factors(layer).reshape(products, -1) for layer in layers]
        request = ole.request(
          self.party.keys.secrets[modulus],
          np.concatenate(factors, axis=1),
          self.party.randomness,
          self.tag(f'products {modulus} {products}'),
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

  def finish(self) -> ClientMaterial:
    """The client's material, once the server says that it has kept its own."""
    with self.channel.scope(phase='offline', layer='session', primitive='identifier'):
      (identifier,) = self.channel.receive('prepared', [(bytes, (message_shapes.ID_BYTES,))])
    if not self.comparison:
      return ClientMaterial(identifier, self.mask, self.share, self.layers)
    # For the class alone, the labels of the logits' share take the place of the share.
    nothing = np.empty(0, np.uint64)
    return ClientMaterial(identifier, self.mask, nothing, self.layers, argmax=self._comparison())

  def _comparison(self) -> class_output.ClientState:
    form = self.comparison
    if form is None or self.compared is None:
      raise ValueError('no garbled comparison was received')
    labels = self.labels[form.offset : form.offset + form.transfers]
    garbled, decoding = self.compared
    return class_output.ClientState(garbled, labels.reshape(form.bits, form.size, 2), decoding)

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
    with self.channel.scope(phase='offline', layer=layer.name, primitive='garbling'):
      parts = message_shapes.tables_parts(layer, block)
      seed, check, tables, *rest = self.channel.receive('tables', parts)
      return garbling.GarbledBlock(seed, check, tables), *rest

  def _receive_products(self) -> None:
    for (modulus, products), layers in self.structure.products().items():
      with self.channel.scope(phase='offline', layer='all', primitive='polynomial'):
        secret = self.party.keys.secrets[modulus]
        sizes = [int(np.prod(layer.polynomial_shape)) for layer in layers]
        (reply,) = self.channel.receive(
          'products', [(bytes, (ole.reply_size(secret.context, sum(sizes)),))]
        )
        alphas = frames.checked(
          ole.finish, secret, reply, sum(sizes), self.tag(f'products {modulus} {products}')
        )
        for layer, part in zip(layers, np.split(alphas, np.cumsum(sizes)[:-1])):
          self.layers[layer.name].alphas = part.reshape(1, 1, *layer.polynomial_shape)

  def _receive_choices(self) -> Iterator[word_transfer.Pads]:
    """The client's pads of the transfers in which the server chooses.

    One for each of `message_shapes.choice_parts`, in their order.
    """
    keys = self.party.keys
    with self.channel.scope(phase='offline', layer='all', primitive='transfers'):
      parts = message_shapes.choice_parts(self.structure)
      identifier, words, hash_keys = self.channel.receive(
        'choices', message_shapes.choice_message(parts)
      )
      labels = frames.checked(
        keys.words.extend, self.tag('choices'), messages.Words(identifier, words), sum(parts)
      )
      return iter(
        [
          frames.checked(word_transfer.sender_pads, rows, keys.delta, key)
          for rows, key in message_shapes.split_choices(parts, labels, hash_keys)
        ]
      )

  def _send_products(self, layer: ActivationStructure, garbled, pads) -> None:
    mine, form = self.layers[layer.name], layer.form
    with self.channel.scope(phase='offline', layer=layer.name, primitive='products'):
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


class ClientOffline:
  """The client's offline phase in one session, for any number of images."""

  _kind: type[Image] = Image

  def __init__(self, party: ClientParty, output: str):
    """Takes what the inferences are to end in, one of `structure.OUTPUTS`."""
    self._party, self._output = party, output

  def prepare(self, count: int) -> Iterator[ClientMaterial]:
    """Prepares inferences of `count` images, and gives each as soon as it is ready."""
    party = self._party
    for lot in message_shapes.lots(party.structure, self._output, party.contexts, count):
      yield from self._prepare(lot)

  def _flights(self) -> list[Callable[[Any], None]]:
    """What each image does, up to the end of one flight."""
    kind, waves = self._kind, self._party.structure.waves
    steps = [kind.send_masks, kind.receive_linear]
    linear = [functools.partial(step, wave=wave) for wave in waves for step in steps]
    return [*linear, kind.find_shares, kind.send_choices, kind.receive_tables, kind.send_shares]

  def _prepare(self, count: int) -> Iterator[ClientMaterial]:
    # A number is taken once, whatever happens below: tags with it are used once with a key.
    numbers = self._party.keys.numbers
    images = [self._kind(self._party, self._output, next(numbers)) for _ in range(count)]
    # Each flight is sent for all images before the next, so that they wait for it together.
    for flight in self._flights():
      for image in images:
        flight(image)
    for image in images:
      yield image.finish()

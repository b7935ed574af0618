"""The server's offline phase. `client_offline` shows its messages, and defines the symbols."""

from collections.abc import Callable, Iterator

import numpy as np

from safenet_jax.crypto import messages, ring
from safenet_jax.crypto.garbled_circuits import garbled_argmax, garbling
from safenet_jax.crypto.homomorphic import encrypted_convolution, ole
from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.protocol.delphi import message_shapes
from safenet_jax.protocol.delphi.material import ServerLayer, ServerMaterial
from safenet_jax.protocol.delphi.party import ServerParty
from safenet_jax.protocol.layers import class_output, max_pool, relu
from safenet_jax.protocol.layers.blocks import Block
from safenet_jax.protocol.layers.structure import ActivationStructure
from safenet_jax.transport import frames, packed_words


class ServerOffline:
  """The server's offline phase in one session."""

  def __init__(self, party: ServerParty, output: str):
    """Takes what the inferences are to end in, one of `structure.OUTPUTS`."""
    self._party, self._channel, self._structure = party, party.channel, party.structure
    self._output = output
    self._transfers = self._structure.transfers(output)
    self._garblers: dict[tuple, garbling.Garbler] = {}
    self._comparison: garbled_argmax.Garbler | None = None

  def prepare(self, count: int) -> Iterator[ServerMaterial]:
    """Prepares inferences of `count` images, and gives each as soon as it is ready.

    The caller has to keep what it gets before it asks for the next. Only then is the
    client told that the preparation exists.
    """
    party = self._party
    for lot in message_shapes.lots(party.structure, self._output, party.contexts, count):
      yield from self._prepare(lot)

  def _prepare(self, count: int) -> Iterator[ServerMaterial]:
    keys = self._party.keys
    tags = [message_shapes.Tag(keys.nonce, next(keys.numbers)) for _ in range(count)]
    linear = self._reply_linear(tags)
    choices = [self._receive_choices() for _ in tags]
    started = [self._start(*parts) for parts in zip(tags, linear, choices)]
    for finish in started:
      material = finish()
      yield material
      with self._channel.scope(phase='offline', layer='session', primitive='identifier'):
        self._channel.send('prepared', material.identifier)

  def _reply_linear(self, tags: list[message_shapes.Tag]) -> list[dict[str, np.ndarray]]:
    """Answers Enc(r) of every linear layer, wave by wave; gives every u of each image."""
    found: list[dict[str, np.ndarray]] = [{} for _ in tags]
    for wave in self._structure.waves:
      for tag, masks in zip(tags, found):
        masks |= {name: self._reply_layer(name, tag) for name in wave}
    return found

  def _reply_layer(self, name: str, tag: message_shapes.Tag) -> np.ndarray:
    """Answers Enc(r) of a linear layer, while the client encrypts the next; gives u."""
    party, layer = self._party, self._structure.linear[name]
    with self._channel.scope(phase='offline', layer=name, primitive='linear'):
      context = party.contexts[self._structure.plain_modulus(name)]
      drawn = name in self._structure.drawn
      size = encrypted_convolution.upload_size(context, layer, drawn=drawn)
      (upload,) = self._channel.receive('masks', [(bytes, (size,))])
      reply, u = frames.checked(
        party.linear.reply, party.keys, name, upload, tag(name), drawn=drawn
      )
      self._channel.send('linear', reply)
      return u.reshape(1, *self._structure.shapes[name])

  def _receive_choices(self):
    """The client's choices of labels, if there are any, and its requests for products."""
    message, structure = None, self._structure
    if self._transfers:
      with self._channel.scope(phase='offline', layer='all', primitive='labels'):
        parts = message_shapes.labels_message(self._transfers)
        message = messages.Words(*self._channel.receive('labels', parts))
    requests = {}
    for (modulus, products), layers in structure.products().items():
      with self._channel.scope(phase='offline', layer='all', primitive='polynomial'):
        count = sum(int(np.prod(layer.polynomial_shape)) for layer in layers)
        size = ole.request_size(self._party.keys.publics[modulus].context, products, count)
        (requests[modulus, products],) = self._channel.receive('powers', [(bytes, (size,))])
    return message, requests

  def _start(self, tag, u, choices) -> Callable[[], ServerMaterial]:
    """Garbles, multiplies and chooses, up to the client's last flight.

    Returns a function that receives that flight, and gives the material.
    """
    message, requests = choices
    mine = {layer.name: ServerLayer() for layer in self._structure.activations}
    labels = self._zero_labels(tag, message)
    garbled = {layer.name: self._garble(layer, labels) for layer in self._structure.activations}
    compared = self._compare(labels)
    del labels  # megabytes, which would wait for products with this thread
    self._reply_products(tag, requests, mine)
    pads, bits = iter(()), iter(())
    if self._structure.choices:
      pads, bits = self._choose(tag, garbled, mine)

    def finish() -> ServerMaterial:
      for layer in self._structure.activations:
        if layer.selected:
          self._receive_products(
            layer, mine[layer.name], garbled[layer.name], next(pads), next(bits)
          )
        else:
          mine[layer.name].blocks = garbled[layer.name]
        self._keep_wraps(layer, mine[layer.name], pads, bits)
      identifier = self._party.randomness.bytes(message_shapes.ID_BYTES)
      return ServerMaterial(identifier, self._party.keys.delta, u, mine, argmax=compared)

    return finish

  def _zero_labels(self, tag: message_shapes.Tag, message: messages.Words | None) -> np.ndarray:
    """The labels of value 0 of all label transfers, uint64 [transfers, 2]."""
    if message is None:
      return np.empty((0, 2), np.uint64)
    with self._channel.scope(phase='offline', layer='all', primitive='labels'):
      return frames.checked(self._party.keys.labels.extend, tag('labels'), message, self._transfers)

  def _garble(self, layer: ActivationStructure, labels: np.ndarray):
    """Garbles and sends a layer's blocks; gives what is kept of each.

    That is an encoding and the key of the select words, or a `max_pool.ServerBlock`. The
    tables of a block are sent as soon as they are made, so that they are not held together.
    """
    found, start = [], layer.offset
    for block in layer.blocks:
      end = start + layer.width * block.size
      zeros = labels[start:end].reshape(layer.width, block.size, 2)
      found.append(self._garble_block(layer, block, zeros))
      start = end
    return found

  def _garble_block(self, layer: ActivationStructure, block: Block, zeros: np.ndarray):
    with self._channel.scope(phase='offline', layer=layer.name, primitive='garbling'):
      garbled, encoding = self._garbler(layer, block.size).garble(self._given(zeros))
      kept, *rest = self._keep(layer, block, encoding)
      self._channel.send('tables', garbled.seed, garbled.check, garbled.tables, *rest)
      return kept

  def _compare(self, labels: np.ndarray) -> class_output.ServerState | None:
    """Garbles and sends the comparison of the logits; None where the logits are asked for."""
    form = self._structure.comparison_for(self._output)
    if form is None:
      return None
    if self._comparison is None:
      self._comparison = garbled_argmax.Garbler(
        form.count, form.bits, self._party.randomness, self._party.keys.delta
      )
    zeros = labels[form.offset : form.offset + form.transfers].reshape(form.bits, form.size, 2)
    given = self._given(zeros)
    state = class_output.ServerState(
      class_output.offline_server(self._channel, self._comparison, given)
    )
    return state if given else state._replace(zeros=zeros)

  def _keep(self, layer: ActivationStructure, block: Block, encoding: garbling.Encoding):
    """What is kept of a garbled block, followed by what is sent with its tables."""
    if layer.form.maximum:
      return max_pool.offline_server(encoding, self._party.randomness, layer.form, block.count)
    key = relu.word_key(self._party.randomness, layer.form)
    return (encoding, key), key

  def _given(self, zeros: np.ndarray) -> dict[str, np.ndarray]:
    """Input labels of value 0 to garble a circuit with, in the place of fresh ones."""
    return {'client': zeros}

  def _garbler(self, layer: ActivationStructure, size: int) -> garbling.Garbler:
    key = layer.circuit, size
    if key not in self._garblers:
      self._garblers[key] = garbling.Garbler(*key, self._party.randomness, self._party.keys.delta)
    return self._garblers[key]

  def _reply_products(self, tag, requests, mine: dict[str, ServerLayer]) -> None:
    for (modulus, products), layers in self._structure.products().items():
      with self._channel.scope(phase='offline', layer='all', primitive='polynomial'):
        pads = [
          self._party.randomness.residues(modulus, (products, 1, *layer.polynomial_shape))
          for layer in layers
        ]
        reply, betas = frames.checked(
          ole.reply,
          self._party.keys.publics[modulus],
          requests[modulus, products],
          np.concatenate([pad.reshape(products, -1) for pad in pads], axis=1),
          self._party.randomness,
          tag(f'products {modulus} {products}'),
        )
        self._channel.send('products', reply)
        ends = np.cumsum([pad[0].size for pad in pads])[:-1]
        for layer, pad, part in zip(layers, pads, np.split(betas, ends)):
          mine[layer.name].pads = pad
          mine[layer.name].betas = part.reshape(1, 1, *layer.polynomial_shape)

  def _choose(self, tag, garbled, mine: dict[str, ServerLayer]):
    """Sends the server's choices, hidden by correlated transfers.

    They are, for every sign test, the bit p that colour 0 stands for (`relu`); and, for
    every output, a random bit beta (`truncation`).

    Returns iterators over the pads, and over the packed choices, of each of
    `message_shapes.choice_parts`.
    """
    with self._channel.scope(phase='offline', layer='all', primitive='transfers'):
      parts = message_shapes.choice_parts(self._structure)
      choices = []
      for layer in self._structure.activations:
        if layer.selected:
          choices.append(self._signs(layer, garbled[layer.name]))
        for shape, _ in layer.outputs:
          beta = self._party.randomness.bits((1, *shape))
          mine[layer.name].choices.append(beta.astype(np.uint64))
          choices.append(beta.reshape(-1))
      packed = np.packbits(np.concatenate(choices), bitorder='little')
      message, labels = self._party.keys.words.extend(tag('choices'), packed, sum(parts))
      randomness = self._party.randomness
      keys = np.concatenate([word_transfer.hash_keys(count, randomness) for count in parts])
      self._channel.send('choices', message.identifier, message.words, keys)
      pads = [
        word_transfer.receiver_pads(rows, key)
        for rows, key in message_shapes.split_choices(parts, labels, keys)
      ]
    return iter(pads), iter(np.packbits(bits, bitorder='little') for bits in choices)

  def _signs(self, layer: ActivationStructure, garbled) -> np.ndarray:
    """p of a layer's sign tests, uint8 [selected]."""
    return np.concatenate(
      [
        relu.colour_zero_bits(encoding)[: block.count].astype(np.uint8)
        for block, (encoding, _) in zip(layer.blocks, garbled)
      ]
    )

  def _receive_products(self, layer, mine: ServerLayer, garbled, pads, choices) -> None:
    with self._channel.scope(phase='offline', layer=layer.name, primitive='products'):
      words = packed_words.Words((layer.selected,), layer.form.select_bits)
      identifier, packed = self._channel.receive(
        'shares', [(bytes, (messages.BYTES,)), (np.uint8, (words.size,))]
      )
      message = messages.Words(identifier, words.unpack(packed))
      shares = frames.checked(
        word_transfer.receive_products, message, choices, pads, bits=layer.form.select_bits
      )
      for block, kept in zip(layer.blocks, garbled):
        share = ring.reduce(shares[block.first : block.end], layer.form.select_bits)
        mine.blocks.append(self._sign_block(kept, share))

  def _sign_block(self, kept, product_share: np.ndarray):
    """A block of sign tests, from what `_garble_block` gave."""
    encoding, key = kept
    return relu.ServerBlock(encoding, product_share, key)

  def _keep_wraps(self, layer, mine: ServerLayer, pads, choices) -> None:
    for shape, rescale in layer.outputs:
      next(choices)
      chosen = word_transfer.random_words(next(pads), bits=rescale.wrap_bits)
      mine.chosen.append(chosen.reshape(1, *shape))

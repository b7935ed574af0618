"""The server's side of a stage. `client_stage` shows its messages."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import messages, ring
from safenet_jax.crypto.garbled_circuits import garbled_argmax, garbling
from safenet_jax.crypto.homomorphic import ole
from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.protocol.delphi import message_shapes
from safenet_jax.protocol.delphi.material import ServerLayer
from safenet_jax.protocol.delphi.party import ServerParty
from safenet_jax.protocol.layers import class_output, max_pool, relu
from safenet_jax.protocol.layers.blocks import Block
from safenet_jax.protocol.layers.structure import ActivationStructure
from safenet_jax.transport import frames, packed_words


class Made(NamedTuple):
  """A stage of one image, but for the client's last flight.

  layers: by name; `finish` completes them.
  compared: the comparison of the logits, if the stage has one.
  finish: receives the last flight.
  """

  layers: dict[str, ServerLayer]
  compared: class_output.ServerState | None
  finish: Callable[[], None]


class ServerStages:
  """Makes stages of images ready, in one session.

  phase, place: as for `ClientStage`.
  """

  phase, place = 'offline', 'all'

  def __init__(self, party: ServerParty):
    """Takes the session's party."""
    self._party, self._channel = party, party.channel
    self._garblers: dict[tuple, garbling.Garbler] = {}
    self._comparison: garbled_argmax.Garbler | None = None

  def _scope(self, layer: str, primitive: str):
    return self._channel.scope(phase=self.phase, layer=layer, primitive=primitive)

  def receive_choices(self, stage: message_shapes.Stage):
    """The client's choices of labels, if there are any, and its requests for products."""
    structure, message = stage.structure, None
    transfers = structure.transfers(stage.output)
    if transfers:
      with self._scope(self.place, 'labels'):
        parts = message_shapes.labels_message(transfers)
        message = messages.Words(*self._channel.receive('labels', parts))
    requests = {}
    for (modulus, products), layers in structure.products().items():
      with self._scope(self.place, 'polynomial'):
        count = sum(int(np.prod(layer.polynomial_shape)) for layer in layers)
        size = ole.request_size(self._party.keys.publics[modulus].context, products, count)
        (requests[modulus, products],) = self._channel.receive('powers', [(bytes, (size,))])
    return message, requests

  def make(
    self, stage: message_shapes.Stage, tag: Callable[[str], bytes], message, requests
  ) -> Made:
    """Garbles, multiplies and chooses for a stage, up to the client's last flight.

    Args:
      stage: which layers, and what for.
      tag: names each of its messages.
      message, requests: what `receive_choices` gave.
    """
    (structure, output), delta = stage, self._party.keys.delta
    mine = {layer.name: ServerLayer(delta) for layer in structure.activations}
    labels = self._zero_labels(tag, message, structure.transfers(output))
    garbled = {layer.name: self._garble(layer, labels) for layer in structure.activations}
    compared = self._compare(structure, output, labels)
    del labels  # megabytes, which would wait for products with this thread
    self._reply_products(structure, tag, requests, mine)
    pads, bits = iter(()), iter(())
    if structure.choices:
      pads, bits = self._choose(structure, tag, garbled, mine)

    def finish() -> None:
      for layer in structure.activations:
        if layer.selected:
          self._receive_products(
            layer, mine[layer.name], garbled[layer.name], next(pads), next(bits)
          )
        else:
          mine[layer.name].blocks = garbled[layer.name]
        self._keep_wraps(layer, mine[layer.name], pads, bits)

    return Made(mine, compared, finish)

  def _zero_labels(self, tag, message: messages.Words | None, transfers: int) -> np.ndarray:
    """The labels of value 0 of all label transfers of a stage, uint64 [transfers, 2]."""
    if message is None:
      return np.empty((0, 2), np.uint64)
    with self._scope(self.place, 'labels'):
      return frames.checked(self._party.keys.labels.extend, tag('labels'), message, transfers)

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
    with self._scope(layer.name, 'garbling'):
      garbled, encoding = self._garbler(layer, block.size).garble(self._given(zeros))
      kept, *rest = self._keep(layer, block, encoding)
      self._channel.send('tables', garbled.seed, garbled.check, garbled.tables, *rest)
      return kept

  def _compare(self, structure, output, labels: np.ndarray) -> class_output.ServerState | None:
    """Garbles and sends the comparison of the logits; None where the stage has none."""
    form = structure.comparison_for(output)
    if form is None:
      return None
    if self._comparison is None:
      self._comparison = garbled_argmax.Garbler(
        form.tournament, self._party.randomness, self._party.keys.delta
      )
    zeros = labels[form.offset : form.offset + form.transfers].reshape(-1, form.size, 2)
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

  def _reply_products(self, structure, tag, requests, mine: dict[str, ServerLayer]) -> None:
    for (modulus, products), layers in structure.products().items():
      with self._scope(self.place, 'polynomial'):
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

  def _choose(self, structure, tag, garbled, mine: dict[str, ServerLayer]):
    """Sends the server's choices, hidden by correlated transfers.

    They are, for every sign test, the bit p that colour 0 stands for (`relu`); and, for
    every output, a random bit beta (`truncation`).

    Returns iterators over the pads, and over the packed choices, of each of
    `message_shapes.choice_parts`.
    """
    with self._scope(self.place, 'transfers'):
      parts = message_shapes.choice_parts(structure)
      choices = []
      for layer in structure.activations:
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
    with self._scope(layer.owner, 'products'):
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

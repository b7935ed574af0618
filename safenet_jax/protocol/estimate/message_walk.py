"""Every message and every step of one private inference, known without running it.

Sizes are those that receivers expect, and steps are counted in operations: what
`estimate` takes bytes and seconds from.
"""

import collections
from collections.abc import Mapping, Sequence
import math

import numpy as np

from safenet_jax.crypto import messages
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, ole, packing
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import layers as records
from safenet_jax.protocol.delphi import keys, message_shapes, online
from safenet_jax.protocol.gazelle import correlations
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure
from safenet_jax.transport import frames, packed_words
from safenet_jax.transport.ledger import Ledger

# (phase, layer, primitive, party), as in a ledger.
Row = tuple[str, str, str, str]


class Flow:
  """One connection with one inference of one image.

  ledger: its messages.
  operations: by row of the ledger, how often each operation is done there.
  """

  def __init__(
    self,
    model: FixedPointModel,
    structure: Structure,
    contexts: dict[int, bfv.Context],
    mode: str,
  ):
    self.ledger = Ledger()
    self.operations: dict[Row, collections.Counter[str]] = {}
    self._model, self._structure, self._contexts = model, structure, contexts
    self._shapes = records.shapes(model.layers, model.input_shape)
    self._gazelle = mode == 'gazelle'
    self._session()
    self._offline()
    self._online()

  def _send(self, scope: tuple[str, str, str], sender: str, tag: str, parts: Sequence) -> int:
    size = frames.wire_size(frames.expect(tag, parts))
    self.ledger.count(*scope, sender, size)
    return size

  def _words(self, scope, sender: str, tag: str, words: Sequence[packed_words.Words]) -> int:
    return self._send(scope, sender, tag, [(np.uint8, (part.size,)) for part in words])

  def _work(self, scope, party: str, **operations: float) -> None:
    """Counts operations; an underscore stands for a space."""
    row = self.operations.setdefault((*scope, party), collections.Counter())
    row.update({f'{party} {name.replace("_", " ")}': n for name, n in operations.items() if n})

  def _both(self, scope, client: Mapping[str, float], server: Mapping[str, float]) -> None:
    self._work(scope, 'client', **client)
    self._work(scope, 'server', **server)

  def _session(self) -> None:
    scope = 'setup', 'session', 'keys'
    sizes = keys.message_parts(self._contexts)
    for i, (tag, parts) in enumerate(zip(('keys', 'points', *['corrections'] * 2), sizes)):
      self._send(scope, ('client', 'server')[i % 2], tag, parts)
    self._both(scope, {'session': 1}, {'session': 1})

  def _linear(self, phase: str, name: str) -> None:
    scope, layer, context = (phase, name, 'linear'), self._structure.linear[name], self._contexts[0]
    up = 'share' if phase == 'online' else 'masks'
    size = encrypted_convolution.upload_size(context, layer)
    self._send(scope, 'client', up, [(bytes, (size,))])
    layout = packing.layout(layer, context.degree)
    inputs, outputs = layout.tiles * layout.inputs, layout.tiles * layout.outputs
    self._both(
      scope,
      {'encryption': inputs, 'decryption': outputs},
      {'input': inputs, 'product': inputs * layout.outputs, 'output': outputs},
    )

  def _linear_reply(self, phase: str, name: str) -> None:
    size = encrypted_convolution.reply_size(self._contexts[0], self._structure.linear[name])
    self._send((phase, name, 'linear'), 'server', 'linear', [(bytes, (size,))])

  def _offline(self) -> None:
    structure = self._structure
    if not self._gazelle:
      for name in structure.linear:
        self._linear('offline', name)
      for name in structure.linear:
        self._linear_reply('offline', name)
    if structure.transfers:
      scope = 'offline', 'all', 'labels'
      self._send(scope, 'client', 'labels', message_shapes.labels_message(structure))
      transfers = {'label_transfer': structure.transfers}
      self._both(scope, transfers, transfers)
    self._products()
    for layer in structure.activations:
      self._tables(layer)
    self._products_reply()
    if structure.choices:
      scope, parts = ('offline', 'all', 'transfers'), message_shapes.choice_parts(structure)
      self._send(scope, 'server', 'choices', message_shapes.choice_message(parts))
      choices = {'word_transfer': structure.choices}
      self._both(scope, choices, choices)
    for layer in structure.activations:
      if layer.selected:
        self._shares(layer)
    scope = 'offline', 'session', 'identifier'
    self._send(scope, 'server', 'prepared', [(bytes, (message_shapes.ID_BYTES,))])

  def _groups(self):
    """Of each group of layers that share ciphertexts: context, products, values."""
    for (modulus, products), layers in self._structure.products().items():
      count = sum(math.prod(layer.polynomial_shape) for layer in layers)
      yield self._contexts[modulus], products, count

  def _products(self) -> None:
    scope = 'offline', 'all', 'polynomial'
    for context, products, count in self._groups():
      size = ole.request_size(context, products, count)
      self._send(scope, 'client', 'powers', [(bytes, (size,))])
      # One goes up for every power, and one comes back.
      blocks = -(-count // context.degree) * (products + 1)
      self._both(scope, {'slot_ciphertext': blocks}, {'slot_ciphertext': blocks})

  def _products_reply(self) -> None:
    for context, _, count in self._groups():
      size = ole.reply_size(context, count)
      self._send(('offline', 'all', 'polynomial'), 'server', 'products', [(bytes, (size,))])

  def _tables(self, layer: ActivationStructure) -> None:
    scope = 'offline', layer.name, 'garbling'
    for block in layer.blocks:
      size = self._send(scope, 'server', 'tables', message_shapes.tables_parts(layer, block))
      ands = layer.circuit.and_count * block.size
      # Random labels of the circuits' inputs: those of the client come from transfers.
      labels = sum(width for name, width in layer.circuit.inputs if name != 'client')
      labels += layer.width * self._gazelle
      self._work(scope, 'client', table_byte=size)
      self._work(
        scope, 'server', garbled_and=ands, drawn_label=labels * block.size, garbled_block=1
      )

  def _shares(self, layer: ActivationStructure) -> None:
    scope, bits = ('offline', layer.name, 'products'), layer.form.select_bits
    if not self._gazelle:
      words = packed_words.Words((layer.selected,), bits)
      self._send(scope, 'client', 'shares', [(bytes, (messages.BYTES,)), (np.uint8, (words.size,))])
      self._work(scope, 'server', selected_product=layer.selected)
    self._work(scope, 'client', selected_product=layer.selected)

  def _online(self) -> None:
    bits = self._structure.bits
    if not self._gazelle:
      words = packed_words.Words((1, *self._structure.input_shape), bits)
      self._words(('online', 'input', 'masked input'), 'client', 'input', [words])
    activations = {layer.name: layer for layer in self._structure.activations}
    for shape in self._shapes:
      if isinstance(shape.layer, records.Activation):
        self._activation(activations[shape.name])
      elif shape.name in self._structure.linear:
        if self._gazelle:
          self._linear('online', shape.name)
          self._linear_reply('online', shape.name)
        scope = 'online', shape.name, 'linear'
        self._work(scope, 'server', multiply_accumulate=shape.macs, linear_layer=1)
    words = packed_words.Words((1, self._structure.logits), bits)
    self._words(('online', 'logits', 'share'), 'server', 'logits', [words])

  def _activation(self, layer: ActivationStructure) -> None:
    def at(primitive):
      return 'online', layer.name, primitive

    if self._gazelle:
      parts = correlations.corrections_message(layer)
      size = self._send(at('corrections'), 'client', 'differences', parts)
      self._both(at('corrections'), {'corrected_byte': size}, {'corrected_byte': size})
      if layer.blocks:
        labels = (np.uint64, (layer.transfers, 2))
        self._send(at('client labels'), 'server', 'client labels', [labels])
        transfers = {'corrected_label': layer.transfers}
        self._both(at('client labels'), transfers, transfers)
    sizes = online.Messages(layer, self._structure.bits, 1)
    size = self._words(at('activation'), 'server', 'activation', sizes.down)
    one = {'activation_byte': size, 'activation_layer': 1}
    self._both(at('activation'), one, one)
    if layer.blocks:
      ands = layer.circuit.and_count * sum(block.size for block in layer.blocks)
      chosen = {'chosen_label': layer.transfers, 'chosen_block': len(layer.blocks)}
      self._both(at('labels'), {}, chosen)
      self._work(at('evaluation'), 'client', evaluated_and=ands, evaluated_block=len(layer.blocks))
    if layer.powers:
      values = {'polynomial_product': layer.powers * math.prod(layer.polynomial_shape)}
      self._both(at('polynomial'), values, values)
    self._words(at('truncation'), 'client', 'masked', sizes.up)
    outputs = sum(math.prod(shape) for shape, _ in layer.outputs(self._structure.bits))
    one = {'truncation': outputs, 'truncated_layer': 1}
    self._both(at('truncation'), one, one)

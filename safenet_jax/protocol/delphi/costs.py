"""Counts the messages and steps of an inference without doing them; here Delphi's own.

`protocol.delphi.message_walk` walks through an inference, and counts what is the same in
all modes. For what only one mode does, it calls that mode's `Costs`.
"""

import collections
from collections.abc import Mapping, Sequence
import math

import numpy as np

from safenet_jax.crypto import messages
from safenet_jax.crypto.garbled_circuits import garbled_block
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution
from safenet_jax.protocol.delphi import message_shapes
from safenet_jax.protocol.layers.blocks import Block
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure
from safenet_jax.transport import frames, packed_words
from safenet_jax.transport.ledger import Ledger

# (phase, layer, primitive, party), as in a ledger.
Row = tuple[str, str, str, str]
# (phase, layer, primitive).
Scope = tuple[str, str, str]
_WORD, _LABEL = 8, 16
_POLYNOMIAL = 2 * 4096


class Tally:
  """What one connection with one inference of one image takes.

  ledger: the messages.
  operations: for each row of the ledger, how often each operation is done there.
  """

  def __init__(self):
    self.ledger = Ledger()
    self.operations: dict[Row, collections.Counter[str]] = {}

  def send(self, scope: Scope, sender: str, tag: str, parts: Sequence) -> int:
    """Counts a message with these parts (see `Channel.receive`); gives its bytes on the wire."""
    size = frames.wire_size(frames.expect(tag, parts))
    self.ledger.count(*scope, sender, size)
    return size

  def words(self, scope: Scope, sender: str, tag: str, words: Sequence[packed_words.Words]) -> int:
    """Counts a message of packed words; gives its bytes on the wire."""
    return self.send(scope, sender, tag, [(np.uint8, (part.size,)) for part in words])

  def work(self, scope: Scope, party: str, **operations: float) -> None:
    """Counts a party's operations by name; an underscore stands for a space of the name."""
    row = self.operations.setdefault((*scope, party), collections.Counter())
    row.update({f'{party} {name.replace("_", " ")}': n for name, n in operations.items() if n})

  def both(self, scope: Scope, client: Mapping[str, float], server: Mapping[str, float]) -> None:
    """Counts operations of both parties."""
    self.work(scope, 'client', **client)
    self.work(scope, 'server', **server)


class Costs:
  """What only one mode does in an inference of one image; this class is for Delphi's.

  Args:
    tally: what is counted is added to it.
    structure: of the network.
    contexts: of homomorphic encryption, from `keys.contexts`.
  """

  def __init__(self, tally: Tally, structure: Structure, contexts: Mapping[int, bfv.Context]):
    self._tally, self._structure, self._contexts = tally, structure, contexts

  def offline_linear(self) -> None:
    """Messages of all linear layers, the first of the offline phase."""
    for wave in self._structure.waves:
      for name in wave:
        self._request('offline', name, 'masks', drawn=name in self._structure.drawn)
      for name in wave:
        self._reply('offline', name)

  def drawn_labels(self, layer: ActivationStructure) -> int:
    """How many labels the garbler draws for the client's bits of one circuit."""
    del layer
    return 0  # they come from the transfers

  def tables(self, layer: ActivationStructure, phase: str) -> None:
    """Messages that make a layer's circuits ready."""
    scope = phase, layer.owner, 'garbling'
    for block in layer.blocks:
      parts = message_shapes.tables_parts(layer, block)
      size = self._tally.send(scope, 'server', 'tables', parts)
      ands = layer.circuit.and_count * block.size
      # Random labels of the circuits' other inputs.
      labels = sum(width for name, width in layer.circuit.inputs if name != 'client')
      labels += self.drawn_labels(layer)
      self._tally.work(scope, 'client', table_byte=size)
      self._tally.work(
        scope, 'server', garbled_and=ands, drawn_label=labels * block.size, garbled_block=1
      )

  def products(self, layer: ActivationStructure, phase: str) -> None:
    """Products p c of a bit of the server and the client's share, see `layers.relu`."""
    scope = phase, layer.owner, 'products'
    words = packed_words.Words((layer.selected,), layer.form.select_bits)
    parts = [(bytes, (messages.BYTES,)), (np.uint8, (words.size,))]
    self._tally.send(scope, 'client', 'shares', parts)
    self._tally.work(scope, 'server', selected_product=layer.selected)
    self._tally.work(scope, 'client', selected_product=layer.selected)

  def online_input(self) -> None:
    """The message before the first layer: the masked image."""
    bits = self._structure.rings.values['input']
    words = packed_words.Words((1, *self._structure.input_shape), bits)
    self._tally.words(('online', 'input', 'masked input'), 'client', 'input', [words])

  def online_linear(self, name: str) -> None:
    """Messages of a linear layer: none.

    The server's product of weights and masked input is the same in all modes, and is not
    counted here.
    """

  def online_corrections(self, layer: ActivationStructure) -> None:
    """Messages before those that an activation layer has in all modes: none."""

  def online_circuits(self, layer: ActivationStructure) -> None:
    """What both parties compute for a layer's circuits."""
    chosen = {'chosen_label': layer.transfers, 'chosen_block': len(layer.blocks)}
    self._tally.both(('online', layer.owner, 'labels'), {}, chosen)
    ands = layer.circuit.and_count * sum(block.size for block in layer.blocks)
    evaluated = {'evaluated_and': ands, 'evaluated_block': len(layer.blocks)}
    self._tally.work(('online', layer.owner, 'evaluation'), 'client', **evaluated)

  @classmethod
  def held(cls, structure: Structure) -> dict[str, int]:
    """Bytes that each party holds of a prepared inference for the logits, by party.

    The server's are those that `ServerMaterial.size` leaves out.
    """
    total = _WORD * (math.prod(structure.input_shape) + structure.logits)
    for layer in structure.activations:
      outputs = math.prod(layer.pooled_shape) * (layer.form.relu + layer.form.polynomial)
      # The mask of every output, and both keys of a wrap bit.
      total += _WORD * (outputs + 2 * sum(math.prod(shape) for shape, _ in layer.outputs))
      values = math.prod(layer.polynomial_shape)
      total += _WORD * values * (layer.form.degree + 1) if layer.powers else 0
      total += sum(cls.held_of_block(layer, block) for block in layer.prepared.blocks)
    return {'client': total, 'server': _LABEL * message_shapes.most_transfers(structure, 'logits')}

  @staticmethod
  def held_of_block(layer: ActivationStructure, block: Block) -> int:
    """Bytes that the client holds of a block of garbled instances, but for small keys."""
    total = math.prod(garbled_block.tables_shape(layer.circuit, block.size)) * _WORD
    total += _LABEL * layer.width * block.size
    if layer.form.maximum:
      return total + len(layer.circuit.outputs) * (_LABEL * block.size + block.size // 8)
    return total + 2 * _WORD * block.count

  def _context(self, name: str) -> bfv.Context:
    return self._contexts[self._structure.plain_modulus(name)]

  def _request(self, phase: str, name: str, tag: str, *, drawn: bool = False) -> None:
    """Counts what a client encrypts for a linear layer, and what both parties compute for it."""
    layer, context = self._structure.linear[name], self._context(name)
    size = encrypted_convolution.upload_size(context, layer, drawn=drawn)
    self._tally.send((phase, name, 'linear'), 'client', tag, [(bytes, (size,))])
    layout = encrypted_convolution.layout_of(context, layer)
    # Steps are counted in polynomials of 4096 coefficients modulo two primes.
    tiles = layout.tiles * context.degree * context.moduli.size / _POLYNOMIAL
    # Each output reads the inputs of its own part.
    inputs, outputs = tiles * layout.parts * layout.inputs, tiles * layout.outputs
    self._tally.both(
      (phase, name, 'linear'),
      {'encryption': inputs, 'decryption': outputs},
      {'input': inputs, 'product': outputs * layout.inputs, 'output': outputs},
    )

  def _reply(self, phase: str, name: str) -> None:
    size = encrypted_convolution.reply_size(self._context(name), self._structure.linear[name])
    self._tally.send((phase, name, 'linear'), 'server', 'linear', [(bytes, (size,))])

"""Every message and every step of one private inference, known without running it.

A message's size is the one that its receiver expects. A step is counted as operations.
From these `estimate` makes bytes and seconds. This file walks through what all modes share,
in the order in which it happens. What only one mode does is in that mode's `Costs`.
"""

import math

from safenet_jax.crypto.homomorphic import bfv, ole
from safenet_jax.fixed_point.model import PublicModel
from safenet_jax.models import layers as records
from safenet_jax.protocol.delphi import keys, message_shapes, online
from safenet_jax.protocol.delphi.costs import Costs, Tally
from safenet_jax.protocol.delphi.mode import Mode
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure
from safenet_jax.transport import packed_words


def tally(
  model: PublicModel, structure: Structure, contexts: dict[int, bfv.Context], mode: Mode
) -> Tally:
  """Counts one connection with one inference of one image, for its logits.

  Args:
    model: what is served.
    structure: of the model.
    contexts: of a session, from `keys.contexts`.
    mode: how it is served.
  """
  found = Tally()
  walk = _Walk(found, structure, contexts, mode.costs(found, structure, contexts))
  walk.session()
  walk.offline()
  walk.online(model)
  return found


class _Walk:
  """Counts into a tally."""

  def __init__(
    self, found: Tally, structure: Structure, contexts: dict[int, bfv.Context], own: Costs
  ):
    self._tally, self._structure, self._contexts, self._own = found, structure, contexts, own

  def session(self) -> None:
    """The messages and steps that set up a session's keys."""
    scope = 'setup', 'session', 'keys'
    sizes = keys.message_parts(self._contexts)
    for i, (tag, parts) in enumerate(zip(('keys', 'points', *['corrections'] * 2), sizes)):
      self._tally.send(scope, ('client', 'server')[i % 2], tag, parts)
    self._tally.both(scope, {'session': 1}, {'session': 1})

  def offline(self) -> None:
    """Everything that needs no image."""
    self._own.offline_linear()
    for stage in message_shapes.stages(self._structure, 'logits'):
      self._stage(stage.structure, 'offline', 'all')
    scope = 'offline', 'session', 'identifier'
    self._tally.send(scope, 'server', 'prepared', [(bytes, (message_shapes.ID_BYTES,))])

  def _stage(self, structure: Structure, phase: str, place: str) -> None:
    """What makes the activation layers of a stage ready, in a phase and in a ledger's place."""
    labels = structure.transfers('logits')
    if labels:
      scope = phase, place, 'labels'
      self._tally.send(scope, 'client', 'labels', message_shapes.labels_message(labels))
      self._tally.both(scope, {'label_transfer': labels}, {'label_transfer': labels})
    self._products(structure)
    for layer in structure.activations:
      self._own.tables(layer, phase)
    self._products_reply(structure)
    if structure.choices:
      scope, parts = (phase, place, 'transfers'), message_shapes.choice_parts(structure)
      self._tally.send(scope, 'server', 'choices', message_shapes.choice_message(parts))
      choices = {'word_transfer': structure.choices}
      self._tally.both(scope, choices, choices)
    for layer in structure.activations:
      if layer.selected:
        self._own.products(layer, phase)

  def _groups(self, structure: Structure):
    """For each group of layers that share ciphertexts: context, products a value, and values."""
    for (modulus, products), layers in structure.products().items():
      count = sum(math.prod(layer.polynomial_shape) for layer in layers)
      yield self._contexts[modulus], products, count

  def _products(self, structure: Structure) -> None:
    scope = 'offline', 'all', 'polynomial'
    for context, products, count in self._groups(structure):
      size = ole.request_size(context, products, count)
      self._tally.send(scope, 'client', 'powers', [(bytes, (size,))])
      # One goes up for every power, and one comes back.
      blocks = -(-count // context.degree) * (products + 1)
      self._tally.both(scope, {'slot_ciphertext': blocks}, {'slot_ciphertext': blocks})

  def _products_reply(self, structure: Structure) -> None:
    scope = 'offline', 'all', 'polynomial'
    for context, _, count in self._groups(structure):
      size = ole.reply_size(context, count)
      self._tally.send(scope, 'server', 'products', [(bytes, (size,))])

  def online(self, model: PublicModel) -> None:
    """From the image to the logits."""
    self._own.online_input()
    activations = self._structure.parts()
    for shape in records.shapes(model.layers, model.input_shape):
      if shape.name in activations:
        for layer in activations[shape.name]:
          self._activation(layer)
      elif shape.name in self._structure.linear:
        self._own.online_linear(shape.name)
        scope = 'online', shape.name, 'linear'
        self._tally.work(scope, 'server', multiply_accumulate=shape.macs, linear_layer=1)
    words = packed_words.Words((1, self._structure.logits), self._structure.rings.logits)
    self._tally.words(('online', 'logits', 'share'), 'server', 'logits', [words])

  def _activation(self, layer: ActivationStructure) -> None:
    def at(primitive):
      return 'online', layer.owner, primitive

    if stage := message_shapes.online_stage(self._structure, layer):
      self._stage(stage.structure, 'online', layer.name)
    self._own.online_corrections(layer)
    sizes = online.Messages(layer, 1)
    size = self._tally.words(at('activation'), 'server', 'activation', sizes.down)
    one = {'activation_byte': size, 'activation_layer': 1}
    self._tally.both(at('activation'), one, one)
    if layer.blocks:
      self._own.online_circuits(layer)
    if layer.powers:
      values = {'polynomial_product': layer.powers * math.prod(layer.polynomial_shape)}
      self._tally.both(at('polynomial'), values, values)
    self._tally.words(at('truncation'), 'client', 'masked', sizes.up)
    outputs = sum(math.prod(shape) for shape, _ in layer.outputs)
    one = {'truncation': outputs, 'truncated_layer': 1}
    self._tally.both(at('truncation'), one, one)

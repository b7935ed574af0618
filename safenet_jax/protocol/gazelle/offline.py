"""The offline phase of both parties in the mode `gazelle`: circuits and random correlations.

           client                                       server
             --- random choices of labels, Enc(a_j) ------>
             <-- garbled tables, OLE replies, choices -----

This is one round trip for all images of a lot (`message_shapes.lots`). Enc is encryption
under the client's key, and the a_j are random factors. An OLE reply gives the parties shares
of the products of these factors and the server's. `correlations` says what the messages show.
"""

from collections.abc import Callable

import numpy as np

from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.protocol.delphi import client_offline, message_shapes, server_offline
from safenet_jax.protocol.delphi.material import ServerLayer
from safenet_jax.protocol.gazelle.correlations import (
  ClientCorrelations,
  ClientMaterial,
  ServerCorrelations,
  ServerMaterial,
)
from safenet_jax.protocol.layers.structure import ActivationStructure

_NOTHING = np.empty(0, np.uint64)


class _Image(client_offline.Image):
  """One image's offline phase, with random values in the place of Delphi's shares."""

  has_linear = False

  def __init__(self, *args):
    super().__init__(*args)
    self.correlations: dict[str, ClientCorrelations] = {}
    self.pads: dict[str, np.ndarray] = {}
    self.choices = np.empty(0, np.uint8)

  def _label_choices(self) -> np.ndarray:
    size = self.transfers // 8
    self.choices = np.frombuffer(self.party.randomness.bytes(size), np.uint8)
    return self.choices

  def _factors(self, layer: ActivationStructure) -> np.ndarray:
    shape = (layer.powers, 1, *layer.polynomial_shape)
    self.pads[layer.name] = self.party.randomness.residues(layer.form.modulus, shape)
    return self.pads[layer.name]

  def _send_products(self, layer: ActivationStructure, garbled, pads) -> None:
    """Sends nothing, because the shares that the products need are not known yet."""
    with self.channel.scope(phase='offline', layer=layer.name, primitive='products'):
      # The message for factors of 0, to which the factors are added online.
      zeros, bits = np.zeros(layer.instances, np.uint64), layer.form.select_bits
      offsets, shares = word_transfer.send_products(zeros, pads, bits=bits)
      self.correlations[layer.name] = ClientCorrelations(
        *self._choices_of(layer), garbled, offsets, shares
      )

  def _choices_of(self, layer: ActivationStructure) -> tuple[np.ndarray, np.ndarray]:
    """The choices of a layer's label transfers, packed, and the labels that they gave."""
    first, end = layer.offset, layer.offset + layer.transfers
    return self.choices[first // 8 : end // 8], self.labels[first:end]

  def leave(self, number: int) -> None:
    for layer in self.structure.activations:
      if not layer.selected:
        self.correlations[layer.name] = ClientCorrelations(*self._choices_of(layer), [])
      self.correlations[layer.name].pads = self.pads.get(layer.name)
    super().leave(number)

  def finish(self) -> ClientMaterial:
    plain = super().finish()
    form, compared = self.comparison, plain.argmax
    if form is not None:
      first, end = form.offset // 8, (form.offset + form.transfers) // 8
      compared = compared._replace(
        choices=self.choices[first:end].reshape(form.tournament.entering, -1)
      )
    return ClientMaterial(
      plain.identifier,
      _NOTHING,
      _NOTHING,
      plain.layers,
      self.correlations,
      argmax=compared,
      output=plain.output,
    )


class ClientOffline(client_offline.ClientOffline):
  """The client's offline phase in one session; its materials are `ClientMaterial`."""

  _kind = _Image


class _ServerImage(server_offline.Image):
  """What the server has so far of one image."""

  def __init__(self, *args):
    super().__init__(*args)
    self.correlations: dict[str, ServerCorrelations] = {}


class ServerOffline(server_offline.ServerOffline):
  """The server's offline phase in one session; linear layers have no part in it."""

  has_linear = False
  _kind = _ServerImage

  def _given(self, zeros: np.ndarray) -> dict[str, np.ndarray]:
    del zeros
    return {}

  def _start(self, image, number: int, message, requests) -> Callable[[], None]:
    structure, output = self._stages[number]
    tag, delta = image.tag.of_stage(number), self._party.keys.delta
    layers = {layer.name: ServerLayer(delta) for layer in structure.activations}
    zeros = self._zero_labels(tag, message, structure.transfers(output))
    garbled = {layer.name: self._garble(layer, zeros) for layer in structure.activations}
    image.compared = self._compare(structure, output, zeros)
    self._reply_products(structure, tag, requests, layers)
    pads, bits = iter(()), iter(())
    if structure.choices:
      pads, bits = self._choose(structure, tag, garbled, layers)
    for layer in structure.activations:
      part = zeros[layer.offset : layer.offset + layer.transfers]
      mine = ServerCorrelations(part, garbled[layer.name])
      if layer.selected:
        mine.colours, mine.products = next(bits), next(pads)
      self._keep_wraps(layer, layers[layer.name], pads, bits)
      image.correlations[layer.name] = mine
    image.layers |= layers
    return lambda: None

  def _material(self, image) -> ServerMaterial:
    identifier = self._party.randomness.bytes(message_shapes.ID_BYTES)
    return ServerMaterial(
      identifier,
      image.u,
      image.layers,
      image.correlations,
      argmax=image.compared,
      output=self._output,
    )

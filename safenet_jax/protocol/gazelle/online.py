"""The online phase of both parties in the mode `gazelle`.

           client                                       server
    for every linear layer
             --- Enc(x_c) --------------------------------->
             <-- Enc(W x_c - u) ----------------------------
    for every activation layer
             --- corrections of what was prepared ---------->
             <-- labels of c; then as in `delphi.online` ----
             --- as in `delphi.online` --------------------->
    at last
             <-- share of the logits -----------------------
    or, for the class alone, corrections and labels as in `layers.class_output`

Enc is encryption under the client's key, W are the layer's weights, and u is the server's
mask of its output. x_c is the client's share of a linear layer's input, and c its share
of the output.

A linear layer and an activation layer take two round trips together. This is because
messages that follow each other in one direction go as one flight: the client's last
message of an activation layer, and its first one of the linear layer behind it. The
linear layer at the end takes one round trip, and the server's share of the logits goes
with its reply. `correlations` says what the messages show.
"""

from collections.abc import Sequence

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.homomorphic import encrypted_convolution
from safenet_jax.models import layers as records
from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.delphi.party import ClientParty, ServerParty
from safenet_jax.protocol.gazelle import correlations
from safenet_jax.protocol.layers import class_output
from safenet_jax.transport import frames


def tag(nonce: bytes, identifier: bytes, name: str) -> bytes:
  """Names one use of a session's keys.

  It holds the session's nonce, the identifier of the preparation that is used, and the
  name of the layer.
  """
  return nonce + b'online' + identifier + name.encode()


class ClientOnline(online.ClientOnline):
  """The client's walk through the network, from layer to layer with its share."""

  def __init__(
    self, party: ClientParty, output: str, materials: Sequence[correlations.ClientMaterial]
  ):
    """As in Delphi, with materials that are completed on the way."""
    super().__init__(party, output, materials)
    self._prepared = materials

  def run(self, images: np.ndarray) -> np.ndarray:
    """Logits int64 [B, classes], or classes int64 [B], of images uint8 [B, H, W, C].

    Each image uses one material; ValueError for another number of images.
    """
    if len(images) != len(self._prepared):
      raise ValueError(f'{len(images)} images for {len(self._prepared)} materials')
    x = ring.from_signed(self.model.encode(images), self.bits)
    for mine in self._prepared:
      mine.spend(self._output)
    c = records.run(self.model.layers, self, x)
    form = self._structure.comparison_for(self._output)
    if form is not None:
      states = [mine.argmax for mine in self._prepared]
      return class_output.correcting_client(self._channel, form, states, c)
    return self._logits(c)

  def conv(self, name, layer, x):
    del layer
    shape, keys = self._structure.linear[name], self._party.keys
    secret = keys.secrets[self._structure.plain_modulus(name)]
    x = ring.reduce(x, self._structure.rings.linear[name])
    outputs = []
    with self._channel.scope(phase='online', layer=name, primitive='linear'):
      tags = [tag(keys.nonce, mine.identifier, name) for mine in self._prepared]
      for each, share in zip(tags, x, strict=True):
        self._channel.send(
          'share',
          encrypted_convolution.encrypt_map(
            secret, shape, share.reshape(shape.input_shape), self._party.randomness, each
          ),
        )
      for each in tags:
        size = encrypted_convolution.reply_size(secret.context, shape)
        (reply,) = self._channel.receive('linear', [(bytes, (size,))])
        outputs.append(
          frames.checked(encrypted_convolution.decrypt_map, secret, shape, reply, each)
        )
    return np.stack(outputs).reshape(len(outputs), *self._structure.shapes[name])

  dense = conv

  def activation(self, name, layer, c):
    form = self._layers[name]
    with self._channel.scope(phase='online', layer=name, primitive='corrections'):
      for mine, share in zip(self._prepared, c, strict=True):
        self._channel.send('differences', *correlations.correct(form, mine, share[None], self.bits))
    if form.blocks:
      with self._channel.scope(phase='online', layer=name, primitive='client labels'):
        for mine in self._prepared:
          (labels,) = self._channel.receive('client labels', [(np.uint64, (form.transfers, 2))])
          correlations.take_labels(form, mine, labels)
    super().activation(name, layer, None)
    return np.concatenate([mine.layers[name].mask for mine in self._prepared])


class ServerOnline(online.ServerOnline):
  """The server's walk through the network, from layer to layer with its share."""

  def __init__(
    self, party: ServerParty, output: str, materials: Sequence[correlations.ServerMaterial]
  ):
    """As in Delphi, with materials that are completed on the way."""
    super().__init__(party, output, materials)
    self._prepared = materials

  def run(self) -> None:
    """Serves one batch, one material for each image."""
    for mine in self._prepared:
      mine.spend(self._output)
    x = np.zeros((len(self._prepared), *self._structure.input_shape), np.uint64)
    s = records.run(self.model.layers, self, x)
    form = self._structure.comparison_for(self._output)
    if form is not None:
      states = [mine.argmax for mine in self._prepared]
      class_output.correcting_server(self._channel, form, states, s)
      return
    self._send_logits(s)

  def conv(self, name, layer, x):
    shape, keys = self._structure.linear[name], self._party.keys
    masks = []
    with self._channel.scope(phase='online', layer=name, primitive='linear'):
      context = self._party.contexts[self._structure.plain_modulus(name)]
      size = encrypted_convolution.upload_size(context, shape)
      uploads = [self._channel.receive('share', [(bytes, (size,))])[0] for _ in self._prepared]
      for mine, upload in zip(self._prepared, uploads):
        each = tag(keys.nonce, mine.identifier, name)
        reply, u = frames.checked(self._party.linear.reply, keys, name, upload, each, drawn=False)
        self._channel.send('linear', reply)
        masks.append(u.reshape(self._structure.shapes[name]))
      return self._linear(name, layer, x, np.stack(masks))

  dense = conv

  def activation(self, name, layer, s):
    form = self._layers[name]
    parts = correlations.corrections_message(form)
    with self._channel.scope(phase='online', layer=name, primitive='corrections'):
      received = [self._channel.receive('differences', parts) for _ in self._prepared]
    with self._channel.scope(phase='online', layer=name, primitive='client labels'):
      for mine, values in zip(self._prepared, received):
        labels = frames.checked(correlations.answer, form, mine, values)
        if labels is not None:
          self._channel.send('client labels', labels)
    return super().activation(name, layer, s)

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

import collections
from collections.abc import Callable, Iterator, MutableMapping, Sequence
import itertools

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution
from safenet_jax.models import layers as records
from safenet_jax.protocol.delphi import client_stage, message_shapes, progress
from safenet_jax.protocol.delphi.material import ClientLayer, ClientMaterial
from safenet_jax.protocol.delphi.party import ClientParty
from safenet_jax.protocol.layers import class_output, share_walks
from safenet_jax.transport import frames

Layers = MutableMapping[str, ClientLayer]


class Image(client_stage.ClientStage):
  """One image's offline phase, step by step. It may go on in another session (`bind`)."""

  # In the mode `gazelle` linear layers have no part in it.
  has_linear = True

  def __init__(self, party: ClientParty, output: str, layers: Layers | None = None):
    """Draws the masks.

    Args:
      party: of the session that it begins in.
      output: one of `structure.OUTPUTS`.
      layers: where finished activation layers are kept; by default in memory.
    """
    super().__init__(party)
    self.network = party.structure
    self.stages = message_shapes.stages(self.network, output)
    self.bind(party)
    self.begun = progress.Begun(self.tag.nonce, self.tag.number)
    self.finished: Layers = {} if layers is None else layers
    # Of the last stage: kept once the server is known to have its side.
    self.unconfirmed: dict[str, ClientLayer] = {}
    randomness, widths = party.randomness, self.network.rings.values
    self.mask = randomness.ring(widths['input'], (1, *self.network.input_shape))
    self.masks: dict[str, np.ndarray] = {}
    for layer in self.network.activations:
      channels = layer.form.relu + layer.form.polynomial
      self.masks[layer.name] = randomness.ring(layer.bits, (1, *layer.pooled_shape, channels))
    self.received: dict[str, np.ndarray] = {}

  def bind(self, party: ClientParty) -> None:
    """Goes on in the session of a party, under its keys."""
    # A number is taken once, whatever happens below: tags with it are used once with a key.
    self.party, self.channel = party, party.channel
    self.tag = message_shapes.Tag(party.keys.nonce, next(party.keys.numbers))

  def go_on(self, party: ClientParty, agreed: progress.Begun) -> None:
    """Goes on in another session, behind the steps that both parties have done.

    Raises:
      ProtocolError: the server has done fewer than its messages showed.
    """
    ours, both = self.begun.progress, agreed.progress
    if (self.inputs and both.linear < len(self.linear)) or both.stages < ours.stages - 1:
      raise frames.ProtocolError('the server says that it has not done what it did')
    if both.stages == ours.stages:
      self.confirm()
    self.unconfirmed, self.begun = {}, agreed
    self.bind(party)

  def enter(self, number: int) -> None:
    """Begins a stage."""
    stage = self.stages[number]
    layers = {a.name: ClientLayer(self.masks[a.name]) for a in stage.structure.activations}
    self.begin(stage, self.tag.of_stage(number), layers)

  def leave(self, number: int) -> None:
    """Ends a stage: nothing of it but its layers is needed any more."""
    self.unconfirmed = self.layers
    self.begun = self.begun._replace(progress=progress.Progress(len(self.linear), number + 1))
    if number + 1 < len(self.stages):
      self.layers = {}
      self.forget()

  def receive_tables(self) -> None:
    super().receive_tables()
    # What came shows that the server has what it was sent in the stage before.
    self.confirm()

  def confirm(self) -> None:
    """The server has its side of the stage before."""
    for name, layer in self.unconfirmed.items():
      self.finished[name] = layer
    self.unconfirmed = {}

  @property
  def waves(self) -> tuple[tuple[str, ...], ...]:
    """The linear layers that take part, wave by wave."""
    return self.network.waves if self.has_linear else ()

  @property
  def linear(self) -> tuple[str, ...]:
    """All of them, in their order."""
    return tuple(itertools.chain(*self.waves))

  def send_mask(self, name: str) -> None:
    """Sends Enc(r) of a linear layer; most r are drawn as they are encrypted."""
    with self.channel.scope(phase='offline', layer=name, primitive='linear'):
      drawn = name in self.network.drawn
      self.channel.send('masks', self._draw(name) if drawn else self._encrypt(name))

  def _encrypt(self, name: str) -> bytes:
    """Enc(r) of a linear layer; the masks that are a part of r are known."""
    walk = share_walks.Masks(self.party.model, self.masks, self.received)
    records.run(self.party.model.layers, walk, self.mask)
    layer, bits = self.network.linear[name], self.network.rings.linear[name]
    r = ring.reduce(walk.inputs[name], bits).reshape(layer.input_shape)
    return encrypted_convolution.encrypt_map(
      self._secret(name), layer, r, self.party.randomness, self.tag(name)
    )

  def _secret(self, name: str) -> bfv.SecretKey:
    return self.party.keys.secrets[self.network.plain_modulus(name)]

  def _draw(self, name: str) -> bytes:
    """Enc(r) of a linear layer for a fresh r, which becomes the low bits of its input's mask."""
    upload, r = encrypted_convolution.draw_map(
      self._secret(name), self.network.linear[name], self.party.randomness, self.tag(name)
    )
    # The array is changed in place: the material has it too.
    source = self.network.drawn[name]
    mask = self.mask if source == 'input' else self.masks[source]
    mask -= ring.reduce(mask, self.network.rings.linear[name])
    mask += r.reshape(mask.shape)
    return upload

  def unread(self, name: str) -> int:
    """Bytes of the server's reply for a linear layer."""
    context = self.party.contexts[self.network.plain_modulus(name)]
    return encrypted_convolution.reply_size(context, self.network.linear[name])

  def receive_reply(self, name: str) -> None:
    """Receives c = W r - u of a linear layer."""
    layer, secret = self.network.linear[name], self._secret(name)
    with self.channel.scope(phase='offline', layer=name, primitive='linear'):
      (reply,) = self.channel.receive('linear', [(bytes, (self.unread(name),))])
      c = frames.checked(encrypted_convolution.decrypt_map, secret, layer, reply, self.tag(name))
    self.received[name] = c.reshape(1, *self.network.shapes[name])
    self.begun = self.begun._replace(progress=progress.Progress(self.linear.index(name) + 1))

  def join(self) -> None:
    """The client's shares of all inputs of activations, and that of the logits."""
    if self.has_linear and not self.inputs and not self.share.size:
      walk = share_walks.Shares(self.party.model, self.masks, self.received)
      self.share = records.run(self.party.model.layers, walk, self.mask)
      self.inputs, self.received = walk.inputs, {}

  def finish(self) -> ClientMaterial:
    """The client's material, once the server says that it has kept its own."""
    with self.channel.scope(phase='offline', layer='session', primitive='identifier'):
      (identifier,) = self.channel.receive('prepared', [(bytes, (message_shapes.ID_BYTES,))])
    self.confirm()
    if not self.comparison:
      return ClientMaterial(identifier, self.mask, self.share, self.finished)
    # For a class, the labels of the logits' share take the place of the share.
    nothing, output = np.empty(0, np.uint64), self.stages[-1].output
    return ClientMaterial(
      identifier, self.mask, nothing, self.finished, argmax=self._comparison(), output=output
    )

  def _comparison(self) -> class_output.ClientState:
    form = self.comparison
    if form is None or self.compared is None:
      raise ValueError('no garbled comparison was received')
    labels = self.labels[form.offset : form.offset + form.transfers]
    garbled, decoding = self.compared
    return class_output.ClientState(garbled, labels.reshape(-1, form.size, 2), decoding)


class ClientOffline:
  """The client's offline phase in one session, for any number of images."""

  _kind: type[Image] = Image

  def __init__(self, party: ClientParty, output: str):
    """Takes what the inferences are to end in, one of `structure.OUTPUTS`."""
    self._party, self._output = party, output
    # Images that were begun, and are not ready; they can go on in another session.
    self.unfinished: list[Image] = []

  def prepare(
    self, count: int, keep: Callable[[], Layers] | None = None
  ) -> Iterator[ClientMaterial]:
    """Prepares inferences of `count` images, and gives each as soon as it is ready.

    Args:
      count: of images.
      keep: makes the mapping where finished activation layers of an image are kept; by default
        they are in memory.
    """
    party = self._party
    for lot in message_shapes.lots(party.structure, self._output, party.contexts, count):
      # Each has masks and a tag of its own.
      images = [self._begin(keep) for _ in range(lot)]
      yield from self._run(images)

  def _begin(self, keep: Callable[[], Layers] | None) -> Image:
    return self._kind(self._party, self._output, keep() if keep else None)

  def resume(
    self, images: Sequence[Image], keep: Callable[[], Layers] | None = None
  ) -> Iterator[ClientMaterial]:
    """Goes on with images that another session left unfinished; `keep` as for `prepare`."""
    channel = self._party.channel
    with channel.scope(phase='offline', layer='session', primitive='progress'):
      told = channel.receive('resumed', [(bytes, (progress.BYTES,))] * len(images))
    found = []
    for image, raw in zip(images, told, strict=True):
      begun = image.begun.least(progress.Begun.decode(raw))
      if begun.anew:
        image = self._begin(keep)
      else:
        image.go_on(self._party, begun)
      found.append(image)
    yield from self._run(found)

  def _run(self, images: list[Image]) -> Iterator[ClientMaterial]:
    self.unfinished = images
    self._linear(images)
    for image in images:
      image.join()
    for number in range(len(images[0].stages)):
      # Images that go on may be further than others.
      some = [image for image in images if image.begun.progress.stages <= number]
      for image in some:
        image.enter(number)
      client_stage.run(some)
      for image in some:
        image.leave(number)
    while images:
      material = images[0].finish()
      del images[0]
      yield material

  def _linear(self, images: Sequence[Image]) -> None:
    """Linear layers: replies are left unread while there is room for them in queues."""
    # What is done of an image is known before this begins: it grows below.
    left = [image.linear[image.begun.progress.linear :] for image in images]
    for wave in images[0].waves:
      waiting: collections.deque[tuple[Image, str]] = collections.deque()
      unread = 0
      for image, names in zip(images, left):
        for name in (name for name in wave if name in names):
          size = image.unread(name)
          while waiting and unread + size > message_shapes.UNREAD_BYTES:
            before, first = waiting.popleft()
            before.receive_reply(first)
            unread -= before.unread(first)
          image.send_mask(name)
          waiting.append((image, name))
          unread += size
      for image, name in waiting:
        image.receive_reply(name)

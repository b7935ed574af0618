"""The server's offline phase. `client_offline` shows its messages, and defines the symbols."""

from collections.abc import Callable, Iterator, Sequence
import itertools

import numpy as np

from safenet_jax.crypto.homomorphic import encrypted_convolution
from safenet_jax.protocol.delphi import message_shapes, progress, server_stage
from safenet_jax.protocol.delphi.material import ServerLayer, ServerMaterial
from safenet_jax.protocol.delphi.party import ServerParty
from safenet_jax.protocol.layers import class_output
from safenet_jax.transport import frames


class Image:
  """One image's offline phase: what the server has so far. It may go on in another session."""

  # Set by the session: in which mode, and for which output it is prepared.
  served: tuple[str, str] = '', ''

  def __init__(self, tag: message_shapes.Tag):
    """Begins in the session of a tag."""
    self.tag = tag
    self.begun = progress.Begun(tag.nonce, tag.number)
    self.u: dict[str, np.ndarray] = {}
    self.layers: dict[str, ServerLayer] = {}
    self.compared: class_output.ServerState | None = None
    self.material: ServerMaterial | None = None


def ready(material: ServerMaterial) -> Image:
  """An image that is prepared, as one whose client was not told so."""
  image = Image(message_shapes.Tag(material.begun.nonce, material.begun.number))
  image.begun, image.material = material.begun, material
  image.served = material.mode, material.output
  return image


class ServerOffline(server_stage.ServerStages):
  """The server's offline phase in one session."""

  # In the mode `gazelle` linear layers have no part in it.
  has_linear = True
  _kind: type[Image] = Image

  def __init__(self, party: ServerParty, output: str):
    """Takes what the inferences are to end in, one of `structure.OUTPUTS`."""
    super().__init__(party)
    self._network, self._output = party.structure, output
    self._stages = message_shapes.stages(self._network, output)
    self._linear = tuple(itertools.chain(*self._network.waves)) if self.has_linear else ()
    # Images that were begun, and are not ready; they can go on in another session.
    self.unfinished: list[Image] = []

  def prepare(self, count: int) -> Iterator[ServerMaterial]:
    """Prepares inferences of `count` images, and gives each as soon as it is ready.

    The caller has to keep what it gets before it asks for the next. Only then is the
    client told that the preparation exists.
    """
    party = self._party
    for lot in message_shapes.lots(party.structure, self._output, party.contexts, count):
      yield from self._run([self._kind(self._tag()) for _ in range(lot)])

  def resume(
    self, images: Sequence[Image | None], agreed: Sequence[progress.Begun]
  ) -> Iterator[ServerMaterial]:
    """Goes on with images that another session left unfinished.

    Args:
      images: of that session.
      agreed: how far both parties are with each of them (`progress`); an image that begins
        anew may be None.

    Raises:
      ProtocolError: they are more than are prepared at once.
    """
    party = self._party
    if len(images) > message_shapes.lot(party.structure, self._output, party.contexts):
      raise frames.ProtocolError(f'{len(images)} images to go on with at once')
    self.unfinished = [image for image in images if image is not None]
    with self._channel.scope(phase='offline', layer='session', primitive='progress'):
      self._channel.send('resumed', *(begun.encode() for begun in agreed))
    found = []
    for image, begun in zip(images, agreed, strict=True):
      if begun.anew or image is None:
        image = self._kind(self._tag())
      else:
        image.tag, image.begun = self._tag(), begun
      found.append(image)
    yield from self._run(found)

  def _tag(self) -> message_shapes.Tag:
    keys = self._party.keys
    return message_shapes.Tag(keys.nonce, next(keys.numbers))

  def _run(self, images: list[Image]) -> Iterator[ServerMaterial]:
    self.unfinished = images
    left = [self._linear[image.begun.progress.linear :] for image in images]
    for wave in self._network.waves if self.has_linear else ():
      for image, names in zip(images, left):
        for name in (name for name in wave if name in names):
          self._reply_linear(image, name)
    for number, stage in enumerate(self._stages):
      # Images that go on may be further than others.
      some = [image for image in images if image.begun.progress.stages <= number]
      choices = [self.receive_choices(stage) for _ in some]
      started = [
        self._start(image, number, message, requests)
        for image, (message, requests) in zip(some, choices)
      ]
      for image, finish in zip(some, started):
        finish()
        done = progress.Progress(len(self._linear), number + 1)
        image.begun = image.begun._replace(progress=done)
    while images:
      material = images[0].material = images[0].material or self._material(images[0])
      material.begun = images[0].begun
      yield material
      with self._channel.scope(phase='offline', layer='session', primitive='identifier'):
        self._channel.send('prepared', material.identifier)
      del images[0]

  def _material(self, image: Image) -> ServerMaterial:
    identifier = self._party.randomness.bytes(message_shapes.ID_BYTES)
    return ServerMaterial(
      identifier, image.u, image.layers, argmax=image.compared, output=self._output
    )

  def _reply_linear(self, image: Image, name: str) -> None:
    """Answers Enc(r) of a linear layer, while the client encrypts the next."""
    party, layer = self._party, self._network.linear[name]
    with self._channel.scope(phase='offline', layer=name, primitive='linear'):
      context = party.contexts[self._network.plain_modulus(name)]
      drawn = name in self._network.drawn
      size = encrypted_convolution.upload_size(context, layer, drawn=drawn)
      (upload,) = self._channel.receive('masks', [(bytes, (size,))])
      reply, u = frames.checked(
        party.linear.reply, party.keys, name, upload, image.tag(name), drawn=drawn
      )
      image.u[name] = u.reshape(1, *self._network.shapes[name])
      done = progress.Progress(self._linear.index(name) + 1)
      image.begun = image.begun._replace(progress=done)
      self._channel.send('linear', reply)

  def _start(self, image: Image, number: int, message, requests) -> Callable[[], None]:
    """Does the server's part in a stage, up to the client's last flight.

    Returns a function that receives that flight, and completes the image's layers.
    """
    made = self.make(self._stages[number], image.tag.of_stage(number), message, requests)
    image.compared = made.compared

    def finish() -> None:
      made.finish()
      image.layers |= made.layers

    return finish

"""The online phase of both parties in the mode `ot`: two round trips for every ReLU layer.

           client                                       server
             --- x - r ------------------------------------>
    and for every activation layer with sign tests
             <-- tables of digits, bits --------------------
             --- bits -------------------------------------->
             <-- bits; select words, delta, d ---------------
             --- corrections E, masked words B ------------->
    and for every other activation layer, and at last, as in `delphi.online`

The tables and bits are the messages of `layers.millionaires`, which says why they show
nothing. All else is as in Delphi's mode.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.delphi.material import ClientMaterial
from safenet_jax.protocol.delphi.party import ClientParty
from safenet_jax.protocol.layers import millionaires
from safenet_jax.protocol.ot.structure import ActivationStructure
from safenet_jax.transport.channel import Channel


def _send(
  channel: Channel,
  tag: str,
  layer: ActivationStructure,
  images: int,
  bits: Sequence[np.ndarray],
  tables: Sequence[np.ndarray] = (),
) -> None:
  """Sends the bits of all blocks of all images, and the tables of each digit."""
  packed = [
    part.pack(table.reshape(part.shape)) for part, table in zip(layer.tables(images), tables)
  ]
  per_image = len(layer.blocks)
  joined = [
    np.concatenate(bits[start : start + per_image], axis=-1)
    for start in range(0, len(bits), per_image)
  ]
  channel.send(tag, *packed, np.stack(joined))


def _receive(
  channel: Channel, tag: str, layer: ActivationStructure, images: int, step: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """The bits of each block of each image; and the tables of each digit, [images, selected]."""
  parts = layer.tables(images) if step == 0 else []
  *packed, bits = channel.receive(
    tag, [(np.uint8, (part.size,)) for part in parts] + [layer.opened(step, images)]
  )
  blocks = [
    image[:, block.first // 8 : block.first // 8 + block.size // 8]
    for image in bits
    for block in layer.blocks
  ]
  return blocks, [part.unpack(data) for part, data in zip(parts, packed)]


class ClientOnline(online.ClientOnline):
  """The client's walk through the network."""

  def __init__(self, party: ClientParty, output: str, materials: Sequence[ClientMaterial]):
    """As in Delphi."""
    super().__init__(party, output, materials)
    # Of the layer that is being compared: of each block what it has, and what was received.
    self._steps: list[tuple[millionaires.ClientStep, np.ndarray]] = []

  def activation(self, name, layer, value):
    if self._layers[name].test:
      self._compare(self._layers[name])
    super().activation(name, layer, value)

  def _blocks(self, layer: ActivationStructure) -> Iterator[tuple]:
    """The images' blocks in order: their state, and where their instances are."""
    for image, material in enumerate(self._materials):
      for block, state in zip(layer.blocks, material.layers[layer.name].blocks, strict=True):
        yield state, (image, slice(block.first, block.end))

  def _compare(self, layer: ActivationStructure) -> None:
    with self._channel.scope(phase='online', layer=layer.name, primitive='comparison'):
      images, answers, steps = len(self._materials), [], []
      bits, tables = _receive(self._channel, 'digits', layer, images, 0)
      for (state, at), opened in zip(self._blocks(layer), bits, strict=True):
        answer, step = millionaires.answer_of_client(
          state, [table[at] for table in tables], opened, layer.form
        )
        answers.append(answer)
        steps.append(step)
      _send(self._channel, 'openings', layer, images, answers)
      bits, _ = _receive(self._channel, 'signs', layer, images, 2)
      self._steps = list(zip(steps, bits, strict=True))

  def _garbled(self, layer: ActivationStructure, mine, labels, words) -> np.ndarray:
    if not layer.test:
      return super()._garbled(layer, mine, labels, words)
    with self._channel.scope(phase='online', layer=layer.name, primitive='comparison'):
      values = [
        millionaires.finish_client(state, step, received, words[at], layer.form)
        for (state, at), (step, received) in zip(self._blocks(layer), self._steps, strict=True)
      ]
      return np.concatenate(values).reshape(len(mine), *layer.garbled_shape)


class ServerOnline(online.ServerOnline):
  """The server's walk through the network."""

  def _garbled(self, layer: ActivationStructure, mine, s) -> tuple:
    if not layer.test:
      return super()._garbled(layer, mine, s)
    with self._channel.scope(phase='online', layer=layer.name, primitive='comparison'):
      images, flat = len(mine), s.reshape(len(mine), -1)
      blocks = [
        (state, flat[image, block.first : block.end])
        for image, material in enumerate(mine)
        for block, state in zip(layer.blocks, material.blocks, strict=True)
      ]
      first = [millionaires.first_of_server(*block, layer.form) for block in blocks]
      tables = [np.concatenate(parts) for parts in zip(*(sent for sent, _, _ in first))]
      _send(self._channel, 'digits', layer, images, [bits for _, bits, _ in first], tables)
      received, _ = _receive(self._channel, 'openings', layer, images, 1)
      # All materials of a party are of one session, and have its delta.
      delta = self._materials[0].delta
      last = [
        millionaires.last_of_server(state, step, answer, share, delta, layer.form)
        for (state, share), (_, _, step), answer in zip(blocks, first, received, strict=True)
      ]
      bits, words, shares = zip(*last)
      _send(self._channel, 'signs', layer, images, bits)
      return (
        np.concatenate(words).reshape(images, layer.selected),
        np.concatenate(shares).reshape(images, *layer.garbled_shape),
      )

"""The online phase of both parties in the mode `ot`: two round trips for every ReLU layer.

           client                                       server
             --- x - r ------------------------------------>
    and for every activation layer with sign tests, and every level of a max pool
             <-- tables of digits, bits --------------------
             --- bits -------------------------------------->
             <-- bits; select words, delta, d ---------------
             --- corrections E, masked words B ------------->
    and for every other activation layer, and at last, as in `delphi.online`

Of a level of a max pool but for its last one the masked words B have no corrections, and there is
no d (`layers.maximum_tree`).

The tables and bits are the messages of `layers.millionaires`, which says why they show
nothing. All else is as in Delphi's mode.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.delphi.material import ClientMaterial, ServerMaterial
from safenet_jax.protocol.delphi.party import ClientParty, ServerParty
from safenet_jax.protocol.layers import maximum_tree, millionaires, relu
from safenet_jax.protocol.layers.structure import ActivationStructure
from safenet_jax.protocol.ot import structure
from safenet_jax.transport import packed_words
from safenet_jax.transport.channel import Channel

# Who sends each message of a sign test, and its name.
MESSAGES = ('server', 'digits'), ('client', 'openings'), ('server', 'signs')


class _Exchange:
  """The messages of one layer's sign tests, for a batch of images.

  Bits are those of one block, uint8 [rows, size / 8]. Blocks come image by image.
  """

  def __init__(self, channel: Channel, layer: ActivationStructure, images: int):
    self._channel, self._layer, self._images = channel, layer, images
    self._tables = structure.tables(layer, images)

  def send(self, step: int, bits: Sequence[np.ndarray], tables: Sequence[np.ndarray] = ()) -> None:
    """Sends the bits of all blocks, and in step 0 the tables of each digit, uint64 [all]."""
    packed = [part.pack(table.reshape(part.shape)) for part, table in zip(self._tables, tables)]
    # Tests of a single digit have no bits here.
    size = sum(block.size for block in self._layer.blocks) // 8
    joined = np.concatenate(bits, axis=-1).reshape(len(bits[0]), self._images, size)
    self._channel.send(MESSAGES[step][1], *packed, np.ascontiguousarray(joined.swapaxes(0, 1)))

  def receive(self, step: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The bits of each block; and in step 0 the tables of each digit, [images, selected]."""
    *packed, bits = self._channel.receive(
      MESSAGES[step][1], structure.message(self._layer, self._images, step)
    )
    blocks = [
      image[:, block.first // 8 : (block.first + block.size) // 8]
      for image in bits
      for block in self._layer.blocks
    ]
    return blocks, [part.unpack(data) for part, data in zip(self._tables, packed)]


class ClientOnline(online.ClientOnline):
  """The client's walk through the network."""

  def __init__(self, party: ClientParty, output: str, materials: Sequence[ClientMaterial]):
    """As in Delphi."""
    super().__init__(party, output, materials)
    self._parts = party.structure.parts()
    # Of the layer that is being compared: of each block what it has, and what was received.
    self._steps: list[tuple[millionaires.ClientStep, np.ndarray]] = []

  def activation(self, name, layer, value):
    *levels, last = self._parts[name]
    for level in levels:
      self._maxima(level)
    if last.selected:
      self._compare(last)
    super().activation(name, layer, value)

  def _maxima(self, level: ActivationStructure) -> None:
    """The maxima of a level that is not a pool's last."""
    mine = self._ready(level)
    self._compare(level)
    messages = online.Messages(level, len(mine))
    with self._channel.scope(phase='online', layer=level.owner, primitive='activation'):
      (words,) = packed_words.receive(self._channel, 'activation', messages.down)
    v = self._garbled(level, mine, None, words)
    with self._channel.scope(phase='online', layer=level.owner, primitive='truncation'):
      mask = np.concatenate([layer.mask for layer in mine])
      packed_words.send(self._channel, 'masked', messages.up, [ring.reduce(v - mask, level.bits)])

  def _blocks(self, layer: ActivationStructure) -> Iterator[tuple]:
    """The images' blocks in order: their state, and where their instances are."""
    for image, material in enumerate(self._materials):
      for block, state in zip(layer.blocks, material.layers[layer.name].blocks, strict=True):
        yield state, (image, slice(block.first, block.end))

  def _compare(self, layer: ActivationStructure) -> None:
    with self._channel.scope(phase='online', layer=layer.owner, primitive='comparison'):
      exchange = _Exchange(self._channel, layer, len(self._materials))
      answers, steps = [], []
      bits, tables = exchange.receive(0)
      for (state, at), opened in zip(self._blocks(layer), bits, strict=True):
        answer, step = millionaires.answer_of_client(
          state, [table[at] for table in tables], opened, layer.form
        )
        answers.append(answer)
        steps.append(step)
      exchange.send(1, answers)
      bits, _ = exchange.receive(2)
      self._steps = list(zip(steps, bits, strict=True))

  def _garbled(self, layer: ActivationStructure, mine, labels, words) -> np.ndarray:
    del labels  # there are none
    with self._channel.scope(phase='online', layer=layer.owner, primitive='comparison'):
      values = [
        millionaires.finish_client(state, step, received, words[:, 0][at], layer.form)
        for (state, at), (step, received) in zip(self._blocks(layer), self._steps, strict=True)
      ]
      known = [state.share for state, _ in self._blocks(layer)]
      v = relu.joined(values, known, layer.form, layer.tests, len(mine))
      v = v.reshape(-1, *layer.garbled_shape)
      if layer.pool is None:
        return v
      return ring.reduce(v + np.concatenate([own.second for own in mine]), layer.form.select_bits)


class ServerOnline(online.ServerOnline):
  """The server's walk through the network."""

  def __init__(self, party: ServerParty, output: str, materials: Sequence[ServerMaterial]):
    """As in Delphi."""
    super().__init__(party, output, materials)
    self._parts = party.structure.parts()
    # b_s of the level that is being compared.
    self._second = np.empty(0, np.uint64)

  def activation(self, name, layer, s):
    *levels, last = self._parts[name]
    if last.pool is not None:
      tree = maximum_tree.compared(s, last.pool, server=True)
      s, self._second = next(tree)
      for level in levels:
        s, self._second = tree.send(self._maxima(level, s))
    return super().activation(name, layer, s)

  def _maxima(self, level: ActivationStructure, s: np.ndarray) -> np.ndarray:
    """The server's share of the maxima of a level that is not a pool's last."""
    mine = self._ready(level)
    messages = online.Messages(level, len(mine))
    words, rho = self._garbled(level, mine, s)()
    with self._channel.scope(phase='online', layer=level.owner, primitive='activation'):
      packed_words.send(self._channel, 'activation', messages.down, [words])
      (masked,) = packed_words.receive(self._channel, 'masked', messages.up)
    return ring.reduce(masked + rho, level.bits)

  def _garbled(self, layer: ActivationStructure, mine, s) -> Callable[[], tuple]:
    with self._channel.scope(phase='online', layer=layer.owner, primitive='comparison'):
      exchange = _Exchange(self._channel, layer, len(mine))
      flat = [relu.tested(share, layer.form, layer.tests, server=True) for share in s]
      # A batch may have preparations of several sessions, each with a delta of its own.
      blocks = [
        (state, flat[image][block.first : block.end], material.delta)
        for image, material in enumerate(mine)
        for block, state in zip(layer.blocks, material.blocks, strict=True)
      ]
      first = [millionaires.first_of_server(state, share, layer.form) for state, share, _ in blocks]
      tables = [np.concatenate(parts) for parts in zip(*(sent for sent, _, _ in first))]
      exchange.send(0, [bits for _, bits, _ in first], tables)

    def finish() -> tuple[np.ndarray, np.ndarray]:
      with self._channel.scope(phase='online', layer=layer.owner, primitive='comparison'):
        received, _ = exchange.receive(1)
        last = [
          millionaires.last_of_server(state, step, answer, share, delta, layer.form)
          for (state, share, delta), (_, _, step), answer in zip(
            blocks, first, received, strict=True
          )
        ]
        bits, words, shares = zip(*last)
        exchange.send(2, bits)
        own = [share for _, share, _ in blocks]
        rho = relu.joined(shares, own, layer.form, layer.tests, len(mine))
        rho = rho.reshape(-1, *layer.garbled_shape)
        if layer.pool is not None:
          rho = ring.reduce(rho + self._second, layer.form.select_bits)
        return np.concatenate(words).reshape(len(mine), 1, layer.selected), rho

    return finish

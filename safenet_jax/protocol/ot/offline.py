"""The offline phase of both parties in the mode `ot`.

The flights are Delphi's (`delphi.client_offline`). For sign tests the client's choices of
labels are those of `layers.millionaires`, and the seed of the hash keys is in the place of
garbled tables. The seed of a block goes out before the server hashes, so that both parties
hash at the same time. A level of a max pool (`layers.maximum_tree`) is as a ReLU layer; the client
draws its maxima's masks with all others. The class alone is garbled as in Delphi.
"""

from typing import Any

import numpy as np

from safenet_jax.protocol.delphi import client_offline, server_offline
from safenet_jax.protocol.layers import maximum_tree, millionaires, sign_test
from safenet_jax.protocol.layers.blocks import Block
from safenet_jax.protocol.layers.structure import ActivationStructure


class _Image(client_offline.Image):
  """One image's offline phase."""

  def __init__(self, *args):
    super().__init__(*args)
    # By layer and first instance of a block, until its labels are there.
    self.choices: dict[tuple[str, int], np.ndarray] = {}
    # The client's share of b, by level of a max pool.
    self.seconds: dict[str, np.ndarray] = {}

  def join(self) -> None:
    super().join()
    if self.seconds:
      return
    for name, levels in self.network.parts().items():
      pool = levels[-1].pool
      if pool is None:
        continue
      tree = maximum_tree.compared(self.inputs[name], pool, server=False)
      pair = next(tree)
      for level in levels:
        self.inputs[level.name], self.seconds[level.name] = pair
        if level is not levels[-1]:
          pair = tree.send(self.masks[level.name])

  def enter(self, number: int) -> None:
    super().enter(number)
    for name, layer in self.layers.items():
      layer.second = self.seconds.get(name)

  def _entering(self, layer: ActivationStructure) -> list[np.ndarray]:
    found = super()._entering(layer)
    for i, (block, bits) in enumerate(zip(layer.blocks, found, strict=True)):
      shape = sign_test.sign_test(layer.form).drawn, block.size // 8
      drawn = np.frombuffer(self.party.randomness.bytes(shape[0] * shape[1]), np.uint8)
      found[i] = np.concatenate([bits, drawn.reshape(shape)])
      self.choices[layer.name, block.first] = found[i]
    return found

  def _receive_tables(self, layer: ActivationStructure, block: Block, labels: np.ndarray) -> Any:
    with self.channel.scope(phase='offline', layer=layer.owner, primitive='comparison'):
      (seed,) = self.channel.receive('seed', [(bytes, (millionaires.SEED_BYTES,))])
      choices = self.choices.pop((layer.name, block.first))
      test = sign_test.sign_test(layer.form)
      return millionaires.offline_client(test, labels, choices, seed)

  def _sign_block(self, kept: millionaires.ClientBlock, labels, share, product_share):
    del labels
    return kept._replace(share=share, product_share=product_share)


class ClientOffline(client_offline.ClientOffline):
  """The client's offline phase in one session."""

  _kind = _Image


class ServerOffline(server_offline.ServerOffline):
  """The server's offline phase in one session."""

  def _garble_block(self, layer: ActivationStructure, block: Block, zeros: np.ndarray) -> Any:
    randomness = self._party.randomness
    with self._channel.scope(phase='offline', layer=layer.owner, primitive='comparison'):
      seed = randomness.bytes(millionaires.SEED_BYTES)
      self._channel.send('seed', seed)
      signs = np.frombuffer(randomness.bytes(block.size // 8), np.uint8)
      test = sign_test.sign_test(layer.form)
      return millionaires.offline_server(test, zeros, self._party.keys.delta, seed, signs)

  def _signs(self, layer: ActivationStructure, garbled) -> np.ndarray:
    return np.concatenate(
      [
        np.unpackbits(kept.signs, count=block.count, bitorder='little')
        for block, kept in zip(layer.blocks, garbled)
      ]
    )

  def _sign_block(self, kept: millionaires.ServerBlock, product_share: np.ndarray):
    return kept._replace(product_share=product_share)

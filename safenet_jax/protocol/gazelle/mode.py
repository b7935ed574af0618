"""The mode `gazelle`, as `serve --mode=gazelle` and estimates see it."""

import numpy as np

from safenet_jax.protocol.delphi import costs
from safenet_jax.protocol.delphi.mode import Mode
from safenet_jax.protocol.gazelle import correlations, offline, online
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure


class Costs(costs.Costs):
  """What only the mode `gazelle` does in an inference of one image."""

  def offline_linear(self) -> None:
    """Nothing: linear layers come online."""

  def drawn_labels(self, layer: ActivationStructure) -> int:
    return layer.width

  def products(self, layer: ActivationStructure, phase: str) -> None:
    scope = phase, layer.name, 'products'
    self._tally.work(scope, 'client', selected_product=layer.selected)

  def online_input(self) -> None:
    """Nothing: the image goes encrypted to the first linear layer."""

  def online_linear(self, name: str) -> None:
    self._request('online', name, 'share')
    self._reply('online', name)

  def online_corrections(self, layer: ActivationStructure) -> None:
    scope = 'online', layer.name, 'corrections'
    parts = correlations.corrections_message(layer)
    size = self._tally.send(scope, 'client', 'differences', parts)
    self._tally.both(scope, {'corrected_byte': size}, {'corrected_byte': size})
    if layer.blocks:
      scope = 'online', layer.name, 'client labels'
      labels = (np.uint64, (layer.transfers, 2))
      self._tally.send(scope, 'server', 'client labels', [labels])
      transfers = {'corrected_label': layer.transfers}
      self._tally.both(scope, transfers, transfers)

  @classmethod
  def held(cls, structure: Structure) -> dict[str, int]:
    found = super().held(structure)
    found['client'] += structure.transfers('logits') // 8  # its choices
    return found


GAZELLE = Mode(
  name='gazelle',
  client_offline=offline.ClientOffline,
  client_online=online.ClientOnline,
  server_offline=offline.ServerOffline,
  server_online=online.ServerOnline,
  server_material=correlations.ServerMaterial,
  kept_in_files=False,
  costs=Costs,
)

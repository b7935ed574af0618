"""The mode `ot`, as `serve --mode=ot` and estimates see it."""

from safenet_jax.protocol.delphi import costs, material
from safenet_jax.protocol.delphi.mode import Mode
from safenet_jax.protocol.layers import millionaires, sign_test
from safenet_jax.protocol.layers.blocks import Block
from safenet_jax.protocol.layers.structure import ActivationStructure
from safenet_jax.protocol.ot import offline, online, structure


class Costs(costs.Costs):
  """What only the mode `ot` does in an inference of one image."""

  def tables(self, layer: ActivationStructure, phase: str) -> None:
    scope = phase, layer.owner, 'comparison'
    for _ in layer.blocks:
      self._tally.send(scope, 'server', 'seed', [(bytes, (millionaires.SEED_BYTES,))])
    prepared = {'compared_transfer': layer.transfers}
    self._tally.both(scope, prepared, prepared)

  def online_corrections(self, layer: ActivationStructure) -> None:
    if not layer.selected:
      return
    scope = 'online', layer.owner, 'comparison'
    for step, (party, tag) in enumerate(online.MESSAGES):
      self._tally.send(scope, party, tag, structure.message(layer, 1, step))
    tests = {
      'compared_sign': sum(b.size for b in layer.blocks),
      'compared_block': len(layer.blocks),
    }
    self._tally.both(scope, tests, tests)

  def online_circuits(self, layer: ActivationStructure) -> None:
    del layer  # there are none

  @staticmethod
  def held_of_block(layer: ActivationStructure, block: Block) -> int:
    second = 8 * block.count if layer.pool else 0
    return second + sign_test.sign_test(layer.form).kept_by_client(block.size, block.count)


OT = Mode(
  name='ot',
  client_offline=offline.ClientOffline,
  client_online=online.ClientOnline,
  server_offline=offline.ServerOffline,
  server_online=online.ServerOnline,
  server_material=material.ServerMaterial,
  kept_in_files=True,
  costs=Costs,
  check=structure.check,
  activation=structure.ActivationStructure,
)

"""The mode of MiniONN: what comes online, and what is kept.

That both parties compute what the integer reference does is in `parties_test`, that tags are used
once in `freshness_test`.
"""

import numpy as np
import pytest

from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import sessions
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport.frames import ProtocolError
from tests.support import models, parties, views

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 2), np.uint8)
# What belongs to circuits.
CIRCUITS = {'labels', 'garbling', 'transfers', 'products'}


def joined(run):
  return ledgers.join(*(ledger.record() for ledger in run.ledgers))


def rows(record, phase):
  return {(row['layer'], row['primitive']) for row in record['rows'] if row['phase'] == phase}


def test_circuits_come_online_and_what_polynomials_need_offline():
  found = joined(parties.run(models.model(), IMAGES, mode='minionn'))
  # Transfers offline are those of truncations, for all layers together.
  assert {name for _, name in rows(found, 'offline')} & CIRCUITS == {'transfers'}
  assert ('all', 'polynomial') in rows(found, 'offline')
  assert ('all', 'labels') not in rows(found, 'online')
  for layer in Structure.of(models.model().public).activations:
    assert rows(found, 'online') >= {(layer.name, primitive) for primitive in CIRCUITS}
  # They are Delphi's bytes; of each layer and image there are some messages more.
  delphi = joined(parties.run(models.model(), IMAGES, mode='delphi'))
  totals = [
    sum(record['phases'][phase]['bytes'] for phase in ('offline', 'online'))
    for record in (found, delphi)
  ]
  assert 0 < totals[0] - totals[1] < 2000
  assert found['phases']['online']['bytes'] > 3 * delphi['phases']['online']['bytes']


def test_circuits_are_neither_kept_before_nor_after():
  model = models.pooled()
  run = parties.run(model, IMAGES, mode='minionn')
  for material in (*run.client, *run.server):
    assert not any(layer.blocks for layer in material.layers.values())
  structure = sessions.MODES['minionn'].structure(model.public)
  kept = sum(
    array.nbytes
    for key, array in run.client[0].arrays().items()
    if not key.endswith(('/head', '/key'))
  )
  assert sessions.MODES['minionn'].costs.held(structure)['client'] == kept
  delphi = sessions.MODES['delphi']
  assert kept < delphi.costs.held(delphi.structure(model.public))['client'] / 4


def test_a_preparation_in_a_directory_is_used_in_a_connection_of_other_keys(tmp_path):
  """Labels and transfers are those of the session that infers, not of the one that prepared."""
  model, prepared = models.calibrated(), {}
  options = servers.ServerOptions(mode='minionn')
  with servers.Server(model, context=None, options=options) as server:
    with clients.Client(*server.address, context=None, directory=tmp_path) as client:
      client.prepare(2)
      prepared |= client.ledger.record()['phases']
    with clients.Client(*server.address, context=None, directory=tmp_path) as client:
      assert client.prepared == 2
      logits = client.infer(IMAGES)
      phases = client.ledger.record()['phases']
  assert np.abs(logits - model.logits(IMAGES)).max() < 0.05
  assert 'offline' in prepared and 'offline' not in phases and 'setup' in phases


@pytest.mark.parametrize('tag', ['labels', 'choices', 'shares'])
def test_messages_of_another_transfer_are_refused(tag):
  seen = []

  def alter(party, name, values):
    seen.append(name)
    # The choices that are sent before any tables belong to truncations.
    if name != tag or (tag == 'choices' and 'tables' not in seen):
      return values
    identifier, *rest = values
    return bytes(byte ^ 1 for byte in identifier), *rest

  with pytest.raises(ProtocolError, match='of another|not for|mix'):
    views.run(models.model(), IMAGES[:1], mode='minionn', lie=alter)

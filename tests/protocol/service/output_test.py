"""What leaves the protocol: clients ask for logits or for the class, servers may insist."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import argmax
from safenet_jax.fixed_point.model import OUT_OF_RANGE
from safenet_jax.protocol.delphi import message_shapes
from safenet_jax.protocol.layers.structure import OUTPUTS, Structure
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import commands
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport.frames import ProtocolError
from tests.support import models

MODEL = models.altered(models.model(), logit_bits=24)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 2), np.uint8)


@pytest.fixture(scope='module', params=['delphi', 'gazelle', 'ot'])
def server(request):
  with servers.Server(
    MODEL, context=None, options=servers.ServerOptions(mode=request.param)
  ) as running:
    yield running


@pytest.fixture(scope='module')
def insisting():
  with servers.Server(
    MODEL, context=None, options=servers.ServerOptions(outputs=('class',))
  ) as running:
    yield running


def connect(server, **options):
  return clients.Client(*server.address, context=None, **options)


def test_a_client_gets_what_it_asks_for(server):
  with connect(server) as client:
    classes = client.infer(IMAGES, output='class')
    assert classes.shape == (3,) and classes.dtype == np.int64
    assert set(classes) <= {0, 1, 2}
    logits = client.infer(IMAGES[:1])
    assert logits.shape == (1, 3) and logits.dtype == np.float64
  with connect(server, output='class') as client:
    assert client.infer(IMAGES[:1]).shape == (1,)
    assert client.infer(IMAGES[:1], output='logits').shape == (1, 3)


@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'ot'])
def test_an_image_that_leaves_the_formats_of_an_early_layer_is_distrusted(mode):
  """A bias puts all values where calibration saw none: the first squares wrap around."""
  model = models.calibrated()
  conv = model.linear['conv0']
  wild = dataclasses.replace(conv, bias=conv.bias + (3 << 25))
  images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 2), np.uint8)
  for served, strange in (
    (model, False),
    (dataclasses.replace(model, linear=model.linear | {'conv0': wild}), True),
  ):
    options = servers.ServerOptions(mode=mode)
    with servers.Server(served, context=None, options=options) as server, connect(server) as client:
      logits = client.infer(images)
      classes = client.description.model.classes(logits)
      checked = client.infer(images, output='checked_class')
    assert ((classes == OUT_OF_RANGE) == strange).all()
    assert ((checked == OUT_OF_RANGE) == strange).all()
    if not strange:
      np.testing.assert_array_equal(classes, logits.argmax(-1))


def test_a_preparation_for_one_output_never_serves_the_other(server):
  with connect(server) as client:
    client.prepare(2)
    client.prepare(1, output='class')
    assert client.prepared == 2 and client._store.count('class') == 1
    # One is there and one is prepared on the way: those for logits stay.
    assert client.infer(IMAGES[:2], output='class').shape == (2,)
    assert client.prepared == 2 and client._store.count('class') == 0
    assert client.infer(IMAGES[:2]).shape == (2, 3)
    assert client.prepared == server.prepared == 0


def test_a_server_does_not_take_one_for_the_other(server):
  for made, wanted in itertools.permutations(OUTPUTS, 2):
    with connect(server) as client:
      client.prepare(1, made)
      (name,) = client._store._memory
      commands.send(client._channel, commands.Command(commands.INFER, 1, [name], wanted))
      refused = f'refused: a preparation for {made} in mode .*, want one for {wanted} in mode'
      with pytest.raises(ProtocolError, match=refused):
        client._channel.receive('anything')


def test_image_numbers_are_not_repeated_in_a_session(server, monkeypatch):
  """Tags of correlated OT are made of them, for preparations of either kind."""
  made, original = collections.Counter(), message_shapes.Tag.__init__

  def record(self, nonce, number):
    made[nonce, number] += 1
    original(self, nonce, number)

  monkeypatch.setattr(message_shapes.Tag, '__init__', record)
  with connect(server) as client:
    for count, output in ((2, 'class'), (1, 'logits'), (1, 'class')):
      client.prepare(count, output)
  # Once by each party.
  assert sorted(number for _, number in made) == [0, 1, 2, 3]
  assert set(made.values()) == {2}


def test_both_kinds_are_kept_in_one_directory(tmp_path):
  with servers.Server(MODEL, context=None) as server:
    with connect(server, directory=tmp_path) as client:
      client.prepare(1, 'class')
      client.prepare(2, 'logits')
    with connect(server, directory=tmp_path, output='class') as client:
      assert client.prepared == 1 and len(client._store) == 3
      assert client.infer(IMAGES[:1]).shape == (1,)
      assert 'offline' not in client.ledger.record()['phases']
      assert client.prepared == 0 and client._store.count('logits') == 2
      # Nothing is there for a class: it is prepared, and the others stay.
      assert client.infer(IMAGES[:1]).shape == (1,)
      assert 'offline' in client.ledger.record()['phases']
    assert len(list(tmp_path.glob('*.prepared'))) == 2


@pytest.mark.parametrize('output', ['class', 'checked_class'])
def test_the_ledger_has_the_comparison(server, output):
  with connect(server) as client, connect(server) as other:
    client.infer(IMAGES[:1], output=output)
    other.infer(IMAGES[:1])
    record, rows = client.ledger.record(), client.ledger.record()['rows']
    rounds = other.ledger.record()['phases']['online']['rounds']
  # Labels go in the place of shares; in Gazelle's mode they are corrected first.
  more = 1 if server.description.mode == 'gazelle' else 0
  assert record['phases']['online']['rounds'] == rounds + more
  found = {
    (row['phase'], row['primitive'], row['party']): row for row in rows if row['layer'] == 'class'
  }
  form = Structure.of(MODEL.public).comparison_for(output)
  tables = 32 * argmax.and_count(form.tournament)
  assert found['offline', 'garbling', 'server']['bytes'] - tables in range(48, 300)
  # A label of 16 bytes for each of the server's bits; in Gazelle's mode the client's too.
  labels = (
    16 * form.count * form.tournament.entering * (2 if server.description.mode == 'gazelle' else 1)
  )
  assert found['online', 'labels', 'server']['bytes'] - labels in range(100)
  assert found['online', 'evaluation', 'client']['cpu_seconds'] > 0
  assert not any(row['layer'] == 'logits' for row in rows)


def test_a_server_that_insists_gives_classes_alone(insisting):
  with connect(insisting) as client:
    for ask in (client.infer, client.prepare):
      with pytest.raises(ValueError, match="output 'logits', want what this server gives: class"):
        ask(IMAGES if ask == client.infer else 1)
    # Nothing was sent: the connection goes on.
    assert client.infer(IMAGES, output='class').shape == (3,)


def test_a_client_that_insists_is_refused_before_anything(insisting, caplog):
  caplog.set_level('INFO')
  with pytest.raises(ProtocolError, match='the server has outputs class, want logits'):
    connect(insisting, output='logits')
  with connect(insisting, output='class', keep_prepared=1) as client:
    assert client.infer(IMAGES[:1]).shape == (1,)
  with pytest.raises(ValueError, match='want what this server gives'):
    connect(insisting, keep_prepared=1)
  assert any(
    'the client refused: outputs class, want logits' in r.getMessage() for r in caplog.records
  )


def test_a_server_that_insists_prepares_nothing_else(insisting):
  before = insisting.prepared
  with connect(insisting) as client:
    commands.send(client._channel, commands.Command(commands.PREPARE, 1))
    with pytest.raises(ProtocolError, match='refused: output logits, want class'):
      client._channel.receive('anything')
  assert insisting.prepared == before

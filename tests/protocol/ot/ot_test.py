"""The mode with sign tests by transfers: its messages, what serves once, and what it costs.

That all modes compute what the integer reference does is in `parties_test`; that every message
is uniform is in `uniformity_test`, and bit by bit in `millionaires_test`.
"""

import contextlib
import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto.randomness import InsecureSeededRandomness, SystemRandomness
from safenet_jax.protocol.layers import millionaires
from safenet_jax.protocol.ot import online
from safenet_jax.protocol.ot.mode import OT
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from tests.support import marginals, models, parties, views

IMAGES = np.zeros((4, 8, 8, 2), np.uint8)
# Deviations of the normal distribution. What leaks is tens of them off.
LIMIT = 6.0


def bytes_of(run):
  """Bytes by phase, layer and primitive."""
  record = ledgers.join(*(ledger.record() for ledger in run.ledgers))
  found = {}
  for row in record['rows']:
    key = row['phase'], row['layer'], row['primitive']
    found[key] = found.get(key, 0) + row['bytes']
  return found


def test_what_a_sign_test_takes_is_counted_by_hand():
  ot, delphi = (
    bytes_of(parties.run(models.model(), IMAGES[:1], mode=mode)) for mode in ('ot', 'delphi')
  )
  # 256 values of 16 bits, and 16 of them padded to 64: 20 transfers of 4 bytes each.
  headers = range(200)
  assert ot['offline', 'all', 'labels'] - 4 * 20 * (256 + 64) in headers
  assert ot['offline', 'activation0', 'comparison'] - 16 in headers
  # Digits of 5 bits: tables of 62, 62 and 31 bits; 2 + 5 + 3 bits beside them.
  assert ot['online', 'activation0', 'comparison'] - 256 * (62 + 62 + 31 + 10) // 8 in headers
  assert ('offline', 'activation0', 'garbling') not in ot
  assert delphi['offline', 'activation0', 'garbling'] > 256 * 32 * 15
  # The rest is Delphi's, but for the labels of the server's bits.
  labels = 256 * 16 * 16
  row = 'online', 'activation0', 'activation'
  assert delphi[row] - ot[row] - labels in range(20)
  same = [key for key in ot if key[2] in ('linear', 'polynomial', 'truncation', 'transfers')]
  assert len(same) > 10 and all(ot[key] == delphi[key] for key in same)


def test_what_a_max_pool_takes_is_counted_by_hand():
  run = parties.run(models.pooled(), IMAGES[:1], mode='ot')
  ot = bytes_of(run)

  def headers(messages):
    return range(30 * messages, 80 * messages)

  assert not any(key[2] in ('garbling', 'evaluation') for key in ot)
  # Windows of two by two of six channels: 32 pairs of a row, 16 of a column, 16 with zero. Of 17
  # bits, and in blocks that are multiples of 64; and the 16 values of the other layer, of 16 bits.
  sizes = 32 * 6, 128, 128
  transfers = -(-(21 * sum(sizes) + 20 * 64) // 128) * 128
  assert ot['offline', 'all', 'labels'] - 4 * transfers in headers(1)
  # The words p c, and the select words, of the 64 comparisons of a channel.
  assert ot['offline', 'activation0', 'products'] - 64 * 6 * 17 // 8 in headers(3)
  tables = 64 * 6 * (62 + 62 + 63)
  assert ot['online', 'activation0', 'comparison'] - (tables + 10 * sum(sizes)) // 8 in headers(9)
  assert ot['online', 'activation0', 'activation'] - (64 * 17 + 16) * 6 // 8 in headers(3)
  # Of the first two levels one word, of the outputs B and one or two bits of E.
  masked = ot['online', 'activation0', 'truncation'] - 48 * 6 * 17 // 8
  assert 16 * 6 * 28 // 8 < masked < 16 * 6 * (56 + 56) // 8 + 300
  # Two round trips for each of three levels and the other layer, and one for the logits.
  record = ledgers.join(*(ledger.record() for ledger in run.ledgers))
  assert record['phases']['online']['rounds'] == 2 * (3 + 1) + 1


@pytest.mark.parametrize('masked', [True, False])
def test_the_server_sees_maxima_under_masks(masked, monkeypatch):
  """Of a black image and no weights; without masks they are what they are."""
  seen, maxima = [], online.ServerOnline._maxima
  monkeypatch.setattr(
    online.ServerOnline, '_maxima', lambda *args: seen.append(maxima(*args)) or seen[-1]
  )
  client = None if masked else InsecureZeroMasks()
  views.run(models.zeroed(models.pooled()), IMAGES, mode='ot', client=client)
  assert [values.shape for values in seen] == [(4, 8, 4, 6), (4, 4, 4, 6)]
  images = np.concatenate([values.reshape(4, -1) for values in seen], axis=1)
  views_of_one = [images[0], *(images[0] - other for other in images[1:])]
  counts = [np.bincount((v >> 13 & 15).astype(int), minlength=16) for v in views_of_one]
  assert all((marginals.surprise(count) < LIMIT) == masked for count in counts)


def labels(arrays):
  return {row.tobytes() for array in arrays for row in array.reshape(-1, 2)}


def test_the_client_has_one_label_of_each_choice():
  run = views.run(models.model(), IMAGES, mode='ot')
  delta = run.server_keys.delta
  for mine, theirs in zip(run.client, run.server, strict=True):
    for name, layer in mine.layers.items():
      for client, server in zip(layer.blocks, theirs.layers[name].blocks, strict=True):
        # Of a, and of x and y of the last triple: the choices are the bits that it kept.
        choices = np.stack([client.mask, *client.triples[-1, :2]])
        bits = np.unpackbits(choices, axis=1, bitorder='little').astype(np.uint64)
        np.testing.assert_array_equal(client.labels ^ server.labels, bits[..., None] * delta)
        assert 0.3 < bits.mean() < 0.7
  held = labels(b.labels for m in run.client for layer in m.layers.values() for b in layer.blocks)
  assert len(held) == 4 * 3 * (256 + 64)
  other = labels([np.frombuffer(b''.join(held), np.uint64).reshape(-1, 2) ^ delta])
  assert not held & other and delta.tobytes() not in held


def coins(run):
  """By name the bits that hide what is sent in the place of tables, uint64 [images, instances].

  `x0` to `z1` are the client's bits of both triples, `X0` to `Y1` the server's.
  """

  def joined(kept, rows):
    """Rows of all blocks of all images."""
    return np.stack(
      [
        np.concatenate([rows(block) for layer in m.layers.values() for block in layer.blocks], -1)
        for m in kept
      ],
      1,
    )

  client = joined(run.client, lambda b: np.stack([b.mask, *b.triples.reshape(6, -1)]))
  server = joined(run.server, lambda b: np.stack([b.signs, *b.triples[:, :2].reshape(4, -1)]))
  names = 'a', 'x0', 'y0', 'z0', 'x1', 'y1', 'z1', 'p', 'X0', 'Y0', 'X1', 'Y1'
  return {
    name: np.unpackbits(row, axis=-1).astype(np.uint64)
    for name, row in zip(names, np.concatenate([client, server]), strict=True)
  }


def foreseen(found):
  """Names of coins that are not fair, or that another image or another coin tells."""
  told = set()
  for name, (one, *others) in found.items():
    others += [rows[0] for other, rows in found.items() if other != name]
    if any(marginals.unfair(bits) > LIMIT for bits in [one, *(one ^ other for other in others)]):
      told.add(name)
  return told


def test_what_hides_messages_is_fair_and_every_images_own():
  run = views.run(models.zeroed(models.model()), IMAGES, mode='ot')
  assert not foreseen(coins(run))


class InsecureSameBytes(SystemRandomness):
  """Bytes are the same every time; all else is as it should be."""

  def bytes(self, size):
    return InsecureSeededRandomness(size).bytes(size)


class InsecureZeroMasks(SystemRandomness):
  """Masks are zero."""

  def ring(self, bits, shape):
    return np.zeros(shape, np.uint64)


def test_what_is_foreseen_is_noticed():
  """So the test above fails without what the parties draw."""
  for party, names in (('client', {'a', 'x0', 'y0', 'x1', 'y1'}), ('server', {'p'})):
    randomness = {party: InsecureSameBytes()}
    run = views.run(models.zeroed(models.model()), IMAGES, mode='ot', **randomness)
    assert foreseen(coins(run)) == names


class Silent:
  """A channel on which nothing may be sent."""

  def scope(self, **keys):
    del keys
    return contextlib.nullcontext()


def test_material_serves_once_and_is_refused_before_the_first_byte():
  model = models.model()
  run = parties.run(model, IMAGES[:2], mode='ot')
  set_up = Silent(), model, *parties.set_up(model, 'ot')
  with pytest.raises(ValueError, match='used before'):
    online.ClientOnline(parties.client_party(*set_up), 'logits', run.client).run(IMAGES[:2])
  with pytest.raises(ValueError, match='used before'):
    online.ServerOnline(parties.server_party(*set_up), 'logits', run.server).run()


def test_preparations_in_files_are_the_same_and_serve_later(tmp_path):
  model = models.calibrated()
  run = parties.run(model, IMAGES[:1], mode='ot')
  (mine,) = run.client
  again = type(mine).from_arrays(mine.identifier, mine.arrays(), mine.output)
  for name, layer in mine.layers.items():
    for block, other in zip(layer.blocks, again.layers[name].blocks, strict=True):
      assert type(other) is millionaires.ClientBlock
      for part, value in block._asdict().items():
        np.testing.assert_array_equal(getattr(other, part), value)
  options = servers.ServerOptions(mode='ot')
  with servers.Server(model, context=None, options=options) as server:
    for _ in range(2):  # two sessions, each with labels and a delta of its own
      with clients.Client(*server.address, context=None, directory=tmp_path) as client:
        client.prepare(1)
    with clients.Client(*server.address, context=None, directory=tmp_path) as client:
      assert client.prepared == 2
      found = client.infer(IMAGES[:2])
      assert 'offline' not in client.ledger.record()['phases']
  np.testing.assert_allclose(found, model.logits(IMAGES[:2]), atol=0.05)


SENT = [*online.MESSAGES, ('server', 'seed'), ('server', 'activation'), ('client', 'masked')]


@pytest.mark.parametrize('make', [models.model, models.pooled])
@pytest.mark.parametrize('party, tag', SENT)
def test_a_message_of_another_size_is_refused(party, tag, make, monkeypatch):
  send, receive, errors = Channel.send, Channel.receive, []

  def alter(self, name, *values):
    if name == tag:
      values = [v[:-1] if isinstance(v, bytes) else v[..., :-1].copy() for v in values]
    send(self, name, *values)

  def record(self, *args):
    try:
      return receive(self, *args)
    except ProtocolError as error:
      errors.append((self.peer, str(error)))
      raise

  monkeypatch.setattr(Channel, 'send', alter)
  monkeypatch.setattr(Channel, 'receive', record)
  with pytest.raises(ProtocolError):
    views.run(make(), IMAGES[:1], mode='ot')
  assert any(sender == party and f"message '{tag}' has" in error for sender, error in errors)


def test_sign_tests_that_are_too_long_are_refused():
  model = models.model()
  form = model.public.activations['activation1']
  long = dataclasses.replace(form, sign_bits=31, select_bits=31)
  public = models.altered(
    model, activations=model.public.activations | {'activation1': long}
  ).public
  with pytest.raises(ValueError, match='sign tests of 23 bits in the mode ot, want 1 to 22'):
    OT.structure(public)
  # The difference of two values, which maxima compare, takes a bit more.
  pooled = models.pooled()
  form = dataclasses.replace(pooled.public.activations['activation0'], sign_bits=30, select_bits=23)
  public = models.altered(
    pooled, activations=pooled.public.activations | {'activation0': form}
  ).public
  with pytest.raises(ValueError, match='sign tests of 23 bits'):
    OT.structure(public)

"""A client whose connection is lost while it prepares goes on, and nothing is used twice."""

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.protocol.delphi import (
  client_offline,
  material,
  message_shapes,
  progress,
  server_offline,
)
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import sessions, store
from safenet_jax.transport import accounts
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.stream import HungUpError, LostError
from tests.support import journals, models, mortals, parties
from tests.support import servers as servers_support

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 2), np.uint8)
_TIMEOUT = 600.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """Public parameters are made once, a stage has one layer, and nobody waits."""
  monkeypatch.setattr(bfv, 'Context', parties.context)
  monkeypatch.setattr(message_shapes, '_STAGE_TRANSFERS', 1)
  monkeypatch.setattr(clients, '_PAUSE', 0.0)


@pytest.fixture
def journal(tmp_path, monkeypatch):
  found = journals.Journal(tmp_path / 'journal')
  found.watch(monkeypatch)
  return found


def serve(mode, model=None):
  options = servers.ServerOptions(mode=mode, timeout=_TIMEOUT)
  return servers.Server(model or models.calibrated(), context=None, options=options)


def cut(party, number, after=0):
  """The end of a connection before a party's n-th message, for `after` connections less one."""
  left = [1 + after]

  def die(channel, count, operation, tag):
    if channel.party == party and count == number and left[0]:
      left[0] -= 1
      channel._stream.kill(LostError('the cable is cut'))

  return die


def prepare(server, death, directory, reconnects=2, model=None):
  """A client that prepares and infers; the messages of its first connection, and how it ended."""
  counts = []
  with (
    mortals.dying(death),
    clients.Client(
      *server.address, context=None, directory=directory, timeout=_TIMEOUT, reconnects=reconnects
    ) as client,
  ):
    first = client._channel
    counts.append(first.count)
    client.prepare(1)
    counts.append(first.count)
    again = client._channel is not first
    logits = client.infer(IMAGES)
  expected = (model or models.calibrated()).logits(IMAGES)
  assert np.abs(logits - expected).max() < 0.05
  return counts, again


@pytest.mark.parametrize('party', ['client', 'server'])
@pytest.mark.parametrize(
  'mode',
  [
    'delphi',
    *(pytest.param(mode, marks=pytest.mark.slow) for mode in ('ot', 'gazelle', 'minionn')),
  ],
)
def test_a_cut_at_any_message_is_gone_on_from(mode, party, journal, tmp_path, monkeypatch):
  begun = []
  for kind, name in (('linear', 'send_mask'), ('stage', 'enter')):
    step = getattr(client_offline.Image, name)
    monkeypatch.setattr(
      client_offline.Image,
      name,
      lambda self, place, step=step, kind=kind: begun.append((kind, place)) or step(self, place),
    )
  directory = tmp_path / 'prepared' if sessions.MODES[mode].kept_in_files else None
  with serve(mode) as server:
    (first, last), again = prepare(server, mortals.alive, directory)
    steps, saved = len(begun), []
    assert not again
    for number in range(first, last):
      begun.clear()
      _, again = prepare(server, cut(party, number), directory)
      assert again
      saved.append(2 * steps - len(begun))
    # At least one step is kept wherever one was done, and at the end nearly all of them.
    assert max(saved) >= steps - 1 and sum(saved) > len(saved)
    assert server._store._suspended == {}
  assert not journal.repeated()


def test_a_cut_between_the_levels_of_a_max_pool_is_gone_on_from(journal, tmp_path, monkeypatch):
  entered, enter = [], client_offline.Image.enter
  monkeypatch.setattr(
    client_offline.Image, 'enter', lambda self, stage: entered.append(stage) or enter(self, stage)
  )
  model = models.maxima()
  with serve('ot', model) as server:
    (_, last), _ = prepare(server, mortals.alive, tmp_path, model=model)
    assert entered == [0, 1, 2, 3, 4]  # four levels, and the other layer
    # A stage has four messages at least: these are in three of them.
    for number in (last - 16, last - 10, last - 4):
      entered.clear()
      _, again = prepare(server, cut('client', number), tmp_path, model=model)
      # At most one stage was made twice.
      assert again and set(entered) == {0, 1, 2, 3, 4} and len(entered) <= 6
  assert not journal.repeated()


@pytest.mark.parametrize('in_files', [True, False])
def test_what_was_ready_before_a_cut_is_claimed_again_or_made_again(
  in_files, journal, tmp_path, monkeypatch
):
  """Two images, one after the other; the connection is lost in the second."""
  monkeypatch.setattr(message_shapes, 'lots', lambda *rest: iter([1] * rest[-1]))
  directory, images = tmp_path / 'prepared' if in_files else None, np.repeat(IMAGES, 2, axis=0)
  made, finish = [], client_offline.Image.finish
  monkeypatch.setattr(
    client_offline.Image, 'finish', lambda self: made.append(self) or finish(self)
  )
  options = {'context': None, 'directory': directory, 'timeout': _TIMEOUT, 'reconnects': 2}
  with serve('delphi') as server:
    with mortals.dying(mortals.alive), clients.Client(*server.address, **options) as client:
      client.prepare(2)
      last = client._channel.count
      client.infer(images)
    made.clear()
    with (
      mortals.dying(cut('client', last - 3)),
      clients.Client(*server.address, **options) as client,
    ):
      client.prepare(2)
      assert client.prepared == 2 and len(made) == (2 if in_files else 3)
      logits = client.infer(images)
    assert np.abs(logits - models.calibrated().logits(images)).max() < 0.05
  assert not journal.repeated()


@pytest.mark.parametrize('mode', ['delphi', 'ot'])
def test_images_of_one_lot_go_on_from_different_stages(mode, tmp_path, monkeypatch):
  """The server has forgotten one of two images."""
  images = np.repeat(IMAGES, 2, axis=0)
  resume = store.ServerStore.resume

  def forgetful(self, names, owner):
    found = resume(self, names, owner)
    return [found[0], None] if len(found) == 2 else found

  monkeypatch.setattr(store.ServerStore, 'resume', forgetful)
  options = {'context': None, 'timeout': _TIMEOUT, 'reconnects': 2, 'directory': tmp_path}
  with serve(mode) as server:
    with mortals.dying(mortals.alive), clients.Client(*server.address, **options) as client:
      first = client._channel.count
      client.prepare(2)
      last = client._channel.count
      client.infer(images)
    for number in ((first + last) // 2, last - 2, last - 1):
      with (
        mortals.dying(cut('client', number)),
        clients.Client(*server.address, **options) as client,
      ):
        client.prepare(2)
        logits = client.infer(images)
      assert np.abs(logits - models.calibrated().logits(images)).max() < 0.05


def test_more_images_than_a_lot_are_not_gone_on_with_at_once(monkeypatch):
  monkeypatch.setattr(message_shapes, 'lots', lambda *rest: iter([1] * rest[-1]))
  monkeypatch.setattr(message_shapes, 'lot', lambda *unused: 0)
  with serve('delphi') as server, pytest.raises(ProtocolError, match='1 images to go on with'):
    prepare(server, cut('client', 14), None)


def test_two_cuts_are_gone_on_from_and_a_third_is_one_too_many(journal):
  with serve('delphi') as server:
    # Command, four messages of keys, and linear layers.
    _, again = prepare(server, cut('client', 11, after=1), None)
    assert again
    with pytest.raises(ProtocolError, match='the cable is cut'):
      prepare(server, cut('client', 11, after=2), None)
  assert not journal.repeated()


def test_a_client_that_does_not_reconnect_ends_with_the_error():
  with serve('delphi') as server, pytest.raises(ProtocolError, match='the cable is cut'):
    prepare(server, cut('client', 11), None, reconnects=0)


def test_only_the_owner_goes_on_and_once(monkeypatch):
  with serve('delphi') as server:
    with pytest.raises(ProtocolError):
      prepare(server, cut('client', 14), None, reconnects=0)
    suspended(server)
    (name,) = server._store._suspended
    monkeypatch.setattr('safenet_jax.protocol.service.store._HELD_SECONDS', 0.0)
    (kept,) = server._store._suspended.values()
    assert server._store.resume([name], b'another owner') == [None]
    assert server._store.resume([name], kept.owner) == [kept.image]
    assert server._store.resume([name], kept.owner) == [None]


def suspended(server):
  """Waits until the server has kept the image of a lost connection."""
  servers_support.until(lambda: server._store._suspended)


def test_what_is_unfinished_counts_as_memory_and_is_given_up(monkeypatch):
  with serve('delphi') as server:
    with pytest.raises(ProtocolError):
      prepare(server, cut('client', 14), None, reconnects=0)
    suspended(server)
    (kept,) = server._store._suspended.values()
    held = server._accounts._held['bytes']
    assert sum(held.values()) == kept.size > 0
    server._store.give_up(kept.ticket)
    assert not server._store._suspended
    with pytest.raises(ProtocolError):
      prepare(server, cut('client', 14), None, reconnects=0)
    suspended(server)
    monkeypatch.setattr('safenet_jax.protocol.service.store._SUSPENDED_SECONDS', -1.0)
    server._store.expire()
    assert not server._store._suspended
    assert not server._accounts._holders['bytes'].keys() - {kept.ticket}


def test_an_image_that_the_server_forgot_begins_anew_with_another_mask(monkeypatch):
  masks = []
  finish = client_offline.Image.finish
  monkeypatch.setattr(
    client_offline.Image, 'finish', lambda self: masks.append(self.mask) or finish(self)
  )
  seen = []
  begin = client_offline.Image.__init__

  def watched(self, *args):
    begin(self, *args)
    seen.append(self.mask)

  monkeypatch.setattr(client_offline.Image, '__init__', watched)
  monkeypatch.setattr('safenet_jax.protocol.service.store._HELD_SECONDS', 0.0)
  monkeypatch.setattr('safenet_jax.protocol.service.store.ServerStore.suspend', lambda *a, **k: 0)
  with serve('delphi') as server:
    prepare(server, cut('client', 14), None)
  first, second = seen
  (used,) = masks
  assert used is second and not np.array_equal(first, second)


@pytest.mark.parametrize(
  'forged',
  [
    lambda begun: begun._replace(number=begun.number + 1),
    lambda begun: begun._replace(progress=progress.Progress(0, 0)),
  ],
)
def test_a_server_that_goes_on_with_something_else_is_refused(forged, monkeypatch):
  resume = server_offline.ServerOffline.resume
  monkeypatch.setattr(
    server_offline.ServerOffline,
    'resume',
    lambda self, images, agreed: resume(self, images, [forged(each) for each in agreed]),
  )
  with serve('delphi') as server, pytest.raises(ProtocolError, match='another image|has not done'):
    prepare(server, cut('client', 18), None)


def test_what_the_wire_says_of_an_image_is_read_back():
  begun = progress.Begun(b'n' * 16, 7, progress.Progress(3, 2))
  assert progress.Begun.decode(begun.encode()) == begun
  anew = begun._replace(progress=progress.Progress(), anew=True)
  assert progress.Begun.decode(anew.encode()) == anew
  assert len(begun.encode()) == progress.BYTES
  fewer = begun._replace(progress=progress.Progress(5, 1))
  assert begun.least(fewer).progress == progress.Progress(3, 1)
  assert isinstance(HungUpError('x'), LostError)


def test_an_image_that_is_ready_is_its_owners_and_given_out_once(monkeypatch):
  monkeypatch.setattr('safenet_jax.protocol.service.store._HELD_SECONDS', 0.0)
  made = material.ServerMaterial(b'identifier', {}, {})
  made.begun, made.mode = progress.Begun(b'n' * 16, 0, progress.Progress(1, 1)), 'delphi'
  kept = store.ServerStore(accounts.Accounts(accounts.limits()), 1e6)
  kept.put(made, 0, b'owner')
  assert kept.resume([made.begun.name], b'another') == [None]
  (image,) = kept.resume([made.begun.name], b'owner')
  assert image.material is made and image.served == ('delphi', 'logits')
  assert kept.resume([made.begun.name], b'owner') == [None] and not len(kept)

"""Copies of a client's directory: never two masked inputs under one mask, whatever copies do."""

import os
import pathlib
import shutil
import stat
import time

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import commands, handshake, preparation_files, store
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import channel as channels
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from tests.support import journals, models, parties

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 2), np.uint8)
TWICE = {'client preparation', 'client mask'}


@pytest.fixture(autouse=True)
def quick_contexts(monkeypatch):
  """Public parameters, made once: they hold no secret."""
  monkeypatch.setattr(bfv, 'Context', parties.context)


@pytest.fixture
def journal(tmp_path, monkeypatch):
  found = journals.Journal(tmp_path / 'journal')
  found.watch(monkeypatch)
  return found


@pytest.fixture
def inputs(monkeypatch):
  """Masked inputs, as all clients send them."""
  found, send = [], Channel.send

  def record(channel, tag, *values):
    if (channel.party, tag) == ('client', 'input'):
      found.append(np.concatenate([np.ravel(value) for value in values]).tobytes())
    send(channel, tag, *values)

  monkeypatch.setattr(Channel, 'send', record)
  return found


@pytest.fixture
def server():
  with serve() as running:
    yield running


def serve(**options):
  return servers.Server(models.smallest(), context=None, **options)


def connect(server, directory=None, **options):
  return clients.Client(*server.address, context=None, directory=directory, **options)


def right(client, images):
  expected = models.smallest().logits(images)
  return np.abs(client.infer(images) - expected).max() < 0.05 < np.ptp(expected)


def copy(source, target):
  shutil.rmtree(target, ignore_errors=True)
  shutil.copytree(source, target)


def prepared(directory):
  return sorted(path.name for path in directory.glob('*.prepared'))


def until(condition):
  end = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.002)


def grant_all(monkeypatch):
  """The server's defence removed: it grants what was used or belongs to somebody else."""
  monkeypatch.setattr(store.ServerStore, 'enter', _grant_all)


def _grant_all(self, hello):
  self._owners[hello.owner].connections += 1
  return bytes([handshake.GRANTED] * len(hello.claims))


@pytest.mark.parametrize('defended', [True, False])
def test_a_restored_backup_uses_nothing_that_was_used(
  server, tmp_path, journal, inputs, monkeypatch, caplog, defended
):
  directory, backup = tmp_path / 'prepared', tmp_path / 'backup'
  with connect(server, directory) as client:
    client.prepare(2)
  copy(directory, backup)
  with connect(server, directory) as client:
    assert right(client, IMAGES[:1])
  copy(backup, directory)
  if not defended:
    grant_all(monkeypatch)
    with connect(server, directory) as client, pytest.raises(ProtocolError, match='it was used'):
      client.infer(IMAGES[1:2])
    # The server has them both, and so the difference of the images.
    assert len(inputs) == 2 and journal.repeated() == TWICE
    return
  assert len(prepared(directory)) == 2
  with connect(server, directory) as client:
    assert client.prepared == 1 and len(prepared(directory)) == 1
    assert right(client, IMAGES[1:])  # the second is prepared on the way
  assert len(inputs) == 2 and not journal.repeated()
  (line,) = caplog.messages
  assert line == 'event=preparations_gone count=1 reason="used before, or too old"'


def test_of_two_copies_at_once_one_has_the_preparations(
  server, tmp_path, journal, monkeypatch, caplog
):
  first, second = tmp_path / 'first', tmp_path / 'second'
  with connect(server, first) as client:
    client.prepare(3)
  copy(first, second)
  names = prepared(first)
  with monkeypatch.context() as patch, connect(server, first) as one:
    patch.setattr(store, '_HELD_SECONDS', 0.0)
    with connect(server, second) as other:
      assert (one.prepared, other.prepared) == (3, 0)
      assert right(one, IMAGES[:1]) and right(other, IMAGES[:1])
      assert one.prepared == 2
    # They may be its own later, if the first one does not use them.
    assert prepared(second) == names
    (line,) = caplog.messages
    assert line.startswith('event=preparations_held count=3 reason="another client has them')
  with connect(server, second) as other:
    assert other.prepared == 2 and 'gone count=1' in caplog.text
    assert right(other, IMAGES)
  with connect(server, first) as one:
    assert one.prepared == 0 and not prepared(first)
  assert not journal.repeated()


@pytest.mark.parametrize('defended', [True, False])
def test_what_might_be_on_its_way_is_granted_to_nobody(
  server, tmp_path, journal, monkeypatch, defended
):
  """The server gives up a client that asks for nothing, just as that client begins to."""
  if not defended:
    leave = store.ServerStore.leave
    monkeypatch.setattr(
      store.ServerStore,
      'leave',
      lambda self, owner, keep, idle: leave(self, owner, keep=True, idle=idle),
    )
  first, second = tmp_path / 'first', tmp_path / 'second'
  one = connect(server, first)
  one.prepare(1)
  copy(first, second)
  until(lambda: server._listener.running == 1)
  (channel,) = server._listener._channels.values()
  channel.dismiss('idle')
  until(lambda: not server._listener.running)
  with connect(server, second) as other:
    assert other.prepared == (0 if defended else 1)
    assert right(other, IMAGES[:1])
  with pytest.raises(ProtocolError):
    one.infer(IMAGES[1:2])
  assert journal.repeated() == (set() if defended else TWICE)


def test_what_is_granted_in_a_handshake_that_is_given_up_goes_to_nobody_else(server, tmp_path):
  """The client may have sent its acceptance and a command, which the server does not read."""
  with connect(server, tmp_path / 'one') as client:
    client.prepare(1)
  copy(tmp_path / 'one', tmp_path / 'two')
  host, port = server.address
  kept = store.ClientStore(tmp_path / 'one', f'{host}:{port}', SystemRandomness())
  said = kept.hello(bytes(range(16)))
  assert len(said.claims) == 1
  with channels.connect(host, port, context=None) as channel:
    channel.send('hello', handshake.PROTOCOL_VERSION.to_bytes(4, 'big'))
    channel.send('claims', said.encode())
    assert channel.receive_bytes('description', 1 << 20)[-1] == handshake.GRANTED
    until(lambda: server._listener.running == 1)
    (theirs,) = server._listener._channels.values()
    theirs.dismiss('idle')
    until(lambda: not server._listener.running)
  with connect(server, tmp_path / 'two') as client:
    assert client.prepared == 0


def test_a_refusal_while_the_client_waits_leaves_its_preparations(server, tmp_path):
  """It cannot have sent another command before it has what it asked for."""
  with connect(server, tmp_path) as client:
    client.prepare(2)
    server._policy.predictions_per_day = 0
    with pytest.raises(ProtocolError, match='refused: 0 predictions today'):
      client.prepare(1)
  with connect(server, tmp_path) as client:
    assert client.prepared == 2
    # But under these its masked inputs may be on their way.
    with pytest.raises(ProtocolError, match='refused: 0 predictions today'):
      client.infer(IMAGES[:1])
  assert server.prepared == 1
  with connect(server, tmp_path) as client:
    assert client.prepared == 1


def test_a_copy_is_another_owner_and_the_name_of_none_is_stored(server, tmp_path):
  owners = []
  for _ in range(2):
    with connect(server, tmp_path / 'prepared') as client:
      client.prepare(1)
      owners.append(client._hello.owner)
      assert client._hello.token is not None
  assert owners[0] != owners[1]
  files = [path.read_bytes() for path in (tmp_path / 'prepared').iterdir()]
  names = ''.join(os.listdir(tmp_path / 'prepared'))
  for owner in owners:
    assert owner.hex() not in names
    assert not any(owner in file or owner.hex().encode() in file for file in files)


def test_what_a_client_without_a_directory_prepared_goes_with_it(server):
  with connect(server) as client:
    client.prepare(2)
    assert client._hello.token is None and server.prepared == 2
  until(lambda: not server.prepared)


def test_a_pool_prepares_for_its_client_and_into_its_directory(server, tmp_path):
  with connect(server, tmp_path, keep_prepared=2) as client:
    until(lambda: client.prepared == 2)
    assert right(client, IMAGES[:2])
    assert 'offline' not in client.ledger.record()['phases']
    until(lambda: client.prepared == 2)
  with connect(server, tmp_path) as client:
    assert client.prepared == 2 and right(client, IMAGES[:2])


def test_a_restart_of_the_server_is_told_in_one_line(tmp_path, caplog):
  with serve() as server:
    port = server.address[1]
    with connect(server, tmp_path) as client:
      client.prepare(3)
  with serve(port=port) as server, connect(server, tmp_path) as client:
    assert client.prepared == 0 and not prepared(tmp_path)
    assert right(client, IMAGES[:1])
  (line,) = caplog.messages
  assert line == 'event=preparations_gone count=3 reason="the server was started again"'


def test_two_servers_may_share_a_directory(server, tmp_path, caplog):
  with serve() as another:
    for each in (server, another):
      with connect(each, tmp_path) as client:
        client.prepare(1)
    tokens = {path.read_text() for path in tmp_path.glob('*.token')}
    assert len(tokens) == 2  # the two cannot tell that it is the same client
    for each in (server, another):
      with connect(each, tmp_path) as client:
        assert client.prepared == 1 and right(client, IMAGES[:1])
  assert not caplog.messages


FOREIGN = ['x.used', 'y.prepared', '.z.partial', 'notes.txt', f'{"a" * 32}-logits-{"b" * 32}.used']


def test_files_of_others_stay_and_its_own_remains_go(server, tmp_path):
  with connect(server, tmp_path) as client:
    client.prepare(1)
  (own,) = tmp_path.glob('*.prepared')
  (token,) = tmp_path.glob('*.token')
  assert stat.S_IMODE(token.stat().st_mode) == 0o600
  foreign = [
    *FOREIGN,
    f'{"0" * 16}-{own.stem[17:]}.used',
    f'{own.name}.bak',
    f'.{own.name}.partial',
  ]
  left = [f'{own.stem}.used', f'.{own.name}.0123abcd.partial']
  for name in (*foreign, *left):
    (tmp_path / name).write_text('somebody wrote this')
  (tmp_path / f'{own.stem[:-1]}x.prepared').mkdir()
  kept = {token.name, f'{own.stem[:-1]}x.prepared', *foreign}
  with connect(server, tmp_path) as client:
    assert client.prepared == 1 and set(os.listdir(tmp_path)) == {own.name, *kept}
    assert right(client, IMAGES[:1])
  assert set(os.listdir(tmp_path)) == kept
  assert all((tmp_path / name).read_text() == 'somebody wrote this' for name in foreign)


def test_a_token_that_is_none_is_a_clear_error(server, tmp_path):
  with connect(server, tmp_path):
    (token,) = tmp_path.glob('*.token')
  token.write_text('mine')
  with pytest.raises(ValueError, match='4 characters, want 32 hexadecimal digits'):
    connect(server, tmp_path)


def test_of_many_preparations_the_newest_are_claimed_and_the_others_stay(
  server, tmp_path, monkeypatch
):
  with connect(server, tmp_path) as client:
    client.prepare(3)
  oldest = min(tmp_path.glob('*.prepared'), key=lambda path: path.stat().st_mtime_ns)
  os.utime(oldest, (1, 1))
  monkeypatch.setattr(handshake, 'MAX_CLAIMS', 2)
  with connect(server, tmp_path) as client:
    assert client.prepared == 2 and len(prepared(tmp_path)) == 3
    assert right(client, IMAGES[:2])
  assert prepared(tmp_path) == [oldest.name]
  with connect(server, tmp_path) as client:
    assert client.prepared == 1


class Disk:
  """A disk that forgets, when power fails, the renamings that nobody forced."""

  def __init__(self, monkeypatch):
    self.loose = []
    self._rename, self._fsync = os.rename, os.fsync
    monkeypatch.setattr(os, 'rename', self.rename)
    monkeypatch.setattr(os, 'fsync', self.fsync)

  def rename(self, source, target):
    self.loose.append((pathlib.Path(source), pathlib.Path(source).read_bytes()))
    self._rename(source, target)

  def fsync(self, descriptor):
    self._fsync(descriptor)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
      self.loose.clear()

  def lose_power(self):
    for source, content in self.loose:
      source.write_bytes(content)


@pytest.mark.parametrize('forced', [True, False])
def test_the_mark_is_on_the_disk_before_anything_is_sent(
  server, tmp_path, journal, monkeypatch, forced
):
  """Power fails as the masked input is sent; and the server, too, forgot that it was."""
  if not forced:
    monkeypatch.setattr(preparation_files.atomic_files, 'force_renames', lambda directory: None)
  grant_all(monkeypatch)
  client = connect(server, tmp_path / 'prepared')
  client.prepare(1)
  disk, send = Disk(monkeypatch), Channel.send

  def crash(channel, tag, *values):
    if (channel.party, tag) == ('client', 'input'):
      raise KeyboardInterrupt
    send(channel, tag, *values)

  monkeypatch.setattr(Channel, 'send', crash)
  with pytest.raises(KeyboardInterrupt):
    client.infer(IMAGES[:1])
  disk.lose_power()
  monkeypatch.setattr(Channel, 'send', send)
  with connect(server, tmp_path / 'prepared') as client:
    assert client.prepared == (0 if forced else 1)
    if not forced:
      with pytest.raises(ProtocolError, match='it was used'):
        client.infer(IMAGES[1:2])
  assert journal.repeated() == (set() if forced else TWICE)


def test_a_refused_command_uses_up_all_that_it_names_and_nothing_of_others(server):
  with connect(server) as one, connect(server) as other:
    one.prepare(2)
    other.prepare(1)
    own = [material.identifier for material in one._store.take(2)]
    (foreign,) = other._store._names
    names = [own[0], foreign, own[1]]
    commands.send(one._channel, commands.Command(commands.INFER, 3, names))
    with pytest.raises(ProtocolError, match=f'refused: no preparation {foreign.hex()}'):
      one._channel.receive('anything')
    assert server.prepared == 1
    assert right(other, IMAGES[:1])


def test_a_command_for_an_output_that_is_not_served_uses_up_what_it_names():
  with serve(options=servers.ServerOptions(outputs=('logits',))) as server:
    with connect(server) as client:
      client.prepare(1)
      (own,) = client._store.take(1)
      command = commands.Command(commands.INFER, 1, [own.identifier], 'class')
      commands.send(client._channel, command)
      with pytest.raises(ProtocolError, match='refused: output class'):
        client._channel.receive('anything')
    assert not server.prepared

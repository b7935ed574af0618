"""What strangers may take of a server, and what is left for others then."""

import dataclasses
import logging
import socket
import threading
import time

import numpy as np
import pytest

from safenet_jax.protocol.delphi import server_offline
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import commands, handshake, sessions
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service.policy import Policy
from safenet_jax.transport import accounts, tls
from safenet_jax.transport.accounts import DeniedError
from safenet_jax.transport.channel import Channel, RefusedError
from safenet_jax.transport.frames import ProtocolError
from tests.support import certificates, models

MODEL = models.model()
IMAGE = np.zeros((1, *MODEL.public.input_shape), np.uint8)
MODE = sessions.MODES[sessions.DEFAULT]
SIZE = MODE.server_material.size(MODE.structure(MODEL.public), 'logits')
ME, STRANGER = '127.0.0.1', '127.0.0.2'


def serve(policy=None, book=None, context=None, on_record=None, **options):
  chosen = servers.ServerOptions(
    **{'place_seconds': 10.0, 'first_command_seconds': 300.0} | options
  )
  return servers.Server(
    MODEL, context=context, options=chosen, policy=policy, accounts=book, on_record=on_record
  )


def connect(server, **options):
  return clients.Client(*server.address, **{'context': None} | options)


def stranger(server, greet=True):
  """A channel from another address, with the first messages or without them."""
  sock = socket.create_connection(server.address, 5, source_address=(STRANGER, 0))
  channel = Channel(sock, party='client', timeout=10)
  if greet:
    handshake.client(channel)
  return channel


def until(condition):
  end = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)


def predicts(server, **options):
  with connect(server, **options) as client:
    return client.infer(IMAGE).shape == (1, 3)


def end_of(channel):
  """Why the server ends a session."""
  with channel, pytest.raises(ProtocolError) as caught:
    channel.receive('anything')
  return str(caught.value)


@pytest.fixture
def impatient(monkeypatch):
  """Sessions between two commands count as idle at once."""
  monkeypatch.setattr(accounts, '_GRACE_SECONDS', 0.0)


def test_idle_sessions_make_room(impatient):
  with serve(sessions=3, address_sessions=3) as server:
    idle = [stranger(server) for _ in range(3)]
    until(lambda: server._listener.running == 3)
    with connect(server) as client:
      assert client.infer(IMAGE).shape == (1, 3)
      assert 'the server refused: idle for' in end_of(idle[0])
    for channel in idle[1:]:
      channel.close()


def test_sessions_before_their_first_message_make_room_too(impatient):
  with serve(sessions=2) as server:
    silent = [stranger(server, greet=False) for _ in range(2)]
    until(lambda: server._listener.running == 2)
    assert predicts(server)
    for channel in silent:
      channel.close()


def test_one_address_leaves_places_to_others():
  with serve(sessions=4, place_seconds=0.0) as server:
    taken = [stranger(server) for _ in range(2)]
    beyond = stranger(server, greet=False)
    assert end_of(beyond).endswith('busy with 2 sessions of this client, try again later')
    assert predicts(server)
    for channel in taken:
      channel.close()


def test_a_client_that_asks_for_nothing_is_sent_away():
  with serve(first_command_seconds=0.2) as server:
    for greet in (True, False):
      with (
        pytest.raises(RefusedError, match='^the server refused: no command in 0.2 s$'),
        stranger(server, greet) as channel,
      ):
        channel.receive('anything')


def test_who_has_preparations_may_wait(tmp_path):
  with serve() as server:
    with connect(server, directory=tmp_path) as maker:
      maker.prepare(1)
    server._options = dataclasses.replace(server._options, first_command_seconds=0.1)
    with connect(server, directory=tmp_path) as user:
      time.sleep(0.3)
      assert user.infer(IMAGE).shape == (1, 3)


def test_a_client_that_stalls_in_the_key_exchange_stalls_nobody_else():
  """The keys of a session are made in messages: no lock of all sessions may be held then."""
  with serve() as server:
    stalled = stranger(server)
    commands.send(stalled, commands.Command(commands.PREPARE, 1))
    mine = accounts.Visitor(STRANGER)
    until(lambda: server._accounts.counts(mine).bytes)  # the command was taken
    time.sleep(0.1)
    assert predicts(server, timeout=10.0)
    stalled.close()


def test_preparations_of_a_client_that_left_make_room():
  with serve(sessions=2, memory_bytes=10 * SIZE) as server:
    with connect(server) as client:
      client.prepare(10)
    until(lambda: not server._listener.running)
    with connect(server) as client:
      client.prepare(8)
      assert client.infer(IMAGE).shape == (1, 3)
      assert server.prepared <= 10
  assert server._accounts.counts(accounts.Visitor(ME)).bytes <= 10 * SIZE


def test_preparations_of_a_client_that_is_here_stay():
  with serve(sessions=2, memory_bytes=2 * SIZE) as server, connect(server) as client:
    client.prepare(2)
    with connect(server) as other, pytest.raises(RefusedError, match='use some first'):
      other.prepare(1)
    assert client.infer(IMAGE).shape == (1, 3)
    assert predicts(server)  # there is room for one again


def test_what_an_inference_uses_stays_reserved_until_its_end():
  with serve(memory_bytes=4 * SIZE, sessions=8, address_sessions=4) as server:
    me = accounts.Visitor(ME)
    with connect(server) as client:
      client.prepare(2)
      names = [material.identifier for material in client._store.take(2)]
      # The masked input does not come.
      commands.send(client._channel, commands.Command(commands.INFER, 2, names))
      until(lambda: not server.prepared)
      assert server._accounts.counts(me).bytes == 2 * SIZE
      with connect(server) as other, pytest.raises(RefusedError, match='use some first'):
        other.prepare(1)
      client._channel.abort('enough')
    until(lambda: not server._accounts.counts(me).bytes)
    assert predicts(server)


def test_preparations_under_a_certificate_stay(tmp_path):
  authority = certificates.Authority(tmp_path)
  context = tls.server_context(*authority.issue(), client_ca=authority.file)
  one, other = (tls.client_context(authority.file, *authority.issue()) for _ in range(2))
  with serve(sessions=2, memory_bytes=2 * SIZE, context=context) as server:
    with connect(server, context=one, directory=tmp_path / 'one') as client:
      client.prepare(2)
    until(lambda: not server._listener.running)
    with connect(server, context=other) as client, pytest.raises(RefusedError, match='limit'):
      client.prepare(1)
    with connect(server, context=one, directory=tmp_path / 'one') as client:
      assert client.prepared == 2 and client.infer(IMAGE).shape == (1, 3)


def test_what_is_refused_costs_no_work(monkeypatch):
  def garble(*unused):
    raise AssertionError('garbled')

  monkeypatch.setattr(server_offline.ServerOffline, 'prepare', garble)
  with serve(memory_bytes=3 * SIZE, sessions=1) as server:
    for _ in range(3):
      with connect(server) as client, pytest.raises(RefusedError, match='use some first'):
        client.prepare(4)
    until(lambda: not server._listener.running)
    assert server._accounts.counts(accounts.Visitor(ME)) == accounts.Counts()


def test_a_client_that_leaves_gives_back_what_was_not_made():
  with serve() as server:
    channel = stranger(server)
    commands.send(channel, commands.Command(commands.PREPARE, 5))
    until(lambda: server._accounts.counts(accounts.Visitor(STRANGER)).bytes)
    channel.close()
    until(lambda: server._accounts.counts(accounts.Visitor(STRANGER)) == accounts.Counts())


def test_sessions_without_a_request_leave_no_record():
  """Else anybody could fill a disk with the ledgers of failed handshakes."""
  records = []
  with serve(on_record=records.append) as server:
    stranger(server).close()
    with stranger(server, greet=False) as channel:
      channel.send('nonsense')
    with stranger(server) as channel:
      commands.send(channel, commands.Command(commands.GOODBYE))
    assert predicts(server)
  assert len(records) == 1 and 'online' in records[0]['phases']


def test_predictions_are_limited_by_the_day():
  clock = [86400.0 * 20000]
  book = accounts.Accounts(accounts.limits(), now=lambda: clock[0])
  with serve(Policy(predictions_per_day=2), book) as server:
    assert predicts(server) and predicts(server)
    for command in (lambda client: client.infer(IMAGE), lambda client: client.prepare(1)):
      with connect(server) as client, pytest.raises(RefusedError) as caught:
        command(client)
      line = 'the server refused: 2 predictions today and 1 more, 2 a day is the limit'
      assert str(caught.value) == line
    # Others have a limit of their own, and so has the next day.
    with stranger(server) as other:
      commands.send(other, commands.Command(commands.INFER, 1, [bytes(16)]))
      assert 'no preparation 0000' in end_of(other)
    clock[0] += 86400.0
    assert predicts(server)


def test_predictions_that_are_refused_or_unknown_do_not_count():
  with serve(Policy(predictions_per_day=3)) as server:
    for _ in range(5):
      with stranger(server) as channel:
        commands.send(channel, commands.Command(commands.INFER, 1, [bytes(16)]))
        assert 'no preparation 0000' in end_of(channel)
    assert not server._accounts.counts(accounts.Visitor(STRANGER)).predictions


def test_a_negative_limit_is_refused():
  with pytest.raises(ValueError, match='-1 predictions per day, want at least 0'):
    Policy(-1)


class Noted(Policy):
  """Writes down what it is asked; fails or refuses at one of the questions."""

  def __init__(self, place=None, error=None):
    super().__init__()
    self.asked, self._place, self._error = [], place, error

  def _note(self, name, visitor, counts, *rest):
    self.asked.append((name, visitor.address, counts, *rest))
    if name == self._place and visitor.address == ME:
      raise self._error

  def connect(self, visitor, counts):
    self._note('connect', visitor, counts)

  def prepare(self, visitor, counts, count, size):
    self._note('prepare', visitor, counts, count, size)

  def infer(self, visitor, counts, count):
    self._note('infer', visitor, counts, count)


def test_a_policy_is_told_who_asks_for_what_and_has_what():
  policy = Noted()
  with serve(policy) as server:
    with connect(server) as client:
      client.prepare(2)
      client.infer(np.repeat(IMAGE, 2, axis=0))
    size = policy.asked[1][-1]
    assert policy.asked == [
      ('connect', ME, accounts.Counts(sessions=1)),
      ('prepare', ME, accounts.Counts(sessions=1), 2, size),
      ('infer', ME, accounts.Counts(sessions=1, bytes=size), 2),
    ]
    assert size == 2 * SIZE
    until(lambda: not server._listener.running)
    assert server._accounts.counts(accounts.Visitor(ME)) == accounts.Counts(predictions=2)


@pytest.mark.parametrize('place', ['connect', 'prepare', 'infer'])
def test_a_policy_refuses_in_its_own_words(place):
  with serve(Noted(place, DeniedError('not on a Sunday'))) as server:
    with pytest.raises(RefusedError, match='^the server refused: not on a Sunday$'):
      predicts(server)
    stranger(server).close()


@pytest.mark.parametrize('place', ['connect', 'prepare', 'infer'])
def test_an_error_of_a_policy_ends_its_request_only(place, caplog):
  caplog.set_level(logging.INFO)
  with serve(Noted(place, ZeroDivisionError('secret'))) as server:
    with stranger(server) as other:
      # What the error says is for the operator alone.
      with pytest.raises(RefusedError, match='refused: an error of its own, which is in its log$'):
        predicts(server)
      commands.send(other, commands.Command(commands.INFER, 1, [bytes(16)]))
      assert 'no preparation' in end_of(other)
    until(lambda: not server._listener.running)
    assert not server._accounts.counts(accounts.Visitor(ME)).predictions
  (record,) = [r for r in caplog.records if r.getMessage() == f'event=policy_error method={place}']
  assert record.exc_info[0] is ZeroDivisionError


def test_two_sessions_at_once_do_not_pass_a_limit_together():
  """The second one is asked about while the first one still computes."""
  meeting = threading.Barrier(2, timeout=20)

  class Slow(Policy):
    def infer(self, visitor, counts, count):
      meeting.wait()
      super().infer(visitor, counts, count)

  with serve(Slow(predictions_per_day=1)) as server:
    ends = []

    def ask():
      try:
        ends.append(predicts(server))
      except ProtocolError as error:
        ends.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert sorted(map(str, ends)) == [
    'True',
    'the server refused: 1 predictions today and 1 more, 1 a day is the limit',
  ]

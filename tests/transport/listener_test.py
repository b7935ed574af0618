"""A server's sessions: their limits, their logs, their end."""

import logging
import socket
import struct
import threading
import time

import numpy as np
import pytest

from safenet_jax.protocol.service import description, handshake
from safenet_jax.transport import accounts, tls
from safenet_jax.transport import channel as channels
from safenet_jax.transport import listener as listeners
from safenet_jax.transport.channel import RefusedError
from safenet_jax.transport.frames import ProtocolError
from tests.support import servers


def test_a_stalled_session_ends_within_its_timeout(files, caplog):
  caplog.set_level(logging.INFO)
  with (
    servers.listening(files, timeout=1.5) as server,
    servers.connect(server, files) as client,
    pytest.raises(ProtocolError, match='closed|gone'),
  ):
    # On a busy machine the handshake is what takes too long, and the end is the same.
    handshake.client(client)
    client.receive('doubled', [('int64', ())])
  assert 'error="timeout: the peer sends nothing"' in servers.lines(caplog, 'session_failed')[0]


def test_a_session_has_an_end_even_if_every_message_comes_in_time(files, caplog):
  caplog.set_level(logging.INFO)
  with (
    servers.listening(files, session_seconds=0.5) as server,
    servers.connect(server, files) as client,
    pytest.raises(ProtocolError),
  ):
    handshake.client(client)
    while True:
      servers.double(client, 1)
  assert 'the session took longer than 0.5 s' in servers.lines(caplog, 'session_failed')[0]


def test_an_error_of_the_server_itself_ends_one_session(files, caplog):
  def broken(channel, guest):
    (number,) = channel.receive('number', [('int64', ())])
    channel.send('doubled', np.int64(84 // int(number)))

  with servers.listening(files, broken) as server:
    with servers.connect(server, files) as client, pytest.raises(ProtocolError):
      servers.double(client, 0)
    with servers.connect(server, files) as client:
      assert servers.double(client, 42) == 2
  assert any('ZeroDivisionError' in line for line in servers.lines(caplog, 'session_error'))
  assert any(record.exc_info for record in caplog.records)


def test_one_client_too_many_is_told_so(files, caplog):
  with servers.listening(files, limits={'sessions': 2}) as server:
    first, second = servers.connect(server, files), servers.connect(server, files)
    for client in (first, second):
      handshake.client(client)
    assert server.running == 2
    with (
      servers.connect(server, files) as third,
      pytest.raises(
        RefusedError, match='the server refused: busy with 2 sessions, try again later'
      ),
    ):
      handshake.client(third)
    assert servers.double(first, 3) == 6
    first.send('number', np.int64(-1))
    servers.until(lambda: server.running == 1)
    assert servers.inference(server, files) == 42
    first.close()
    second.close()


def test_slow_tls_handshakes_block_nobody(files):
  with servers.listening(files, limits={'sessions': 1}) as server:
    slow = [socket.create_connection(server.address, 300) for _ in range(20)]
    start = time.monotonic()
    assert servers.inference(server, files) == 42
    assert time.monotonic() - start < 200  # less than any of them is waited for
    for sock in slow:
      sock.close()


def silent(server, count, address='127.0.0.2'):
  return [
    socket.create_connection(server.address, 300, source_address=(address, 0)) for _ in range(count)
  ]


@pytest.mark.parametrize('address', ['127.0.0.2', '127.0.0.1'])
def test_silent_connections_make_room(files, address):
  """From another address, and from the client's own."""
  with servers.listening(files) as server:
    slow = silent(server, 100, address)
    servers.until(lambda: len(server._waiting) == 32)
    assert servers.inference(server, files) == 42
    for sock in slow:
      sock.close()
    servers.until(lambda: not server._waiting)
    assert servers.inference(server, files) == 42


def test_a_handshake_goes_on_while_another_address_opens_connections(files):
  """The oldest connection of who has most goes, and that is not the only one of a client."""
  with servers.listening(files, handshake_timeout=30) as server:
    with socket.create_connection(server.address, 5) as sock:
      servers.until(lambda: len(server._waiting) == 1)
      slow = silent(server, 100) + silent(server, 100, '127.0.0.3')
      servers.until(lambda: len(server._waiting) == 64)
      context = tls.client_context(files.certificate)
      with context.wrap_socket(sock, server_hostname='127.0.0.1') as secure:
        assert secure.version() == 'TLSv1.3'
    for each in slow:
      each.close()


def test_a_client_waits_for_a_place(files):
  with servers.listening(files, limits={'sessions': 1}, place_seconds=30, timeout=30) as server:
    first = servers.connect(server, files)
    handshake.client(first)
    found = []
    second = threading.Thread(target=lambda: found.append(servers.inference(server, files)))
    second.start()
    servers.until(lambda: server._waiting)
    assert servers.double(first, 3) == 6
    first.send('number', np.int64(-1))
    second.join(20)
    assert found == [42]
    first.close()


def test_who_waits_for_a_place_is_told_when_the_server_closes(files):
  server = servers.listening(files, limits={'sessions': 1}, place_seconds=30, timeout=30)
  with server, servers.connect(server, files) as first, servers.connect(server, files) as second:
    handshake.client(first)
    servers.until(lambda: server._waiting)
    closing = threading.Thread(target=server.close, args=(0.5,))
    closing.start()
    with pytest.raises(ProtocolError):
      handshake.client(second)
    closing.join(20)
    assert not closing.is_alive()


def test_a_session_that_is_given_up_is_told_why(files):
  book = accounts.Accounts(accounts.limits())
  tickets = []

  def idle(channel, guest):
    tickets.append(guest.ticket)
    try:
      channel.receive('anything')
    except ProtocolError as error:
      channel.refuse(str(error))

  with listeners.Listener(
    '127.0.0.1', 0, idle, context=tls.server_context(*files), accounts=book
  ) as server:
    with servers.connect(server, files) as client:
      servers.until(lambda: tickets)
      server._give_up(tickets[0], 'its place was needed')
      with pytest.raises(RefusedError, match='^the server refused: its place was needed$'):
        client.receive('anything')
    servers.until(lambda: not server.running)
    assert book.counts(accounts.Visitor('127.0.0.1')) == accounts.Counts()


def test_a_connection_that_is_closed_before_its_handshake_is_one_line(files):
  with socket.create_server(('127.0.0.1', 0)) as busy:
    port = busy.getsockname()[1]

    def drop():
      for linger in (0, 1):  # an end of the stream, and a reset
        sock, _ = busy.accept()
        sock.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', linger, 0))
        sock.close()

    thread = threading.Thread(target=drop)
    thread.start()
    for _ in range(2):
      with pytest.raises(ProtocolError) as caught:
        channels.connect('127.0.0.1', port, context=tls.client_context(files.certificate))
      assert str(caught.value) == (
        f'127.0.0.1:{port}: the server closed the connection before the TLS handshake: '
        'it may be busy'
      )
    thread.join()


def test_sessions_run_at_the_same_time(files):
  barrier = threading.Barrier(3)

  def meet(channel, guest):
    barrier.wait(300)
    channel.send('doubled', np.int64(1))

  with servers.listening(files, meet) as server:
    clients = [servers.connect(server, files) for _ in range(3)]
    for client in clients:
      client.receive('doubled', [('int64', ())])
      client.close()


def test_close_lets_sessions_finish(files):
  server = servers.listening(files)
  with servers.connect(server, files) as client:
    handshake.client(client)
    closing = threading.Thread(target=server.close, args=(300.0,))
    closing.start()
    with pytest.raises(ProtocolError):
      servers.until(lambda: servers.inference(server, files) != 42)
    assert servers.double(client, 5) == 10
    client.send('number', np.int64(-1))
    closing.join(300)
    assert not closing.is_alive()
  assert server.close() is True


def test_close_ends_sessions_that_take_too_long(files, caplog):
  server = servers.listening(files)
  with servers.connect(server, files) as client:
    handshake.client(client)
    start = time.monotonic()
    assert server.close(drain_seconds=0.3) is False
    assert time.monotonic() - start < 200  # the client's timeout is longer
    with pytest.raises(ProtocolError):
      servers.double(client, 5)
  assert 'the server is shutting down' in servers.lines(caplog, 'session_failed')[0]


def test_close_does_not_wait_for_handshakes_that_never_come(files):
  server = servers.listening(files)
  with socket.create_connection(server.address):
    servers.until(lambda: server._waiting)
    start = time.monotonic()
    assert server.close() is True
    assert time.monotonic() - start < 200  # the handshake's timeout is longer


def test_close_ends_a_handshake_that_begins_meanwhile(files, monkeypatch):
  server = servers.listening(files)
  wrap = server._context.wrap_socket

  def wrapped_late(*args, **options):
    found = wrap(*args, **options)
    servers.until(lambda: server._socket.fileno() < 0)
    time.sleep(0.2)  # until `close` has shut down the socket that was there before
    return found

  monkeypatch.setattr(server._context, 'wrap_socket', wrapped_late)
  with socket.create_connection(server.address):
    servers.until(lambda: server._waiting)
    assert server.close() is True


def test_a_closed_server_leaves_no_thread_and_no_port(files):
  before = threading.active_count()
  with servers.listening(files) as server:
    assert servers.inference(server, files) == 42
  servers.until(lambda: threading.active_count() == before)
  with socket.create_server(server.address):
    pass


def test_what_a_peer_says_cannot_forge_a_line_of_the_log(files, caplog):
  with servers.listening(files) as server, servers.connect(server, files) as client:
    client.send('x" event=session_start peer=10.0.0.1\nevent=fake', b'')
    servers.until(lambda: servers.lines(caplog, 'session_failed'))
  (line,) = servers.lines(caplog, 'session_failed')
  assert '\n' not in line and r'\" event=' in line


def test_sessions_are_logged_with_their_costs(files, caplog):
  caplog.set_level(logging.INFO)
  with servers.listening(files) as server:
    assert servers.inference(server, files) == 42
  (line,) = servers.lines(caplog, 'session_end')
  fields = dict(field.split('=', 1) for field in line.split(' '))
  assert fields.keys() == {'event', 'peer', 'seconds', 'bytes', 'cpu_seconds'}
  assert int(fields['bytes']) > len(description.encode(servers.SERVED))


def test_ipv6_is_served(files):
  try:
    server = listeners.Listener('::1', 0, servers.session, context=tls.server_context(*files))
  except OSError:
    server = None  # a machine without it
  if server is not None:
    with server:
      assert servers.inference(server, files) == 42


def test_no_sessions_at_all_is_refused(files):
  with pytest.raises(ValueError, match='0 sessions, want at least 1'):
    servers.listening(files, limits={'sessions': 0})

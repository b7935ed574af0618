"""A server outlives whatever its clients do."""

import logging
import socket
import struct
import threading
import time

import numpy as np
import pytest

from safenet_jax.crypto import randomness
from safenet_jax.protocol import channel as channels
from safenet_jax.protocol import description as descriptions
from safenet_jax.protocol import handshake
from safenet_jax.protocol import listener as listeners
from safenet_jax.protocol import tls
from safenet_jax.protocol.channel import RefusedError
from safenet_jax.protocol.frames import ProtocolError
from tests.protocol import models

SERVED = descriptions.describe(models.model(), randomness.InsecureSeededRandomness(0))


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  return tls.insecure_test_certificate(tmp_path_factory.mktemp('tls'))


def session(channel):
  """A handshake, and doubled numbers until the client says goodbye."""
  handshake.server(channel, SERVED)
  while True:
    (number,) = channel.receive('number', [('int64', ())])
    if number < 0:
      return
    channel.send('doubled', 2 * number)


def listening(files, serve_session=session, **options):
  options = {'timeout': 0.5, 'handshake_timeout': 0.5} | options
  return listeners.Listener(
      '127.0.0.1', 0, serve_session, context=tls.server_context(*files), **options
  )


def connect(server, files, **options):
  return channels.connect(
      *server.address, context=tls.client_context(files.certificate), timeout=5, **options
  )


def double(channel, number):
  channel.send('number', np.int64(number))
  return int(channel.receive('doubled', [('int64', ())])[0])


def inference(server, files):
  """An honest client from its connection to its goodbye."""
  with connect(server, files) as channel:
    assert handshake.client(channel) == SERVED
    result = double(channel, 21)
    channel.send('number', np.int64(-1))
    return result


def lines(caplog, event):
  return [r.getMessage() for r in caplog.records if f'event={event} ' in r.getMessage() + ' ']


def until(condition):
  """Waits for what happens in another thread."""
  end = time.monotonic() + 5
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)


def tls_socket(server, files):
  sock = socket.create_connection(server.address, 5)
  return tls.client_context(files.certificate).wrap_socket(sock, server_hostname='127.0.0.1')


def vanish(sock):
  sock.close()


def reset(sock):
  sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
  sock.close()


def garbage(sock):
  sock.sendall(bytes(range(256)) * 100)


def lie_about_a_size(sock):
  sock.sendall(struct.pack('!4sHHQ', b'SNjx', 1, 10, 1 << 63) + bytes(10))


def cut_a_frame(sock):
  sock.sendall(struct.pack('!4sHHQ', b'SNjx', 1, 100, 4) + bytes(50))


def stall(sock):
  del sock


def say_http(sock):
  sock.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')


BAD = [vanish, reset, garbage, lie_about_a_size, cut_a_frame, stall, say_http]


@pytest.mark.parametrize('behave', BAD)
@pytest.mark.parametrize('secure', [True, False])
def test_a_bad_client_ends_its_own_session_only(files, caplog, behave, secure):
  """With a TLS handshake before it behaves badly, and without one."""
  caplog.set_level(logging.INFO)
  with listening(files) as server:
    good = connect(server, files)
    handshake.client(good)
    bad = tls_socket(server, files) if secure else socket.create_connection(server.address, 5)
    behave(bad)
    # A session that was open before goes on.
    until(lambda: double(good, 4) == 8 and lines(caplog, 'session_failed'))
    good.send('number', np.int64(-1))
    good.flush()
    assert inference(server, files) == 42
    bad.close()
    good.close()
  (line,) = lines(caplog, 'session_failed')
  assert 'peer=127.0.0.1:' in line and 'error=' in line and '\n' not in line
  assert not lines(caplog, 'session_error')


def test_a_stalled_session_ends_within_its_timeout(files, caplog):
  caplog.set_level(logging.INFO)
  with listening(files) as server, connect(server, files) as client:
    handshake.client(client)
    start = time.monotonic()
    with pytest.raises(ProtocolError, match='closed'):
      client.receive('doubled', [('int64', ())])
    assert 0.4 < time.monotonic() - start < 2
  assert 'error="timeout: the peer sends nothing"' in lines(caplog, 'session_failed')[0]


def test_a_session_has_an_end_even_if_every_message_comes_in_time(files, caplog):
  caplog.set_level(logging.INFO)
  with listening(files, session_seconds=0.5) as server, connect(server, files) as client:
    handshake.client(client)
    start = time.monotonic()
    with pytest.raises(ProtocolError):
      while True:
        double(client, 1)
    assert time.monotonic() - start < 2
    assert inference(server, files) == 42
  assert 'the session took longer than 0.5 s' in lines(caplog, 'session_failed')[0]


def test_an_error_of_the_server_itself_ends_one_session(files, caplog):
  def broken(channel):
    (number,) = channel.receive('number', [('int64', ())])
    channel.send('doubled', np.int64(84 // int(number)))

  with listening(files, broken) as server:
    with connect(server, files) as client, pytest.raises(ProtocolError):
      double(client, 0)
    with connect(server, files) as client:
      assert double(client, 42) == 2
  assert any('ZeroDivisionError' in line for line in lines(caplog, 'session_error'))
  assert any(record.exc_info for record in caplog.records)


def test_one_client_too_many_is_told_so(files, caplog):
  with listening(files, sessions=2, timeout=5) as server:
    first, second = connect(server, files), connect(server, files)
    for client in (first, second):
      handshake.client(client)
    assert server.running == 2
    with connect(server, files) as third, pytest.raises(
        RefusedError, match='the server refused: busy with 2 sessions, try again later'
    ):
      handshake.client(third)
    assert double(first, 3) == 6
    first.send('number', np.int64(-1))
    until(lambda: server.running == 1)
    assert inference(server, files) == 42
    first.close()
    second.close()


def test_slow_tls_handshakes_block_nobody(files):
  with listening(files, sessions=1, handshake_timeout=3) as server:
    slow = [socket.create_connection(server.address, 5) for _ in range(20)]
    start = time.monotonic()
    assert inference(server, files) == 42
    assert time.monotonic() - start < 2
    for sock in slow:
      sock.close()


def test_too_many_waiting_connections_are_dropped(files, caplog):
  with listening(files, handshake_timeout=3) as server:
    slow = [socket.create_connection(server.address, 5) for _ in range(64)]
    until(lambda: len(server._waiting) == 64)
    with pytest.raises(ProtocolError):
      inference(server, files)
    for sock in slow:
      sock.close()
    until(lambda: not server._waiting)
    assert inference(server, files) == 42
  assert lines(caplog, 'dropped')


def test_sessions_run_at_the_same_time(files):
  barrier = threading.Barrier(3)

  def meet(channel):
    barrier.wait(5)
    channel.send('doubled', np.int64(1))

  with listening(files, meet) as server:
    clients = [connect(server, files) for _ in range(3)]
    for client in clients:
      client.receive('doubled', [('int64', ())])
      client.close()


def test_close_lets_sessions_finish(files):
  server = listening(files, timeout=5)
  with connect(server, files) as client:
    handshake.client(client)
    closing = threading.Thread(target=server.close)
    closing.start()
    with pytest.raises(ProtocolError):
      until(lambda: inference(server, files) != 42)
    assert double(client, 5) == 10
    client.send('number', np.int64(-1))
    closing.join(5)
    assert not closing.is_alive()
  assert server.close() is True


def test_close_ends_sessions_that_take_too_long(files, caplog):
  server = listening(files, timeout=30)
  with connect(server, files) as client:
    handshake.client(client)
    start = time.monotonic()
    assert server.close(drain_seconds=0.3) is False
    assert time.monotonic() - start < 2
    with pytest.raises(ProtocolError):
      double(client, 5)
  assert 'the server is shutting down' in lines(caplog, 'session_failed')[0]


def test_close_does_not_wait_for_handshakes_that_never_come(files):
  server = listening(files, handshake_timeout=30)
  with socket.create_connection(server.address):
    until(lambda: server._waiting)
    start = time.monotonic()
    assert server.close() is True
    assert time.monotonic() - start < 2


def test_a_closed_server_leaves_no_thread_and_no_port(files):
  before = threading.active_count()
  with listening(files) as server:
    assert inference(server, files) == 42
  assert threading.active_count() == before
  with socket.create_server(server.address):
    pass


def test_what_a_peer_says_cannot_forge_a_line_of_the_log(files, caplog):
  with listening(files) as server, connect(server, files) as client:
    client.send('x" event=session_start peer=10.0.0.1\nevent=fake', b'')
    until(lambda: lines(caplog, 'session_failed'))
  (line,) = lines(caplog, 'session_failed')
  assert '\n' not in line and r'\" event=' in line


def test_sessions_are_logged_with_their_costs(files, caplog):
  caplog.set_level(logging.INFO)
  with listening(files) as server:
    assert inference(server, files) == 42
  (line,) = lines(caplog, 'session_end')
  fields = dict(field.split('=', 1) for field in line.split(' '))
  assert fields.keys() == {'event', 'peer', 'seconds', 'bytes', 'cpu_seconds'}
  assert int(fields['bytes']) > len(descriptions.encode(SERVED))


def test_ipv6_is_served(files):
  try:
    server = listeners.Listener('::1', 0, session, context=tls.server_context(*files))
  except OSError:
    server = None  # a machine without it
  if server is not None:
    with server:
      assert inference(server, files) == 42


def test_no_sessions_at_all_is_refused(files):
  with pytest.raises(ValueError, match='0 sessions, want at least 1'):
    listening(files, sessions=0)



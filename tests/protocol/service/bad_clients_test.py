"""Whatever its clients do, a server goes on serving the others."""

import logging
import socket
import struct

import numpy as np
import pytest

from safenet_jax.protocol.service import handshake
from safenet_jax.transport import tls
from tests.support import servers


def tls_socket(server, files):
  sock = socket.create_connection(server.address, 300)
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
  with servers.listening(files) as server:
    good = servers.connect(server, files)
    handshake.client(good)
    servers.double(good, 4)
    # Who comes now and stalls is soon cut off, and the good client has its time all the same.
    server._timeout = server._handshake_timeout = 1.5
    bad = tls_socket(server, files) if secure else socket.create_connection(server.address, 300)
    behave(bad)
    # A session that was open before goes on.
    servers.until(lambda: servers.double(good, 4) == 8 and servers.lines(caplog, 'session_failed'))
    server._timeout = server._handshake_timeout = 300.0
    good.send('number', np.int64(-1))
    good.flush()
    assert servers.inference(server, files) == 42
    bad.close()
    good.close()
  (line,) = servers.lines(caplog, 'session_failed')
  assert 'peer=127.0.0.1:' in line and 'error=' in line and '\n' not in line
  assert not servers.lines(caplog, 'session_error')

"""Two ends of a connection in one process."""

from concurrent import futures
import contextlib
import socket
import ssl
import struct

import msgpack
import numpy as np

from safenet_jax.transport import tls
from safenet_jax.transport.channel import Channel


@contextlib.contextmanager
def sockets(files: tls.CertificateFiles | None = None):
  """A connected (client, server) pair over TCP, after the TLS handshake if there are `files`."""
  with socket.create_server(('127.0.0.1', 0)) as listening:
    client = socket.create_connection(listening.getsockname())
    server, _ = listening.accept()
  if files is not None:
    with futures.ThreadPoolExecutor(1) as pool:
      secure = pool.submit(tls.server_context(*files).wrap_socket, server, server_side=True)
      context = tls.client_context(files.certificate)
      client = context.wrap_socket(client, server_hostname='127.0.0.1')
      server = secure.result()
    assert isinstance(client, ssl.SSLSocket)
  try:
    yield client, server
  finally:
    client.close()
    server.close()


@contextlib.contextmanager
def channels(files: tls.CertificateFiles | None = None, **options):
  """A connected (client, server) pair of channels."""
  with sockets(files) as (ours, theirs):
    client = Channel(ours, party='client', **options)
    server = Channel(theirs, party='server', **options)
    try:
      yield client, server
    finally:
      client.abort('the test is over')
      server.abort('the test is over')
      client.close()
      server.close()


def both(one, other):
  """Results of two functions that run at the same time, or their errors."""
  with futures.ThreadPoolExecutor(2) as pool:
    running = [pool.submit(one), pool.submit(other)]
    return [each.exception() or each.result() for each in running]


def frame(header, payload=b'', announced=None):
  """A frame as bytes; `announced` is a length of the payload that may be a lie."""
  packed = msgpack.packb(header)
  size = len(payload) if announced is None else announced
  return struct.pack('!4sHHQ', b'SNjx', 1, len(packed), size) + packed + payload


def words(count):
  """Test data."""
  return np.random.default_rng(0).integers(0, 1 << 64, count, np.uint64)

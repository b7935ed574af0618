"""Channels on the loopback beside the bare sockets under them."""

from collections.abc import Callable, Iterator
from concurrent import futures
import socket
import ssl
import tempfile
import time

import numpy as np

from experiments import benchmarks
from experiments.benchmarks import Row
from safenet_jax.transport import channel as channels
from safenet_jax.transport import listener, tls
from safenet_jax.transport.channel import Channel

_HOST = '127.0.0.1'
_BLOCK = 4 << 20
_WORD = [('uint64', ())]


def rows() -> Iterator[Row]:
  with tempfile.TemporaryDirectory() as directory:
    files = tls.insecure_test_certificate(directory)
    secure = tls.server_context(*files), tls.client_context(files.certificate)
  for name, (server, client) in (('clear', (None, None)), ('tls', secure)):
    yield from _measure(name, server, client)


def _measure(
  name: str, server: ssl.SSLContext | None, client: ssl.SSLContext | None
) -> Iterator[Row]:
  blocks, trips = (2, 10) if benchmarks.QUICK.value else (16, 300)
  streams = {
    'one way': _talk(server, client, _send(blocks), _receive(blocks)),
    'both ways': _talk(server, client, _stream(blocks), _stream(blocks)),
    'sockets': _bare(server, client, blocks),
  }
  trip = {'trip': _talk(server, client, _ask(trips), _answer(trips))}
  size = blocks * _BLOCK / 1e9
  setting = f'{blocks} messages of 4 MiB, {name}, connection included; floor: bare sockets'
  wall = benchmarks.best(streams, repetitions=3)
  yield Row(
    'transport', f'send_{name}', setting, size / wall['one way'], 'GB/s', size / wall['sockets']
  )
  yield Row(
    'transport',
    f'exchange_{name}',
    f'the same each way at once, {name}',
    2 * size / wall['both ways'],
    'GB/s',
    size / wall['sockets'],
  )
  cpu = benchmarks.best(streams, repetitions=3, clock=time.process_time)
  yield Row(
    'transport',
    f'send_cpu_{name}',
    f'{setting}; both parties',
    cpu['one way'] / size,
    'CPU s/GB',
    cpu['sockets'] / size,
  )
  setting = f'{trips} messages of 8 bytes there and back, {name}, connection included'
  yield Row(
    'transport',
    f'round_trip_{name}',
    setting,
    1e6 * benchmarks.best(trip, repetitions=3)['trip'] / trips,
    'us',
  )


def _send(blocks: int) -> Callable[[Channel], None]:
  block = np.zeros(_BLOCK, np.uint8)

  def run(channel):
    for _ in range(blocks):
      channel.send('block', block)

  return run


def _receive(blocks: int) -> Callable[[Channel], None]:
  def run(channel):
    for _ in range(blocks):
      channel.receive('block', [('uint8', (_BLOCK,))])

  return run


def _stream(blocks: int) -> Callable[[Channel], None]:
  def run(channel):
    _send(blocks)(channel)
    _receive(blocks)(channel)

  return run


def _ask(trips: int) -> Callable[[Channel], None]:
  def run(channel):
    for i in range(trips):
      channel.send('word', np.uint64(i))
      channel.receive('word', _WORD)

  return run


def _answer(trips: int) -> Callable[[Channel], None]:
  def run(channel):
    for _ in range(trips):
      channel.send('word', *channel.receive('word', _WORD))

  return run


def _talk(server, client, ours, theirs) -> Callable[[], None]:
  """A session from its connection to the end of both parties."""

  def run() -> None:
    done: futures.Future[None] = futures.Future()

    def serve(channel, guest):
      del guest
      try:
        theirs(channel)
        channel.flush()
        done.set_result(None)
      except BaseException as error:
        done.set_exception(error)
        raise

    with (
      listener.Listener(_HOST, 0, serve, context=server) as listening,
      channels.connect(*listening.address, context=client) as channel,
    ):
      ours(channel)
      channel.flush()
      done.result(60)

  return run


def _bare(server, client, blocks: int) -> Callable[[], None]:
  """The same bytes through `sendall` and `recv_into`."""

  def receive(listening: socket.socket) -> None:
    sock, _ = listening.accept()
    if server is not None:
      sock = server.wrap_socket(sock, server_side=True)
    with sock:
      left, buffer = blocks * _BLOCK, bytearray(_BLOCK)
      while left:
        left -= sock.recv_into(buffer)

  def run() -> None:
    block = bytes(_BLOCK)
    with socket.create_server((_HOST, 0)) as listening, futures.ThreadPoolExecutor(1) as pool:
      done = pool.submit(receive, listening)
      sock = socket.create_connection(listening.getsockname())
      if client is not None:
        sock = client.wrap_socket(sock, server_hostname=_HOST)
      with sock:
        for _ in range(blocks):
          sock.sendall(block)
        done.result(60)

  return run

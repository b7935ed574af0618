"""A slow link between two parties of one machine, on which bytes really wait.

A party that connects to the link reaches the server behind it. Each direction sends
`bandwidth` bits a second, of all connections together. What was sent arrives half a round
trip (`rtt`) later, and meanwhile more can be sent. A connection takes one round trip to
open. The parties' code is the same as on a network, and so are TLS, what the operating
system buffers, and who waits for whom. The link's threads sleep and never spin.

Not emulated: lost packets, packets' headers (5 % of a real link's bytes), TCP's slow start.

The link is a process of its own. In a party's process it would be late: a party holds its
interpreter's lock while it encrypts, for much longer than a link may be late. This file is
the link's program, and imports nothing but the standard library.
"""

from collections.abc import Iterator
import contextlib
import math
import queue
import socket
import subprocess
import sys
import threading
import time
from typing import cast, IO

_HOST = '127.0.0.1'
# Bytes are passed on in pieces of this duration: a late piece delays a message by less.
_PIECE_SECONDS = 0.5e-3
_LEAST_PIECE, _MOST_PIECE = 1500, 1 << 20
# Bytes are read so long before they are sent. So a thread that wakes up late leaves no gap.
_AHEAD_SECONDS = 5e-3
# Time for the last bytes of connections that have ended, beside two round trips.
_LAST_SECONDS = 1.0


@contextlib.contextmanager
def shaped(rtt: float, bandwidth: float, address: tuple[str, int]) -> Iterator[tuple[str, int]]:
  """Starts a link, and gives the host and port at which to connect to it.

  Args:
    rtt: seconds of a round trip.
    bandwidth: bits a second, each way.
    address: host and port of the server.

  Raises:
    ValueError: a time or a rate that is not finite, or a rate of 0.
  """
  if not 0 <= rtt < math.inf or not 0 < bandwidth < math.inf:
    raise ValueError(f'a link of {rtt} s and {bandwidth} bit/s, want finite positive ones')
  arguments = [str(value) for value in (*address, rtt, bandwidth)]
  with subprocess.Popen(
    [sys.executable, '-I', __file__, *arguments],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    # The link ends when its standard input is closed, as it also is when this process is gone.
    yield _HOST, int(cast(IO[str], process.stdout).readline())


class _Line:
  """One direction of the link.

  Its state is the time at which it will have sent everything that it was given.
  """

  def __init__(self, delay: float, rate: float):
    """An idle direction.

    Args:
      delay: seconds from when bytes are sent until they arrive.
      rate: bytes a second.
    """
    self.delay, self.rate = delay, rate
    self.piece = int(min(max(rate * _PIECE_SECONDS, _LEAST_PIECE), _MOST_PIECE))
    # The most bytes under way for a connection, also if its receiver takes none.
    self.window = int(rate * (2 * delay + 2 * _AHEAD_SECONDS)) + 2 * self.piece
    self._lock, self._free = threading.Lock(), 0.0

  def send(self, size: int) -> float:
    """The time at which so many bytes will have been sent; waits while that is far off."""
    with self._lock:
      now = time.monotonic()
      self._free = sent = max(self._free, now) + size / self.rate
    time.sleep(max(0.0, sent - now - _AHEAD_SECONDS))
    return sent


class _Stream:
  """The bytes of one connection in one direction."""

  def __init__(self, source: socket.socket, sink: socket.socket, line: _Line):
    self._source, self._sink, self._line = source, sink, line
    self._pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
    self._held, self._changed = 0, threading.Condition()
    self._alive = True
    self._threads = [threading.Thread(target=run, daemon=True) for run in (self._read, self._write)]
    for thread in self._threads:
      thread.start()

  def join(self) -> None:
    for thread in self._threads:
      thread.join()

  def _read(self) -> None:
    piece = b'.'
    while piece:
      with self._changed:
        self._changed.wait_for(lambda: self._held < self._line.window)
      try:
        piece = self._source.recv(self._line.piece) if self._alive else b''
      except OSError:  # a reset; the other end sees it as the end of the stream
        piece = b''
      with self._changed:
        self._held += len(piece)
      self._pieces.put((self._line.send(len(piece)) + self._line.delay, piece))

  def _write(self) -> None:
    while True:
      due, piece = self._pieces.get()
      time.sleep(max(0.0, due - time.monotonic()))
      if not piece:
        _shut_down(self._sink, socket.SHUT_WR)
        return
      if self._alive:
        try:
          self._sink.sendall(piece)
        except OSError:  # the receiver is gone, and with it the connection
          self._alive = False
          for sock in (self._source, self._sink):
            _shut_down(sock, socket.SHUT_RDWR)
      with self._changed:
        self._held -= len(piece)
        self._changed.notify_all()


def _shut_down(sock: socket.socket, how: int) -> None:
  with contextlib.suppress(OSError):
    sock.shutdown(how)


def _connect(client: socket.socket, address: tuple[str, int], lines: list[_Line]) -> None:
  """One connection, from its opening to the end of both directions."""
  time.sleep(2 * lines[0].delay)
  with client, contextlib.suppress(OSError), socket.create_connection(address) as server:
    for sock in (client, server):
      sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    streams = [_Stream(client, server, lines[0]), _Stream(server, client, lines[1])]
    for stream in streams:
      stream.join()


def _accept(
  listening: socket.socket,
  address: tuple[str, int],
  lines: list[_Line],
  connections: list[threading.Thread],
) -> None:
  while True:
    client, _ = listening.accept()
    thread = threading.Thread(target=_connect, args=(client, address, lines), daemon=True)
    thread.start()
    connections.append(thread)


def main(host: str, port: str, rtt: str, bandwidth: str) -> None:
  """Writes its port, and serves until its standard input and then its connections end."""
  lines = [_Line(float(rtt) / 2, float(bandwidth) / 8) for _ in range(2)]
  listening = socket.create_server((_HOST, 0), backlog=128)
  connections: list[threading.Thread] = []
  arguments = listening, (host, int(port)), lines, connections
  threading.Thread(target=_accept, args=arguments, daemon=True).start()
  print(listening.getsockname()[1], flush=True)
  sys.stdin.read()
  end = time.monotonic() + 4 * lines[0].delay + _LAST_SECONDS
  for thread in connections:
    thread.join(max(0.0, end - time.monotonic()))


if __name__ == '__main__':
  main(*sys.argv[1:])

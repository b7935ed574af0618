"""Bytes over a socket with deadlines, written in one thread and read in another."""

from collections.abc import Callable
import contextlib
import select
import socket
import ssl
import threading
import time
from typing import Any

from safenet_jax.transport import frames
from safenet_jax.transport.frames import ProtocolError

# Buffers in one call: the number that POSIX guarantees (_XOPEN_IOV_MAX).
_MAX_VECTOR = 16


class LostError(ProtocolError):
  """The connection is gone. The peer may still be there, and not know it."""


class PeerTimeoutError(LostError):
  """The peer did not answer in time, or did not take in time what was sent."""


class HungUpError(LostError):
  """The peer ended the connection: it sends nothing more, and all that it sent was read.

  A system resets a connection where its program has closed it, which counts as that.
  """


class Stream:
  """Reads and writes a connected socket, TLS or not, and owns it.

  The socket never blocks. Two threads must not be in OpenSSL's calls for one connection at
  the same time. So a lock is held around each call, and no call waits inside it.
  """

  def __init__(self, sock: socket.socket):
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
      sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    self._sock = sock
    self._tls = isinstance(sock, ssl.SSLSocket)
    self._lock: Any = threading.Lock() if self._tls else contextlib.nullcontext()
    self.error: ProtocolError | None = None
    self.dismissed: ProtocolError | None = None

  def read(self, left: memoryview, deadline: float) -> None:
    """Fills a buffer with bytes from the peer."""
    while left:
      count = self._transfer(self._sock.recv_into, left, select.POLLIN, deadline)
      if not count:
        raise self.error or HungUpError('the peer closed the connection')
      left = left[count:]

  def write(self, buffers: list[memoryview], deadline: float) -> None:
    """Hands all of the buffers to the operating system, and empties the list."""
    while buffers:
      if self._tls:
        count = self._transfer(self._sock.send, buffers[0], select.POLLOUT, deadline)
      else:
        some = buffers[:_MAX_VECTOR]
        count = self._transfer(self._sock.sendmsg, some, select.POLLOUT, deadline)
      while buffers and count >= len(buffers[0]):
        count -= len(buffers.pop(0))
      if count:
        buffers[0] = buffers[0][count:]

  def kill(self, error: ProtocolError) -> None:
    """Ends the reads and writes of all threads with this error, or with an earlier one."""
    self.error = self.error or error
    shut_down(self._sock, socket.SHUT_RDWR)

  def dismiss(self, error: ProtocolError) -> None:
    """Ends the reads with this error, whatever the peer still sends. Writes go on."""
    self.dismissed = error
    shut_down(self._sock, socket.SHUT_RD)  # wakes a thread that waits

  def linger(self, seconds: float) -> None:
    """Tells the peer that no more comes, and drops what it still sends until it hangs up.

    Without this, closing a socket that has unread bytes would reset the connection. What
    was sent last would be lost.
    """
    shut_down(self._sock, socket.SHUT_WR)
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError, ProtocolError):
      while True:
        self._wait(select.POLLIN, deadline)
        if not socket.socket.recv(self._sock, 1 << 16):
          return

  def close(self) -> None:
    """Closes the socket; no other thread may be reading or writing."""
    self._sock.close()

  def _transfer(
    self, operation: Callable[[Any], int], argument: Any, event: int, deadline: float
  ) -> int:
    """One call that moves some bytes; waits until it can."""
    while True:
      if self.error is not None:
        raise self.error
      # Before the call: OpenSSL writes nothing more once it has read an end of the stream.
      if self.dismissed is not None and event == select.POLLIN:
        raise self.dismissed
      try:
        with self._lock:
          return operation(argument)
      except (BlockingIOError, InterruptedError):
        self._wait(event, deadline)
      except ssl.SSLWantReadError:
        self._wait(select.POLLIN, deadline)
      except ssl.SSLWantWriteError:
        self._wait(select.POLLOUT, deadline)
      except OSError as error:
        raise self.error or describe(error) from None

  def _wait(self, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(self._sock, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(1e3 * left):
      raise PeerTimeoutError(
        'timeout: the peer sends nothing'
        if event == select.POLLIN
        else 'timeout: the peer takes nothing'
      )


def shut_down(sock: socket.socket, how: int) -> None:
  """Shuts down a socket, which wakes the threads that wait on it; it may be gone already."""
  # The `shutdown` of SSLSocket would turn it into a plain socket, on which another thread would
  # go on without encryption.
  with contextlib.suppress(OSError):
    socket.socket.shutdown(sock, how)


def describe(error: OSError) -> ProtocolError:
  """An error of a socket or of TLS as one line."""
  if isinstance(error, ssl.SSLCertVerificationError):
    return ProtocolError(f'TLS: the certificate is not trusted: {error.verify_message}')
  if isinstance(error, ssl.SSLEOFError):  # where a peer in the clear would be a broken pipe
    return LostError('the peer closed the connection')
  if isinstance(error, ssl.SSLError):
    return ProtocolError(f'TLS: {frames.printable(error.reason or str(error))}')
  if isinstance(error, TimeoutError):
    return PeerTimeoutError('timeout: the peer does not answer')
  if isinstance(error, ConnectionResetError | BrokenPipeError):
    return HungUpError(f'the connection is gone: {error.strerror}')
  return LostError(f'the connection is gone: {error.strerror or error}')

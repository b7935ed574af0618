"""Accepts connections and runs a session for each; no session can end the server."""

from collections.abc import Callable, Iterator
import contextlib
import json
import logging
import select
import socket
import ssl
import threading
import time

from safenet_jax.transport import frames, stream
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.ledger import Ledger

_LOGGER = logging.getLogger(__name__)
# The most connections without a session: in their TLS handshake, or being told to come again.
_MAX_WAITING = 64
_LAST_SECONDS = 1.0


class Listener:
  """One thread per connection, up to a number of sessions.

  Log lines consist of key=value. What a peer sent is quoted in them, cut to a bounded length,
  and made printable.
  """

  def __init__(
    self,
    host: str,
    port: int,
    serve_session: Callable[[Channel], None],
    *,
    context: ssl.SSLContext | None,
    sessions: int = 8,
    timeout: float = 60.0,
    handshake_timeout: float = 10.0,
    session_seconds: float = 3600.0,
  ):
    """Starts to accept.

    Args:
      host, port: where to listen; port 0 takes a free one, see `address`.
      serve_session: called in a thread of its own with the channel of a client;
        the channel is closed when it returns or raises.
      context: from `tls.server_context`; None means connections without encryption.
      sessions: the most at once. A client beyond them is told so, and its connection is
        closed.
      timeout: seconds that a peer has for every message of a session.
      handshake_timeout: seconds that a client has for its TLS handshake.
      session_seconds: seconds after which a session is ended.

    Raises:
      ValueError: fewer than one session.
    """
    if sessions < 1:
      raise ValueError(f'{sessions} sessions, want at least 1')
    self._serve_session, self._context, self._sessions = serve_session, context, sessions
    self._timeout, self._handshake_timeout = timeout, handshake_timeout
    self._session_seconds = session_seconds
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    self._socket = socket.create_server((host, port), family=family, backlog=128)
    self._socket.setblocking(False)
    self.address: tuple[str, int] = self._socket.getsockname()[:2]
    self._wake, self._woken = socket.socketpair()
    self._changed = threading.Condition()
    self._waiting: dict[threading.Thread, socket.socket] = {}
    self._channels: dict[threading.Thread, Channel] = {}
    self._closing = False
    self._thread = threading.Thread(target=self._accept, name='listener', daemon=True)
    self._thread.start()
    _log(
      logging.INFO,
      'listening',
      host=self.address[0],
      port=self.address[1],
      tls=context is not None,
      sessions=sessions,
    )

  def __enter__(self) -> 'Listener':
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  @property
  def running(self) -> int:
    """How many sessions there are at this moment."""
    return len(self._channels)

  def close(self, drain_seconds: float = 10.0) -> bool:
    """Stops accepting, waits `drain_seconds` for the sessions, and ends those that take longer.

    Returns:
      Whether all sessions ended by themselves.
    """
    if self._closing:
      return self._join(drain_seconds)
    self._closing = True
    self._wake.send(b'.')
    self._thread.join()
    for sock in (self._socket, self._wake, self._woken):
      sock.close()
    with self._changed:
      for sock in self._waiting.values():
        stream.shut_down(sock, socket.SHUT_RDWR)
    drained = self._join(drain_seconds)
    with self._changed:
      for channel in self._channels.values():
        channel.abort('the server is shutting down')
    # An aborted session ends at its next message. One that computes on is left alone: its daemon
    # thread ends with the process.
    self._join(_LAST_SECONDS)
    _log(logging.INFO, 'closed', drained=drained)
    return drained

  def _join(self, seconds: float) -> bool:
    with self._changed:
      return self._changed.wait_for(lambda: not (self._waiting or self._channels), seconds)

  def _accept(self) -> None:
    poll = select.poll()
    poll.register(self._socket, select.POLLIN)
    poll.register(self._woken, select.POLLIN)
    while not self._closing:
      poll.poll()
      try:
        sock, peer = self._socket.accept()
      except BlockingIOError:
        continue
      except OSError as error:  # out of descriptors, or the client has hung up again
        _log(logging.ERROR, 'accept_failed', error=error.strerror or error)
        time.sleep(0.1)
        continue
      self._start(sock, f'{peer[0]}:{peer[1]}')

  def _start(self, sock: socket.socket, peer: str) -> None:
    thread = threading.Thread(target=self._run, args=(sock, peer), name='session', daemon=True)
    with self._changed:
      full = len(self._waiting) >= _MAX_WAITING
      if not full:
        self._waiting[thread] = sock
    try:
      if not full:
        thread.start()
        return
      reason = f'{_MAX_WAITING} connections are waiting'
    except RuntimeError as error:  # the system has no more threads
      reason = str(error)
      self._forget(thread)
    sock.close()
    _log(logging.WARNING, 'dropped', peer=peer, reason=reason)

  def _forget(self, thread: threading.Thread) -> None:
    with self._changed:
      self._waiting.pop(thread, None)
      self._channels.pop(thread, None)
      self._changed.notify_all()

  def _run(self, sock: socket.socket, peer: str) -> None:
    """A connection from its TLS handshake to its end. Errors are logged, never raised."""
    try:
      sock = self._secure(sock)
      self._admit(sock, peer)
    except ProtocolError as error:
      _log(logging.WARNING, 'session_failed', peer=peer, error=error)
    except Exception as error:
      _log(logging.ERROR, 'session_error', peer=peer, error=repr(error), trace=True)
    finally:
      sock.close()
      self._forget(threading.current_thread())

  def _secure(self, sock: socket.socket) -> socket.socket:
    if self._context is None:
      return sock
    sock.settimeout(self._handshake_timeout)
    try:
      secure = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
      with self._changed:
        self._waiting[threading.current_thread()] = secure
      try:
        secure.do_handshake()
      except BaseException:
        secure.close()
        raise
      return secure
    except OSError as error:
      raise stream.describe(error) from None

  def _admit(self, sock: socket.socket, peer: str) -> None:
    # Threads of one process share its clock; each session counts its own.
    ledger = Ledger(cpu_clock=time.thread_time)
    channel = Channel(sock, party='server', ledger=ledger, timeout=self._timeout)
    thread = threading.current_thread()
    with self._changed:
      busy = self.running >= self._sessions
      if not busy and not self._closing:
        self._channels[thread] = channel
        del self._waiting[thread]
    if thread in self._channels:
      self._session(channel, peer)
      return
    channel.refuse(
      f'busy with {self._sessions} sessions, try again later'
      if busy
      else 'the server is shutting down'
    )
    _log(logging.WARNING, 'refused', peer=peer, busy=busy)

  def _session(self, channel: Channel, peer: str) -> None:
    start = time.monotonic()
    _log(logging.INFO, 'session_start', peer=peer)
    try:
      with channel, self._limit(channel):
        self._serve_session(channel)
    finally:
      sums = channel.ledger.record()['phases'].values()
      _log(
        logging.INFO,
        'session_end',
        peer=peer,
        seconds=round(time.monotonic() - start, 3),
        bytes=sum(phase['bytes'] for phase in sums),
        cpu_seconds=round(sum(phase['cpu_seconds'] for phase in sums), 3),
      )

  @contextlib.contextmanager
  def _limit(self, channel: Channel) -> Iterator[None]:
    reason = f'the session took longer than {self._session_seconds:g} s'
    timer = threading.Timer(self._session_seconds, channel.abort, (reason,))
    timer.daemon = True
    timer.start()
    try:
      yield
    finally:
      timer.cancel()


def _log(level: int, event: str, trace: bool = False, **fields) -> None:
  line = ' '.join(f'{key}={_value(value)}' for key, value in fields.items())
  _LOGGER.log(level, '%s', f'event={event} {line}', exc_info=trace)


def _value(value) -> str:
  text = frames.printable(str(value), 400)
  return text if text and not set(text) & set(' "=\\') else json.dumps(text)

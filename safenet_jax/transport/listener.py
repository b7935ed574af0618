"""Accepts connections and runs a session for each; no session can end the server."""

from collections.abc import Callable, Iterator
import contextlib
import hashlib
import json
import logging
import select
import socket
import ssl
import threading
import time
from typing import NamedTuple

from safenet_jax.transport import accounts as visitors
from safenet_jax.transport import frames, stream
from safenet_jax.transport.accounts import Accounts, DeniedError, Visitor
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.ledger import Ledger

_LOGGER = logging.getLogger(__name__)
_LAST_SECONDS = 1.0
# How often a client that waits for a place looks whether a session has become idle enough.
_LOOK_SECONDS = 0.25


class Guest(NamedTuple):
  """Whose session it is, and the ticket that `Accounts` knows the session by."""

  visitor: Visitor
  ticket: int


class Listener:
  """One thread per connection, up to a number of sessions.

  Log lines consist of key=value. What a peer sent is quoted in them, cut to a bounded length,
  and made printable.
  """

  def __init__(
    self,
    host: str,
    port: int,
    serve_session: Callable[[Channel, Guest], None],
    *,
    context: ssl.SSLContext | None,
    accounts: Accounts | None = None,
    place_seconds: float = 3.0,
    timeout: float = 60.0,
    handshake_timeout: float = 10.0,
    session_seconds: float = 3600.0,
    shared_port: bool = False,
  ):
    """Starts to accept.

    Args:
      host, port: where to listen; port 0 takes a free one, see `address`.
      serve_session: called in a thread of its own with the channel of a client, and who
        that is; the channel is closed when it returns or raises.
      context: from `tls.server_context`; None means connections without encryption.
      accounts: says how many connections and sessions there may be, and which of them are
        given up for others; by default `accounts.limits()`. A client without a place is told so,
        and its connection is closed.
      place_seconds: for how long a client waits for a place before.
      timeout: seconds that a peer has for every message of a session.
      handshake_timeout: seconds that a client has for its TLS handshake.
      session_seconds: seconds after which a session is ended.
      shared_port: whether other processes of this user may listen at the same port too. Then
        the system gives each connection to one of them (SO_REUSEPORT).
    """
    self._serve_session, self._context = serve_session, context
    self._accounts = accounts or Accounts(visitors.limits())
    self._accounts.on_evict(self._give_up, visitors.CONNECTION, visitors.SESSION)
    self._place_seconds = place_seconds
    self._timeout, self._handshake_timeout = timeout, handshake_timeout
    self._session_seconds = session_seconds
    self._socket = socket.create_server(
      (host, port), family=family(host), backlog=128, reuse_port=shared_port
    )
    self._socket.setblocking(False)
    self.address: tuple[str, int] = self._socket.getsockname()[:2]
    self._wake, self._woken = socket.socketpair()
    self._changed = threading.Condition()
    # By ticket: connections without a session, in their TLS handshake or waiting for a place;
    # and sessions.
    self._waiting: dict[int, socket.socket] = {}
    self._channels: dict[int, Channel] = {}
    self._closing = False
    self._thread = threading.Thread(target=self._accept, name='listener', daemon=True)
    self._thread.start()
    _log(
      logging.INFO,
      'listening',
      host=self.address[0],
      port=self.address[1],
      tls=context is not None,
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
      self._start(sock, *peer[:2])

  def _start(self, sock: socket.socket, host: str, port: int) -> None:
    visitor, ticket, peer = Visitor.at(host), 0, f'{host}:{port}'
    try:
      # One lock for both, so that a ticket that is given up has its socket here.
      with self._changed:
        ticket = self._accounts.reserve(visitors.CONNECTION, visitor, idle=True)
        self._waiting[ticket] = sock
      arguments = sock, peer, visitor, ticket
      threading.Thread(target=self._run, args=arguments, name='session', daemon=True).start()
    except (DeniedError, RuntimeError) as error:  # RuntimeError: the system has no more threads
      self._forget(ticket)
      sock.close()
      _log(logging.WARNING, 'dropped', peer=peer, reason=error)

  def _forget(self, *tickets: int) -> None:
    for ticket in tickets:
      self._accounts.release(ticket)
    with self._changed:
      for ticket in tickets:
        self._waiting.pop(ticket, None)
        self._channels.pop(ticket, None)
      self._changed.notify_all()

  def _give_up(self, ticket: int, reason: str) -> None:
    """Ends a connection or a session whose place is needed."""
    with self._changed:
      sock, channel = self._waiting.pop(ticket, None), self._channels.get(ticket)
    if sock is not None:
      stream.shut_down(sock, socket.SHUT_RDWR)
    if channel is not None:
      channel.dismiss(reason)

  def _run(self, sock: socket.socket, peer: str, visitor: Visitor, ticket: int) -> None:
    """A connection from its TLS handshake to its end. Errors are logged, never raised."""
    tickets = [ticket]
    try:
      sock = self._secure(sock, ticket)
      self._admit(sock, peer, visitor._replace(identity=_identity(sock)), tickets)
    except ProtocolError as error:
      _log(logging.WARNING, 'session_failed', peer=peer, error=error)
    except Exception as error:
      _log(logging.ERROR, 'session_error', peer=peer, error=repr(error), trace=True)
    finally:
      sock.close()
      self._forget(*tickets)

  def _secure(self, sock: socket.socket, ticket: int) -> socket.socket:
    if self._context is None:
      return sock
    sock.settimeout(self._handshake_timeout)
    try:
      secure = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
      try:
        with self._changed:
          self._still_waiting(ticket)
          self._waiting[ticket] = secure
        secure.do_handshake()
      except BaseException:
        secure.close()
        raise
      return secure
    except OSError as error:
      with self._changed:
        self._still_waiting(ticket)
      raise stream.describe(error) from None

  def _still_waiting(self, ticket: int) -> None:
    # `close` may have shut down the socket that is wrapped now, which ends no handshake.
    if self._closing:
      raise ProtocolError('the server is shutting down')
    if ticket not in self._waiting:
      raise ProtocolError('its TLS handshake took so long that its place was needed')

  def _admit(self, sock: socket.socket, peer: str, visitor: Visitor, tickets: list[int]) -> None:
    """A session, if there is a place; its ticket becomes one of the tickets."""
    # Threads of one process share its clock; each session counts its own.
    ledger = Ledger(cpu_clock=time.thread_time)
    channel = Channel(sock, party='server', ledger=ledger, timeout=self._timeout)
    try:
      tickets.append(self._place(channel, visitor, tickets[0]))
    except DeniedError as error:
      channel.refuse(str(error))
      _log(logging.WARNING, 'refused', peer=peer, reason=error)
      return
    self._session(channel, Guest(visitor, tickets[-1]), peer)

  def _place(self, channel: Channel, visitor: Visitor, waiting: int) -> int:
    """The ticket of a session, as soon as there is a place."""
    deadline = time.monotonic() + self._place_seconds
    with self._changed:
      while True:
        if self._closing:
          raise DeniedError('the server is shutting down')
        if waiting not in self._waiting:
          raise DeniedError('too many connections are waiting, try again later')
        try:
          ticket = self._accounts.reserve(visitors.SESSION, visitor)
        except DeniedError:
          left = deadline - time.monotonic()
          if left <= 0:
            raise
          self._changed.wait(min(left, _LOOK_SECONDS))
          continue
        self._channels[ticket] = channel
        del self._waiting[waiting]
        break
    self._accounts.release(waiting)
    return ticket

  def _session(self, channel: Channel, guest: Guest, peer: str) -> None:
    start = time.monotonic()
    _log(logging.INFO, 'session_start', peer=peer, identity=guest.visitor.identity or 'none')
    try:
      with channel, self._limit(channel):
        self._serve_session(channel, guest)
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


def family(host: str) -> socket.AddressFamily:
  """The family of an address to listen at."""
  return socket.AF_INET6 if ':' in host else socket.AF_INET


def _identity(sock: socket.socket) -> str | None:
  certificate = sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
  return hashlib.sha256(certificate).hexdigest() if certificate else None


def _log(level: int, event: str, trace: bool = False, **fields) -> None:
  line = ' '.join(f'{key}={_value(value)}' for key, value in fields.items())
  _LOGGER.log(level, '%s', f'event={event} {line}', exc_info=trace)


def _value(value) -> str:
  text = frames.printable(str(value), 400)
  return text if text and not set(text) & set(' "=\\') else json.dumps(text)

"""A party's end of a connection: messages with deadlines, every byte counted.

Parties are blocking straight-line code. `send` hands a message to a thread, which writes
it while the party computes or receives. So two parties that send much to each other at
the same time do not wait for each other. The queue is bounded: beyond `queue_bytes` unsent
bytes `send` waits. Two parties that both wait there end with a ProtocolError after their
timeout.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import math
import socket
import ssl
import time
from typing import NamedTuple, NoReturn

import numpy as np

from safenet_jax.transport import emulated_link, frames, outbox, stream
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.ledger import Ledger

_REFUSAL = 'refused'
_MAX_REASON = 200
_LINGER = 1.0
_PARTIES = {'client': 'server', 'server': 'client'}


class RefusedError(ProtocolError):
  """The peer said in one line why it does not continue."""


class Scope(NamedTuple):
  """Under which keys the ledger counts a message and a second."""

  phase: str = 'session'
  layer: str = 'session'
  primitive: str = 'messages'


class Channel:
  """Messages to and from the other party over a connected socket, TLS or not.

  The channel owns the socket. Its methods are for one thread; only `abort` and `dismiss`
  may be called by any. After a ProtocolError the channel is dead, and every further call
  raises that error.
  """

  def __init__(
    self,
    sock: socket.socket,
    *,
    party: str,
    ledger: Ledger | None = None,
    timeout: float = 60.0,
    slowest: float = 100e3,
    queue_bytes: int = 1 << 28,
  ):
    """Takes over a connected socket. With TLS, its handshake has to be done already.

    Args:
      sock: of any stream family.
      party: which party this end is, 'client' or 'server'.
      ledger: gets the messages of both directions and this party's seconds.
      timeout: seconds in which a message has to arrive, or to be taken by the peer.
      slowest: bytes per second of the slowest link to expect. A message of n bytes has
        n / slowest seconds more than `timeout`.
      queue_bytes: how many unsent bytes are held before `send` waits.
    """
    if party not in _PARTIES:
      raise ValueError(f'party {party!r}, want client or server')
    self.party, self.peer = party, _PARTIES[party]
    self.ledger = ledger or Ledger()
    self._timeout, self._slowest = timeout, slowest
    self._end = math.inf
    self._scope = Scope()
    self._stream = stream.Stream(sock)
    self._outbox = outbox.Outbox(self._stream, queue_bytes, self._deadline)

  def __enter__(self) -> 'Channel':
    return self

  def __exit__(self, kind, error, trace) -> None:
    if kind is not None:
      self.abort('the session ended with an error')
    self.close()

  @contextlib.contextmanager
  def scope(
    self, *, phase: str | None = None, layer: str | None = None, primitive: str | None = None
  ) -> Iterator[None]:
    """Counts the messages and seconds of a block under these keys; others stay as they were."""
    outer = self._scope
    given = {'phase': phase, 'layer': layer, 'primitive': primitive}
    self._scope = outer._replace(**{k: v for k, v in given.items() if v is not None})
    try:
      with self.ledger.step(*self._scope, self.party):
        yield
    finally:
      self._scope = outer

  @contextlib.contextmanager
  def within(self, timeouts: float, size: int) -> Iterator[None]:
    """Limits how long all messages of a block may take together.

    Each message has a deadline of its own, so that a peer that sends each one late could go on
    for days. The block ends with a ProtocolError after `timeouts` times the channel's timeout,
    and what `size` bytes take on the slowest link.
    """
    self._end = time.monotonic() + timeouts * self._timeout + size / self._slowest
    try:
      yield
    finally:
      self._end = math.inf

  def send(self, tag: str, *values: np.ndarray | bytes) -> None:
    """Queues a message of integer arrays and bytes.

    Large arrays are not copied. The caller may write to them again only after `flush`.

    Raises:
      ProtocolError: the peer is gone, or took nothing for too long.
    """
    header, first, payload = frames.encode(tag, values)
    size = len(first) + header.size
    buffers = [memoryview(first), *payload]
    if size <= outbox.SMALL:
      buffers = [memoryview(b''.join(buffers))]
    self._check()
    try:
      self._outbox.put(buffers, size, self._sent(self._scope))
    except ProtocolError as error:
      self._hang_up(error)
    self.ledger.count(*self._scope, self.party, size)

  def receive(self, tag: str, expected: Sequence[tuple] = ()) -> tuple:
    """The arrays of the next message.

    Args:
      tag: its name.
      expected: (dtype, shape) of every array; `bytes` has shape (length,).

    Raises:
      ProtocolError: it is another message, which is found out before its payload is
        read; or the peer refused, vanished, stalled, or sent garbage.
    """
    wanted = frames.expect(tag, expected)
    return self._receive(lambda found: wanted, self._deadline(wanted.size))

  def receive_bytes(self, tag: str, limit: int, *, idle: float = 0.0) -> bytes:
    """The bytes of the next message; the peer chooses how many, up to a limit.

    Args:
      tag: the message's name.
      limit: the most bytes.
      idle: seconds that the peer has for this message, more than for others.

    Raises:
      ProtocolError: as for `receive`.
    """

    def wanted(found):
      return frames.expect(tag, [(bytes, (min(found.size, limit),))])

    return self._receive(wanted, self._deadline(limit) + idle)[0]

  def flush(self) -> None:
    """Waits until the operating system has taken everything that was sent."""
    self._check()
    self._guard(self._outbox.flush)

  def refuse(self, reason: str) -> None:
    """Tells the peer in one line why this party does not continue, and closes."""
    with contextlib.suppress(ProtocolError):  # a peer that is gone needs no reason
      self.send(_REFUSAL, frames.printable(reason, _MAX_REASON).encode())
      self._outbox.flush()
      self._stream.linger(_LINGER)
    self.close()

  def abort(self, reason: str) -> None:
    """Ends every operation with a ProtocolError, those of other threads too.

    Any thread may call this.
    """
    self._stream.kill(ProtocolError(reason))

  def dismiss(self, reason: str) -> None:
    """Ends every receive with a ProtocolError; `refuse` can still tell the peer why.

    Any thread may call this.
    """
    self._stream.dismiss(ProtocolError(reason))

  def close(self) -> None:
    """Sends what is queued if the peer takes it, and closes the socket."""
    if self._stream.error is None:
      with contextlib.suppress(ProtocolError):
        self._outbox.flush()
    self._stream.kill(ProtocolError('the channel is closed'))
    self._outbox.stop()
    self._stream.close()

  def _deadline(self, size: int) -> float:
    return min(self._end, time.monotonic() + self._timeout + size / self._slowest)

  def _receive(self, wanted: Callable[[frames.Header], frames.Header], deadline: float) -> tuple:
    self._check()
    prefix = self._read_bytes(frames.PREFIX.size, deadline)
    length, payload = self._guard(frames.decode_prefix, prefix)
    found = self._guard(frames.decode_header, self._read_bytes(length, deadline), payload)
    size = frames.PREFIX.size + length + payload
    if found.tag == _REFUSAL and payload <= _MAX_REASON:
      reason = frames.printable(self._read_bytes(payload, deadline).decode('ascii', 'replace'))
      self.ledger.count(*self._scope, self.peer, size)
      self._fail(RefusedError(f'the {self.peer} refused: {reason}'))
    self._guard(frames.check, found, wanted(found))
    arrays = [part.empty() for part in found.parts]
    for array in arrays:
      self._guard(self._stream.read, frames.view(array), deadline)
    self.ledger.count(*self._scope, self.peer, size)
    return tuple(part.value(array) for part, array in zip(found.parts, arrays))

  def _read_bytes(self, size: int, deadline: float) -> bytes:
    raw = bytearray(size)
    self._guard(self._stream.read, memoryview(raw), deadline)
    return bytes(raw)

  def _sent(self, scope: Scope) -> Callable[[float], None]:
    """What counts the CPU seconds of the outbox's thread, if the ledger's clock does not."""

    def count(seconds):
      if self.ledger.cpu_clock is time.thread_time:
        self.ledger.spend(*scope, self.party, cpu=seconds)

    return count

  def _check(self) -> None:
    if self._stream.error is not None:
      raise self._stream.error

  def _guard(self, function, *args):
    """Calls the function. A ProtocolError that it raises ends the channel."""
    try:
      return function(*args)
    except ProtocolError as error:
      self._fail(error)

  def _hang_up(self, error: ProtocolError) -> NoReturn:
    """Raises why the peer takes nothing: what it said before it hung up, if it did."""

    def unexpected(found: frames.Header) -> NoReturn:
      raise error

    with contextlib.suppress(ProtocolError):  # `_fail` raises it
      self._receive(unexpected, time.monotonic() + _LINGER)
    self._fail(error)

  def _fail(self, error: ProtocolError) -> NoReturn:
    if error is self._stream.dismissed:
      raise error
    self._stream.kill(error)
    raise self._stream.error or error


def connect(
  host: str,
  port: int,
  *,
  context: ssl.SSLContext | None,
  timeout: float = 60.0,
  **options,
) -> Channel:
  """The client's channel to a server.

  Args:
    host, port: of the server; its certificate has to be for `host`.
    context: from `tls.client_context`; None means a connection without encryption.
    timeout: seconds for the connection and its TLS handshake; also the channel's timeout.
    **options: other arguments of `Channel`.

  Raises:
    ProtocolError: no server listens there, or its certificate is not trusted.
    ValueError: a host or port that cannot be one, or a context that would trust any server.
  """
  if not 0 < port < 1 << 16:  # the system would take it modulo 2^16
    raise ValueError(f'port {port}, want 1 to 65535')
  if context is not None and not _verifies(context):
    raise ValueError('a TLS context that does not verify the server, want tls.client_context')
  try:
    sock = socket.create_connection((host, port), timeout)
    try:
      if context is not None:
        sock = _secure(sock, host, port, context)
      return Channel(sock, party='client', timeout=timeout, **options)
    except BaseException:
      sock.close()
      raise
  except OSError as error:
    raise ProtocolError(f'{host}:{port}: {stream.describe(error)}') from None
  except ValueError:  # of a name that neither DNS nor TLS can have
    raise ValueError(f'host {host!r}, want the name or address of a server') from None


def _secure(sock: socket.socket, host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
  try:
    return context.wrap_socket(sock, server_hostname=host)
  except (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError):
    raise ProtocolError(
      f'{host}:{port}: the server closed the connection before the TLS handshake: it may be busy'
    ) from None


def shaped(
  rtt: float, bandwidth: float, address: tuple[str, int]
) -> contextlib.AbstractContextManager[tuple[str, int]]:
  """A slow link to the server at `address`; gives the host and port to connect to instead.

    with shaped(40e-3, 100e6, server.address) as (host, port):
      connect(host, port, ...)

  Bytes really wait, see `emulated_link`. TLS goes through the link. The server's certificate
  has to be for 127.0.0.1, since that is where the link is.

  Args:
    rtt: seconds of a round trip.
    bandwidth: bits a second, each way.
    address: host and port of the server.

  Raises:
    ValueError: a time or a rate that is not finite, or a rate of 0.
  """
  return emulated_link.shaped(rtt, bandwidth, address)


def _verifies(context: ssl.SSLContext) -> bool:
  return context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED

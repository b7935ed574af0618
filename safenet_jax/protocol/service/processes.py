"""Several processes that serve one model at one port, within one set of limits.

    parent                                       child, one of several
      model, options          -------------->      makes a `Server` at the same port
                              <--------------      listening
                              <------------->      questions to the accounts, and answers
      stop                    -------------->      lets sessions end, and ends

Each process uses one core: the interpreter lock lets no process use more. All of them
listen at the same port (SO_REUSEPORT), and the system gives each new connection to one of
them. They have one set of accounts, which the parent keeps. A preparation is in the memory
of the process that made it: so each process has a model id of its own, and tells a client
that another one may have what it asks for. A process that has ended is replaced; its
sessions and its preparations are gone.

A child is an interpreter that imports this module, and nothing of the program that made the
parent. So that program needs no `if __name__ == '__main__'`.
"""

from collections.abc import Callable
import contextlib
import logging
import math
from multiprocessing import connection
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.service import description
from safenet_jax.protocol.service.policy import Policy
from safenet_jax.protocol.service.server import Server, ServerOptions
from safenet_jax.protocol.service.shared_accounts import RemoteAccounts, SharedAccounts
from safenet_jax.transport import listener, tls
from safenet_jax.transport.accounts import Accounts

_LOGGER = logging.getLogger(__name__)
LOG_FORMAT = '%(asctime)s %(levelname)s %(process)d %(message)s'
# A process is started at most once in so many seconds.
_PAUSE = 1.0
_READY, _STOP = 'ready', 'stop'
_DEFAULTS = ServerOptions()
# What a child has to end, beyond the time in which its sessions may.
_LAST_SECONDS = 5.0


class Work(NamedTuple):
  """What a child serves, and how; all of it goes through a pipe.

  files: arguments of `tls.server_context`, or None for connections without encryption.
  """

  model: FixedPointModel
  host: str
  port: int
  files: tuple[Any, ...] | None
  options: ServerOptions
  policy: Policy | None
  on_record: Callable[[dict[str, Any]], None] | None


class ServerProcesses:
  """Accepts clients in several processes until it is closed; a context manager.

  files = 'server.pem', 'key.pem'
  with ServerProcesses(model, port=7341, files=files, count=4) as server:
    server.wait()
  """

  def __init__(
    self,
    model: FixedPointModel,
    host: str = '127.0.0.1',
    port: int = 0,
    *,
    files: tuple[Any, ...] | None,
    count: int,
    options: ServerOptions = _DEFAULTS,
    policy: Policy | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
  ):
    """Starts the processes, and waits until all of them listen.

    Args:
      model: the fixed-point model of `quantize`.
      host, port: where to listen; port 0 takes a free one, see `address`.
      files: arguments of `tls.server_context`: certificate, key, and perhaps the
        authorities of clients. None means connections without encryption.
      count: how many processes.
      options: how they serve. Its limits are for all of them together, and `workers` for
        each of them.
      policy: as for `Server`. It goes to each process as a copy, and so does `on_record`:
        their classes or functions must be importable there.
      on_record: as for `Server`, called in the process that had the session.

    Raises:
      ValueError: no process, or as for `Server`.
      OSError: the address cannot be listened at.
      RuntimeError: a process ended before it listened.
    """
    if count < 1:
      raise ValueError(f'{count} processes, want 1 or more')
    # These raise here, rather than in every child.
    description.describe(model, SystemRandomness(), options.mode, options.outputs)
    if files is not None:
      tls.server_context(*files)
    self._shared = SharedAccounts(Accounts(options.limits()))
    self._closed = threading.Event()
    self._stopping = False
    # Not listening, it gets no connections; it keeps the port while no process has it.
    self._place = _reserved(host, port)
    self.address: tuple[str, int] = self._place.getsockname()[:2]
    host, port = self.address
    work = Work(model, host, port, files, options, policy, on_record)
    self._children = [_Child(work) for _ in range(count)]
    self._wake, self._woken = connection.Pipe()
    self._changed = threading.Condition()
    self._thread = threading.Thread(target=self._supervise, name='supervisor', daemon=True)
    self._thread.start()
    with self._changed:
      self._changed.wait_for(lambda: all(child.ready or child.failed for child in self._children))
    if any(child.failed for child in self._children):
      self.close(0.0)
      raise RuntimeError('a server process ended before it listened, its error is above')

  def wait(self, seconds: float | None = None) -> bool:
    """As `Server.wait`."""
    return self._closed.wait(seconds)

  def stop(self) -> None:
    """As `Server.stop`."""
    self._closed.set()

  @property
  def processes(self) -> list[int]:
    """The ids of the processes that serve."""
    return [child.process.pid for child in self._children]

  def close(self, drain_seconds: float = 30.0) -> bool:
    """Stops accepting, and gives running sessions `drain_seconds` to finish.

    Returns:
      Whether all of them finished in that time.
    """
    self._closed.set()
    self._stopping = True
    for child in self._children:
      child.send((_STOP, drain_seconds))
    deadline = time.monotonic() + drain_seconds + _LAST_SECONDS
    ended = [child.wait(deadline - time.monotonic()) for child in self._children]
    self._wake.send(None)
    self._thread.join()
    self._place.close()
    return not any(ended)

  def __enter__(self) -> 'ServerProcesses':
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _supervise(self) -> None:
    """Answers what the children ask, and replaces those that have ended."""
    while True:
      pipes = {child.pipe: child for child in self._children if child.alive}
      resting = [child.next_start for child in self._children if not child.alive]
      left = None if self._stopping or not resting else min(resting) - time.monotonic()
      ready = connection.wait([*pipes, self._woken], None if left is None else max(0, left))
      if self._woken in ready:
        return
      for pipe, child in pipes.items():
        if pipe in ready:
          self._hear(child)
      for child in self._children:
        if not child.alive and not self._stopping and time.monotonic() >= child.next_start:
          child.start()

  def _hear(self, child: '_Child') -> None:
    try:
      message = child.pipe.recv()
      if message == _READY:
        with self._changed:
          child.ready = True
          self._changed.notify_all()
      else:
        self._shared.answer(child.pipe, message)
    except (EOFError, OSError):
      self._shared.forget(child.pipe)
      with self._changed:
        child.end()
        self._changed.notify_all()
      if not self._stopping:
        _LOGGER.warning('event=process_ended code=%s', child.process.returncode)


class _Child:
  """One of the processes, and another one in its place when it has ended."""

  def __init__(self, work: Work):
    self._work = work
    self.next_start = -math.inf
    self.ready = self.failed = False
    self.start()

  def start(self) -> None:
    """Starts it; `SharedAccounts` knows it by its pipe."""
    self.next_start = time.monotonic() + _PAUSE
    code = f'import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()'
    self.pipe, theirs = connection.Pipe()
    with theirs:
      self.process = subprocess.Popen([sys.executable, '-c', code], stdin=theirs.fileno())
    self.alive = True
    self.send(self._work)

  def send(self, message: Any) -> None:
    """Sends it a message; one that has ended gets none."""
    with contextlib.suppress(OSError):
      self.pipe.send(message)

  def end(self) -> None:
    """Waits for a process whose pipe is closed."""
    self.pipe.close()
    self.process.wait()
    self.alive, self.failed = False, not self.ready

  def wait(self, seconds: float) -> int:
    """Its exit code: 1 where sessions were cut off; one that takes longer is killed."""
    try:
      return self.process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
      self.process.kill()
      return self.process.wait()


def _reserved(host: str, port: int) -> socket.socket:
  """A socket that is bound and does not listen; OSError if somebody listens there."""
  family = listener.family(host)
  # Processes of one user can share a port with strangers of the same user. So nobody may be there.
  socket.create_server((host, port), family=family).close()
  found = socket.socket(family, socket.SOCK_STREAM)
  found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
  found.bind((host, port))
  return found


def main() -> None:
  """A child: serves until the parent says so, or is gone."""
  # The parent says when to stop. These signals may go to all processes of a terminal or service.
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT, force=True)
  logging.getLogger('safenet_jax').setLevel(logging.INFO)
  pipe = connection.Connection(os.dup(sys.stdin.fileno()))
  work: Work = pipe.recv()
  accounts = RemoteAccounts(pipe)
  context: ssl.SSLContext | None = None
  if work.files is not None:
    context = tls.server_context(*work.files)
  server = Server(
    work.model,
    work.host,
    work.port,
    context=context,
    options=work.options,
    policy=work.policy,
    accounts=accounts,
    on_record=work.on_record,
    shared_port=True,
  )
  pipe.send(_READY)
  drained: list[bool] = []

  def close(seconds: float) -> None:
    drained.append(server.close(seconds))
    os._exit(not drained[0])

  try:
    while True:
      message = pipe.recv()
      if message[0] == _STOP:
        # In a thread: sessions that end give back what they hold, and wait for the answers.
        threading.Thread(target=close, args=message[1:], daemon=True).start()
      else:
        accounts.take(*message)
  except (EOFError, OSError):
    os._exit(1)  # the parent is gone, and with it the accounts

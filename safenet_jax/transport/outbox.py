"""A bounded queue of frames, and the thread that writes them."""

from collections.abc import Callable
import threading
import time
from typing import NamedTuple

from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.stream import PeerTimeoutError, Stream

# Up to this many bytes a frame is sent as one buffer: one call, and one TLS record.
SMALL = 1 << 14
_NO_WAIT = 0.0  # a deadline that is over


class _Frame(NamedTuple):
  buffers: list[memoryview]
  size: int
  sent: Callable[[float], None]


class Outbox:
  """Writes frames in order while the party computes or receives."""

  def __init__(self, stream: Stream, room: int, deadline: Callable[[int], float]):
    """Starts the thread.

    Args:
      stream: to write to.
      room: the most bytes that are held. A larger frame is held alone.
      deadline: of a number of bytes, the time (`time.monotonic`) by which the peer has to
        have taken them.
    """
    self._stream, self._room, self._deadline = stream, room, deadline
    self._frames: list[_Frame] = []
    self._held = 0
    self._open = True
    self._error: ProtocolError | None = None
    self._changed = threading.Condition()
    self._thread = threading.Thread(target=self._run, name='channel outbox', daemon=True)
    self._thread.start()

  def put(self, buffers: list[memoryview], size: int, sent: Callable[[float], None]) -> None:
    """Queues a frame; waits while there is no room.

    A small frame is written here if it can go at once. Waking the thread would take longer,
    and rounds of small frames are where this delay would add up.

    Args:
      buffers: its bytes, referenced until they are written.
      size: how many bytes that are.
      sent: called by the thread with the CPU seconds that it took to write the frame. It is
        not called for a frame that is written here.
    """
    if size <= SMALL and not self._held and self._write_now(buffers):
      return
    self._until(lambda: not self._held or self._held + size <= self._room)
    with self._changed:
      self._frames.append(_Frame(buffers, size, sent))
      self._held += size
      self._changed.notify_all()

  def _write_now(self, buffers: list[memoryview]) -> bool:
    try:
      self._stream.write(buffers, _NO_WAIT)
    except PeerTimeoutError:
      return False  # the rest is left in `buffers`
    except ProtocolError as error:
      self._fail(error)
    return True

  def flush(self) -> None:
    """Waits until the operating system has taken everything."""
    self._until(lambda: not self._held)

  def stop(self) -> None:
    """Ends the thread. Before, the stream has to be dead, or everything flushed."""
    with self._changed:
      self._open = False
      self._changed.notify_all()
    self._thread.join()
    self._frames.clear()

  def _until(self, ready: Callable[[], bool]) -> None:
    # The thread has deadlines of its own, and always ends this wait.
    with self._changed:
      self._changed.wait_for(lambda: ready() or self._error is not None)
      if self._error is not None:
        raise self._stream.error or self._error

  def _run(self) -> None:
    while True:
      with self._changed:
        self._changed.wait_for(lambda: self._frames or not self._open)
        if not self._frames:
          return
        frame = self._frames[0]
      start = time.thread_time()
      try:
        self._stream.write(frame.buffers, self._deadline(frame.size))
      except ProtocolError as error:
        self._fail(error)
        return
      frame.sent(time.thread_time() - start)
      with self._changed:
        self._frames.pop(0)
        self._held -= frame.size
        self._changed.notify_all()

  def _fail(self, error: ProtocolError) -> None:
    # A peer that hung up may have said why. The reader is left to find that, or the end of the
    # stream. A peer that stalls would keep the reader waiting, so that the stream is ended.
    if isinstance(error, PeerTimeoutError):
      self._stream.kill(error)
    with self._changed:
      self._error = error
      self._changed.notify_all()

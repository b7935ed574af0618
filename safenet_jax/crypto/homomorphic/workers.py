"""Processes that answer uploads together, each with a part of every layer.

    server                                       worker, one of several

      parameters, layers       --------------->    prepares its part of every layer
                               <---------------    ready
      public key, upload       --------------->    computes
                               <---------------    its part of the reply, or what is wrong

The bindings of SEAL hold the interpreter lock, so a server needs one process for each
core that it wants to use. Each process prepares its part of every layer's output
channels, once. Together, the parts of a reply have the form of the reply that one
process would have sent.

A worker is an interpreter that imports this module, and nothing of the program that makes
the pool. So that program needs no `if __name__ == '__main__'`. The weights go through the
pipe, because others can read a command line.

A worker that has ended is started again, and computes its part of the reply again. Nobody
has seen the part that was lost, and the new one has masks of its own. So the client gets
one reply, as it would have without the loss.
"""

from collections.abc import Callable, Sequence
import contextlib
import logging
import math
from multiprocessing import connection
import signal
import struct
import subprocess
import sys
import threading
import time

import numpy as np

from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, packing
from safenet_jax.crypto.randomness import SystemRandomness

# Parameters, shape and kernel of each.
Layers = Sequence[tuple[bfv.Parameters, packing.Convolution, np.ndarray]]

_LOGGER = logging.getLogger(__name__)
_RESULT, _ERROR, _FAILURE = b'R', b'E', b'F'
_NUMBER = struct.Struct('<Q')
_NUMBERS = struct.Struct('<QQQ?')
# A request during which workers end so often is refused: it could be what ends them.
_TRIES = 2
# A worker is started at most once in so many seconds.
_PAUSE = 1.0


def kept(sizes: Sequence[int], most: int | None) -> list[bool]:
  """Which layers are kept ready to multiply: the first ones that fit in `most` bytes, or all."""
  found, left = [], math.inf if most is None else most
  for size in sizes:
    found.append(size <= left)
    left -= size if found[-1] else 0
  return found


class Workers:
  """A pool of processes; use it as a context manager or `close` it. Threads may share it.

  The processes are not forked, and each makes its own source of randomness: two processes
  with one stream would reveal each other's masks.

  Raises:
    ValueError: fewer than one process, or what `encrypted_convolution.prepare` refuses.
    RuntimeError: a process ended before it was ready.
  """

  def __init__(self, count: int, layers: Layers, weights_bytes: int | None = None):
    """Starts so many; `weights_bytes` as for `kept`, of all of them together."""
    if count < 1:
      raise ValueError(f'{count} workers, want 1 or more')
    self._layers = layers
    self._lock = threading.Lock()
    self._closed = False
    self._workers = [_Worker(index, count, layers, weights_bytes) for index in range(count)]
    try:
      for worker in self._workers:
        worker.ask()
      for worker in self._workers:
        answer = worker.answer()
        if answer is None:
          raise RuntimeError(f'a worker ended with {worker.process.returncode} as it started')
        _checked(answer)
    except BaseException:
      self.close()
      raise

  def reply(
    self, key: bytes, layer: int, upload: bytes, tag: bytes, *, drawn: bool = False
  ) -> tuple[bytes, np.ndarray]:
    """`encrypted_convolution.reply` of a layer, by its index, under a client's public key.

    Raises:
      ValueError: no such layer, not a public key, the upload is malformed or belongs to
        another key, layer or tag, or workers ended in every try.
      RuntimeError: a worker failed in another way, or the pool is closed.
    """
    if not 0 <= layer < len(self._layers):
      raise ValueError(f'layer {layer}, want 0 to {len(self._layers) - 1}')
    height, width, _ = self._layers[layer][1].output_shape
    messages, shares = [], []
    head = _NUMBERS.pack(layer, len(key), len(tag), drawn)
    for result in self._ask(head + key + tag + upload):
      end = _NUMBER.size + _NUMBER.unpack_from(result)[0]
      share = np.frombuffer(result[_NUMBER.size : end], np.uint64)
      shares.append(share.reshape(height, width, -1))
      messages.append(result[end:])
    return b''.join(messages), np.concatenate(shares, axis=-1)

  def _ask(self, question: bytes) -> list[bytes]:
    answers: dict[_Worker, bytes] = {}
    with self._lock:
      for _ in range(_TRIES):
        if self._closed:
          break
        missing = [worker for worker in self._workers if worker not in answers]
        for worker in missing:
          worker.ask(question)
        found = [(worker, worker.answer()) for worker in missing]
        answers |= {worker: answer for worker, answer in found if answer is not None}
    if len(answers) < len(self._workers):
      if self._closed:
        raise RuntimeError('the workers are closed')
      raise ValueError(f'a worker ended in each of {_TRIES} tries, this request is given up')
    return [_checked(answers[worker]) for worker in self._workers]

  def close(self) -> None:
    """Ends the processes; a reply that they compute ends with a RuntimeError."""
    self._closed = True
    # Whoever asks them has the lock, and may have started another process meanwhile.
    while not self._lock.acquire(timeout=0.1):
      for worker in self._workers:
        worker.process.kill()
    for worker in self._workers:
      worker.end()
    self._lock.release()

  def __enter__(self) -> 'Workers':
    return self

  def __exit__(self, *unused) -> None:
    self.close()


class _Worker:
  """One of the processes, and another one in its place when it has ended."""

  def __init__(self, *work):
    """Starts it; `work` is what `_Part.prepare` takes."""
    self._work = work
    self._started = -math.inf
    self._start()

  def _start(self) -> None:
    time.sleep(max(0.0, self._started + _PAUSE - time.monotonic()))
    self._started = time.monotonic()
    self._owed, self._has_work = 0, False
    code = f'import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()'
    self._pipe, theirs = connection.Pipe()
    with theirs:
      self.process = subprocess.Popen([sys.executable, '-c', code], stdin=theirs.fileno())

  def ask(self, question: bytes = b'') -> None:
    """Sends a question, if it is one, and the work to a process that has none yet."""
    # It owes an answer to a question that was interrupted, as by a signal's handler.
    if self._owed or self.process.poll() is not None:
      self.end()
      self._start()
    self._owed = (not self._has_work) + bool(question)
    with contextlib.suppress(OSError):  # it has ended: `answer` will see that
      if not self._has_work:
        self._has_work = True
        self._pipe.send(self._work)
      if question:
        self._pipe.send_bytes(question)

  def answer(self) -> bytes | None:
    """The answer to what was asked last; None if the process has ended."""
    found = b''
    try:
      while self._owed:
        found = self._pipe.recv_bytes()
        self._owed -= 1
    except (EOFError, OSError):
      self.end()
      _LOGGER.warning('event=worker_ended code=%d', self.process.returncode)
      return None
    return found

  def end(self) -> None:
    """Ends the process; it holds nothing that is needed."""
    self._pipe.close()
    self.process.kill()
    self.process.wait()


def _checked(answer: bytes) -> bytes:
  """A result; a worker's ValueError is raised again, and its other errors as RuntimeError."""
  if answer[:1] == _RESULT:
    return answer[1:]
  text = answer[1:].decode()
  raise ValueError(text) if answer[:1] == _ERROR else RuntimeError(f'a worker failed: {text}')


def main() -> None:
  """One worker: prepares its part of every layer, then answers until the pool is gone."""
  # A server lets its clients finish after these signals, which its workers get too when they
  # are sent to all processes of a terminal or a service.
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  pipe = connection.Connection(sys.stdin.fileno())
  part = _Part()
  with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the pool is gone
    ready = _tried(part.prepare, *pipe.recv())
    pipe.send_bytes(ready)
    while ready == _RESULT:
      pipe.send_bytes(_tried(part.reply, pipe.recv_bytes()))


def _tried(function: Callable[..., bytes], *arguments) -> bytes:
  """What a function returns, or why it raises."""
  try:
    return _RESULT + function(*arguments)
  except ValueError as error:
    return _ERROR + str(error).encode()
  except Exception as error:
    return _FAILURE + repr(error).encode()


class _Part:
  """What one worker computes."""

  def prepare(
    self, worker: int, count: int, layers: Layers, weights_bytes: int | None = None
  ) -> bytes:
    """Prepares the part of one worker of `count`, and has no answer to it."""
    self._randomness = SystemRandomness()
    self._contexts: dict[bfv.Parameters, bfv.Context] = {}
    self._publics: dict[bfv.Parameters, tuple[bytes, bfv.PublicKey]] = {}
    self._layers = []
    parts = []
    for parameters, layer, _ in layers:
      if parameters not in self._contexts:
        self._contexts[parameters] = bfv.Context(parameters)
      groups = encrypted_convolution.layout_of(self._contexts[parameters], layer).outputs
      parts.append(range(worker * groups // count, (worker + 1) * groups // count))
    most = None if weights_bytes is None else weights_bytes // count
    sizes = [
      encrypted_convolution.prepared_size(self._contexts[parameters], layer, part)
      for (parameters, layer, _), part in zip(layers, parts)
    ]
    for (parameters, layer, kernel), part, keep in zip(layers, parts, kept(sizes, most)):
      context = self._contexts[parameters]
      make = encrypted_convolution.prepare if keep else encrypted_convolution.unprepared
      self._layers.append((parameters, make(context, layer, kernel, part)))
    return b''

  def _public(self, parameters: bfv.Parameters, key: bytes) -> bfv.PublicKey:
    """The public key; the last one of each kind is kept."""
    if self._publics.get(parameters, (b'',))[0] != key:
      self._publics[parameters] = key, bfv.PublicKey(self._contexts[parameters], key)
    return self._publics[parameters][1]

  def reply(self, question: bytes) -> bytes:
    """Its part of a share, with the length in front, and of the message to the client."""
    index, *lengths, drawn = _NUMBERS.unpack_from(question)
    middle, end = _NUMBERS.size + np.cumsum(lengths)
    key, tag = question[_NUMBERS.size : middle], question[middle:end]
    parameters, weights = self._layers[index]
    message, share = encrypted_convolution.reply(
      self._public(parameters, key), weights, question[end:], self._randomness, tag, drawn=drawn
    )
    return _NUMBER.pack(share.nbytes) + share.tobytes() + message

"""Serves private inference of one model: the party that owns the weights."""

from collections.abc import Callable, Sequence
import dataclasses
import ssl
import threading
from typing import Any

import numpy as np

from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution
from safenet_jax.crypto.homomorphic import workers as worker_processes
from safenet_jax.crypto.randomness import Randomness, SystemRandomness
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.delphi import keys as session
from safenet_jax.protocol.delphi.keys import ServerKeys
from safenet_jax.protocol.layers import structure as structures
from safenet_jax.protocol.service import commands, handshake
from safenet_jax.protocol.service import description as descriptions
from safenet_jax.protocol.service import sessions as modes
from safenet_jax.protocol.service.store import ServerStore
from safenet_jax.transport import listener as listeners
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError


class Server:
  """Accepts clients until it is closed; a context manager.

  Sessions are isolated: each has its own thread, keys and ledger, and what a
  client does wrong ends its session only. Prepared inferences outlive the
  connection they were made in, and are used once.
  """

  def __init__(
    self,
    model: FixedPointModel,
    host: str = '127.0.0.1',
    port: int = 0,
    *,
    context: ssl.SSLContext | None,
    mode: str = 'delphi',
    outputs: Sequence[str] | None = None,
    workers: int = 0,
    sessions: int = 8,
    memory_bytes: int = 4 << 30,
    keep_seconds: float = 3600.0,
    timeout: float = 60.0,
    idle_seconds: float = 600.0,
    on_record: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
  ):
    """Prepares the weights and starts to listen.

    Args:
      model: the fixed-point model of `quantize`.
      host, port: to bind; port 0 takes a free one, see `address`.
      context: from `tls.server_context`; None is in the clear, which has to be
        written out.
      mode: of `modes.MODES`.
      outputs: what clients may have of `structure.OUTPUTS`, all by default; with
        ('class',) no logits ever leave the protocol.
      workers: processes for homomorphic encryption; 0 computes in the sessions'
        threads, which share one core.
      sessions: clients at once.
      memory_bytes: of prepared inferences, of all clients together; clients are told
        how many at once would be their part of it.
      keep_seconds: for how long a prepared inference is kept.
      timeout: seconds until a client that owes a message is given up.
      idle_seconds: for how long one that owes none may stay.
      on_record: called with the server's ledger of every session, at its end.
      **options: of `listener.Listener`.
    """
    randomness = SystemRandomness()
    described = descriptions.describe(model, randomness, mode, outputs)
    self._model, self._structures = (
      model,
      {output: structures.structure(model, output) for output in described.outputs},
    )
    self._mode = modes.MODES[mode]
    sizes = map(self._mode.server_material.size, self._structures.values())
    part = memory_bytes // max(1, sessions)  # the listener refuses none
    self.description = dataclasses.replace(
      described, batch=max(1, min(part // max(sizes), commands.MAX_IMAGES))
    )
    structure = self._structures[described.outputs[0]]  # linear layers are the same
    self._contexts = session.contexts(structure)
    self._linear: _Threads | _Processes
    if workers:
      self._linear = _Processes(workers, model, structure)
    else:
      self._linear = _Threads(model, structure, self._contexts[0], randomness)
    self._store, self._idle = ServerStore(memory_bytes, keep_seconds), idle_seconds
    self._on_record = on_record
    try:
      self._listener = listeners.Listener(
        host, port, self._serve, context=context, sessions=sessions, timeout=timeout, **options
      )
    except BaseException:
      self._linear.close()
      raise
    self._closed = threading.Event()

  @property
  def address(self) -> tuple[str, int]:
    """Host and port that clients connect to."""
    return self._listener.address

  @property
  def prepared(self) -> int:
    """Inferences that are prepared and not used yet, of all clients."""
    return len(self._store)

  def wait(self, seconds: float | None = None) -> bool:
    """Blocks until `close` is called elsewhere, such as by a signal; whether it was."""
    return self._closed.wait(seconds)

  def stop(self) -> None:
    """Ends `wait`; safe in a signal handler."""
    self._closed.set()

  def close(self, drain_seconds: float = 30.0) -> bool:
    """Stops accepting and lets sessions finish; whether all did."""
    self._closed.set()
    drained = self._listener.close(drain_seconds)
    self._linear.close()
    return drained

  def __enter__(self) -> 'Server':
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _serve(self, channel: Channel) -> None:
    """One session, in a thread of its own."""
    try:
      self._answer(channel)
    finally:
      if self._on_record:
        self._on_record(channel.ledger.record())

  def _answer(self, channel: Channel) -> None:
    channel.ledger.truncation_failure = self._model.truncation_failure
    handshake.server(channel, self.description)
    # A source for each session: one that is shared would be waited for.
    parties = modes.ServerSession(
      self._mode,
      channel,
      self._model,
      self._structures,
      self._contexts,
      self._linear,
      SystemRandomness(),
    )
    while True:
      try:
        command = commands.receive(channel, self._idle)
        if command.kind == commands.GOODBYE:
          return
        if command.kind == commands.PREPARE:
          for material in parties.prepare(command.count, command.output):
            self._store.put(material)
        else:
          parties.infer(self._store.take(command.identifiers), command.output)
      except ProtocolError as error:
        channel.refuse(str(error))
        raise


def _kernels(model: FixedPointModel, structure: structures.Structure) -> dict[str, np.ndarray]:
  return {
    name: model.linear[name].kernel.reshape(layer.kernel_shape)
    for name, layer in structure.linear.items()
  }


class _Threads:
  """Homomorphic replies in the session's own thread."""

  def __init__(
    self,
    model: FixedPointModel,
    structure: structures.Structure,
    context: bfv.Context,
    randomness: Randomness,
  ):
    self._randomness = randomness
    self._weights = {
      name: encrypted_convolution.prepare(context, structure.linear[name], kernel)
      for name, kernel in _kernels(model, structure).items()
    }

  def reply(
    self, keys: ServerKeys, name: str, upload: bytes, tag: bytes
  ) -> tuple[bytes, np.ndarray]:
    return encrypted_convolution.reply(
      keys.publics[0], self._weights[name], upload, self._randomness, tag
    )

  def close(self) -> None:
    pass


class _Processes:
  """Homomorphic replies by worker processes, for one session's layer at a time."""

  def __init__(self, count: int, model: FixedPointModel, structure: structures.Structure):
    kernels = _kernels(model, structure)
    self._index = {name: i for i, name in enumerate(kernels)}
    self._workers = worker_processes.Workers(
      count,
      bfv.ring_parameters(structure.bits),
      [(structure.linear[name], kernel) for name, kernel in kernels.items()],
    )
    self._key = b''
    self._lock = threading.Lock()

  def reply(
    self, keys: ServerKeys, name: str, upload: bytes, tag: bytes
  ) -> tuple[bytes, np.ndarray]:
    with self._lock:
      if self._key != keys.raw[0]:
        self._workers.use_key(keys.raw[0])
        self._key = keys.raw[0]
      return self._workers.reply(self._index[name], upload, tag)

  def close(self) -> None:
    self._workers.close()

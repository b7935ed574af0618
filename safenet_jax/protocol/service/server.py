"""Serves private inference of one model: the party that owns the weights."""

from collections.abc import Callable, Sequence
import dataclasses
import ssl
import threading
from typing import Any

from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.delphi import keys, linear_replies
from safenet_jax.protocol.delphi.party import ServerParty
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.protocol.service import commands, description, handshake
from safenet_jax.protocol.service.sessions import DEFAULT, MODES, ServerSession
from safenet_jax.protocol.service.store import ServerStore
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.listener import Listener


@dataclasses.dataclass(frozen=True)
class ServerOptions:
  """How a `Server` serves, and how much it gives its clients.

  mode: of `sessions.MODES`.
  outputs: what clients may have of `structure.OUTPUTS`, by default all that the model
    can give. With ('class',) no logits ever leave the protocol.
  workers: processes for homomorphic encryption; with 0, the sessions' threads compute
    it, which share one core.
  sessions: the most clients at once.
  memory_bytes: the most that the prepared inferences of all clients take together.
    Each client is told how many images fit its equal part of this.
  keep_seconds: for how long a prepared inference is kept.
  timeout: seconds until a client that owes a message is given up.
  idle_seconds: how many seconds a client that owes no message may stay beyond that.
  handshake_timeout: seconds that a client has for its TLS handshake.
  session_seconds: seconds after which a session is ended, whatever it does.
  """

  mode: str = DEFAULT
  outputs: Sequence[str] | None = None
  workers: int = 0
  sessions: int = 8
  memory_bytes: int = 4 << 30
  keep_seconds: float = 3600.0
  timeout: float = 60.0
  idle_seconds: float = 600.0
  handshake_timeout: float = 10.0
  session_seconds: float = 3600.0


_DEFAULTS = ServerOptions()


class Server:
  """Accepts clients until it is closed; a context manager.

    options = ServerOptions(outputs=('class',), workers=2)
    with Server(model, context=tls.server_context(certificate, key), options=options) as server:
      print(server.address)
      server.wait()

  Sessions are isolated: each has its own thread, keys and ledger. What a client does
  wrong ends only its own session. A prepared inference outlives the connection it was
  made in, and is used once.
  """

  def __init__(
    self,
    model: FixedPointModel,
    host: str = '127.0.0.1',
    port: int = 0,
    *,
    context: ssl.SSLContext | None,
    options: ServerOptions = _DEFAULTS,
    on_record: Callable[[dict[str, Any]], None] | None = None,
  ):
    """Prepares the weights and starts to listen.

    Args:
      model: the fixed-point model of `quantize`.
      host, port: where to listen; port 0 takes a free one, see `address`.
      context: from `tls.server_context`. None means connections without encryption.
        There is no default, so that this has to be written out.
      options: how it serves.
      on_record: called at the end of every session with the record of its ledger.

    Raises:
      ValueError: the mode does not exist or does not serve this model, or the model
        does not have these outputs.
    """
    randomness = SystemRandomness()
    described = description.describe(model, randomness, options.mode, options.outputs)
    self._model, self._mode = model, MODES[options.mode]
    self._structure = Structure.of(model.public)
    self._mode.check(self._structure)
    size = max(
      self._mode.server_material.size(self._structure, output) for output in described.outputs
    )
    part = options.memory_bytes // max(1, options.sessions)  # the listener refuses none
    self.description = dataclasses.replace(
      described, batch=max(1, min(part // size, commands.MAX_IMAGES))
    )
    self._contexts = keys.contexts(self._structure)
    self._linear: linear_replies.LinearReplies
    if options.workers:
      self._linear = linear_replies.InProcesses(options.workers, model.linear, self._structure)
    else:
      self._linear = linear_replies.InSession(
        model.linear, self._structure, self._contexts[0], randomness
      )
    self._store = ServerStore(options.memory_bytes, options.keep_seconds)
    self._idle, self._on_record = options.idle_seconds, on_record
    try:
      self._listener = Listener(
        host,
        port,
        self._serve,
        context=context,
        sessions=options.sessions,
        timeout=options.timeout,
        handshake_timeout=options.handshake_timeout,
        session_seconds=options.session_seconds,
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
    """How many unused inferences are prepared, of all clients together."""
    return len(self._store)

  def wait(self, seconds: float | None = None) -> bool:
    """Blocks until `stop` or `close` is called elsewhere, or for so many seconds.

    Returns:
      Whether one of them was called.
    """
    return self._closed.wait(seconds)

  def stop(self) -> None:
    """Ends `wait`; safe in a signal handler."""
    self._closed.set()

  def close(self, drain_seconds: float = 30.0) -> bool:
    """Stops accepting, and gives running sessions `drain_seconds` to finish.

    Returns:
      Whether all of them finished in that time.
    """
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
    channel.ledger.truncation_failure = self._model.public.truncation_failure
    handshake.server(channel, self.description)
    # Each session has its own source of randomness: sessions would wait for a shared one.
    party = ServerParty(
      channel, self._structure, self._contexts, SystemRandomness(), self._model, self._linear
    )
    session = ServerSession(self._mode, party, self.description.outputs)
    while True:
      try:
        command = commands.receive(channel, self._idle)
        if command.kind == commands.GOODBYE:
          return
        if command.kind == commands.PREPARE:
          for material in session.prepare(command.count, command.output):
            self._store.put(material)
          del material  # this thread would keep it after its use
        else:
          session.infer(self._store.take(command.identifiers), command.output)
      except ProtocolError as error:
        channel.refuse(str(error))
        raise
      except Exception:  # the listener logs it; what it says may tell of the weights
        channel.refuse('an error of its own, which is in its log')
        raise

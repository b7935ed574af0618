"""Serves private inference of one model: the party that owns the weights."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import functools
import ssl
import threading
from typing import Any

import threadpoolctl

from safenet_jax import ranges
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.protocol.delphi import keys, linear_replies, message_walk, progress
from safenet_jax.protocol.delphi.party import ServerParty
from safenet_jax.protocol.service import commands, description, handshake
from safenet_jax.protocol.service.policy import Policy
from safenet_jax.protocol.service.sessions import DEFAULT, MODES, ServerSession
from safenet_jax.protocol.service.store import ServerStore
from safenet_jax.protocol.service.visits import Visit
from safenet_jax.transport import accounts as visitors
from safenet_jax.transport.accounts import Accounts
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.ledger import Ledger
from safenet_jax.transport.listener import Guest, Listener


@dataclasses.dataclass(frozen=True)
class ServerOptions:
  """How a `Server` serves, and how much it gives its clients.

  mode: of `sessions.MODES`, or `sessions.AUTO`, with which each client chooses one.
  outputs: what clients may have of `structure.OUTPUTS`, by default all that the model
    can give. With ('class',) no logits ever leave the protocol.
  workers: processes for homomorphic encryption; with 0, the sessions' threads compute
    it, which share one core.
  sessions: the most clients at once.
  address_sessions: the most sessions of one visitor, that is of one certificate, or
    without it of one address. None is half of `sessions`, and two at least. A visitor has
    the same part of `connections` and `memory_bytes`.
  connections: the most connections without a session at once.
  memory_bytes: the most that the prepared inferences of all clients take together. Each
    client is told how many images fit its session's equal part of this.
  weights_bytes: the most that weights take in the form in which they are multiplied. Weights of
    further layers are brought to it for each preparation, which takes longer.
  keep_seconds: for how long a prepared inference is kept.
  timeout: seconds until a client that owes a message is given up.
  idle_seconds: how many seconds a client that owes no message may stay beyond that.
  handshake_timeout: seconds that a client has for its TLS handshake.
  first_command_seconds: seconds until a client has to ask for something, unless there are
    preparations of it already.
  place_seconds: for how long a client waits for a place in a full server before it is
    refused.
  session_seconds: seconds after which a session is ended, whatever it does.
  """

  mode: str = DEFAULT
  outputs: Sequence[str] | None = None
  workers: int = 0
  sessions: int = 8
  address_sessions: int | None = None
  connections: int = 64
  memory_bytes: int = 4 << 30
  weights_bytes: int = 4 << 30
  keep_seconds: float = 3600.0
  timeout: float = 60.0
  idle_seconds: float = 600.0
  handshake_timeout: float = 10.0
  first_command_seconds: float = 10.0
  place_seconds: float = 3.0
  session_seconds: float = 3600.0

  def __post_init__(self):
    """ValueError for numbers out of their ranges; it names all of them."""
    ranges.check(dataclasses.asdict(self))

  def limits(self) -> dict[str, visitors.Limit]:
    """What `Accounts` is made of; ValueError for a number below 1."""
    return visitors.limits(
      self.connections,
      self.sessions,
      self.memory_bytes,
      address_sessions=self.address_sessions,
    )


_DEFAULTS = ServerOptions()


class Server:
  """Accepts clients until it is closed; a context manager.

    options = ServerOptions(outputs=('class',), workers=2)
    with Server(model, context=tls.server_context(certificate, key), options=options) as server:
      print(server.address)
      server.wait()

  Sessions are isolated: each has its own thread, keys and ledger. What a client does
  wrong ends only its own session. A prepared inference is used once. It outlives the
  connection it was made in, if the client has a directory to keep its own side.

  While a server is open, numpy's matrix products in its process run in one thread.
  """

  def __init__(
    self,
    model: FixedPointModel,
    host: str = '127.0.0.1',
    port: int = 0,
    *,
    context: ssl.SSLContext | None,
    options: ServerOptions = _DEFAULTS,
    policy: Policy | None = None,
    accounts: Accounts | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
    shared_port: bool = False,
    on_prepare: Callable[[Ledger, int], contextlib.AbstractContextManager] | None = None,
  ):
    """Prepares the weights and starts to listen.

    Args:
      model: the fixed-point model of `quantize`.
      host, port: where to listen; port 0 takes a free one, see `address`.
      context: from `tls.server_context`. None means connections without encryption.
        There is no default, so that this has to be written out.
      options: how it serves.
      policy: what is allowed within the limits of the options; by default everything.
      accounts: who holds what, made of `options.limits()`; by default this server's own.
      on_record: called at the end of every session with the record of its ledger, if the
        client asked for anything in it.
      shared_port: as for `Listener`.
      on_prepare: makes a context in which inferences are prepared, for who shows progress: from
        the session's ledger, and how many bytes it will count.

    Raises:
      ValueError: the mode does not exist or does not serve this model, the model does
        not have these outputs, or a limit is below 1.
    """
    accounts = accounts or Accounts(options.limits())
    randomness = SystemRandomness()
    described = description.describe(model, randomness, options.mode, options.outputs)
    self._model = model
    self._structures = {
      mode: MODES[mode].structure(model.public) for mode in described.choices or (described.mode,)
    }
    self._sizes = {
      (mode, output): MODES[mode].server_material.size(structure, output)
      for mode, structure in self._structures.items()
      for output in described.outputs
    }
    fitting = options.memory_bytes // options.sessions // max(self._sizes.values())
    self.description = dataclasses.replace(
      described, batch=max(1, min(fitting, commands.MAX_IMAGES))
    )
    # Linear layers and products are the same in all modes.
    structure = self._structures[described.mode]
    self._contexts = keys.contexts(structure, described.model_id)
    self._linear: linear_replies.LinearReplies
    if options.workers:
      self._linear = linear_replies.InProcesses(
        options.workers, model.linear, structure, self._contexts, options.weights_bytes
      )
    else:
      self._linear = linear_replies.InSession(
        model.linear, structure, self._contexts, randomness, options.weights_bytes
      )
    self._accounts, self._policy = accounts, policy or Policy()
    self._store = ServerStore(accounts, options.keep_seconds, alone=not shared_port)
    self._options, self._on_record, self._on_prepare = options, on_record, on_prepare
    # Threads of BLAS wait for each other by spinning. On cores that others use too, such waits
    # made an online phase of 0.05 s last for seconds.
    self._one_thread = threadpoolctl.threadpool_limits(1, user_api='blas')
    try:
      self._listener = Listener(
        host,
        port,
        self._serve,
        context=context,
        accounts=accounts,
        place_seconds=options.place_seconds,
        timeout=options.timeout,
        handshake_timeout=options.handshake_timeout,
        session_seconds=options.session_seconds,
        shared_port=shared_port,
      )
    except BaseException:
      self._linear.close()
      self._one_thread.restore_original_limits()
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
    self._one_thread.restore_original_limits()
    return drained

  def __enter__(self) -> 'Server':
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _serve(self, channel: Channel, guest: Guest) -> None:
    """One session, in a thread of its own."""
    visit = Visit(guest, self._accounts, self._policy, self._store)
    try:
      with visit.strange(channel, self._options.first_command_seconds):
        self._answer(channel, visit)
    except ProtocolError as error:
      channel.refuse(str(error))
      raise
    except Exception:  # the listener logs it; what it says may tell of the weights
      channel.refuse('an error of its own, which is in its log')
      raise
    finally:
      visit.end()
      if self._on_record and visit.asked:
        self._on_record(channel.ledger.record())

  def _answer(self, channel: Channel, visit: Visit) -> None:
    channel.ledger.truncation_failure = self._model.public.truncation_failure
    visit.connect()
    with visit.idle():
      mode = handshake.server(channel, self.description, visit.welcome)
    # Each session has its own source of randomness: sessions would wait for a shared one.
    party = ServerParty(
      channel,
      self._structures[mode],
      self._contexts,
      SystemRandomness(),
      self._model,
      self._linear,
    )
    session = ServerSession(MODES[mode], party, self.description.outputs)
    while True:
      with visit.idle():
        command = commands.receive(channel, self._options.idle_seconds)
      if command.kind == commands.GOODBYE:
        return
      if command.kind in (commands.PREPARE, commands.RESUME):
        session.check(command.output)
        size = self._sizes[mode, command.output]
        unfinished = functools.partial(session.unfinished, command.output)
        make = functools.partial(session.prepare, command.count, command.output)
        if command.kind == commands.RESUME:
          told = [progress.Begun.decode(raw) for raw in command.identifiers]
          make = functools.partial(session.resume, visit.begun(told), told, command.output)
        with self._shown(channel.ledger, mode, command.count):
          visit.prepare(make, command.count, size, unfinished)
      else:
        self._infer(session, visit, command)

  def _infer(self, session: ServerSession, visit: Visit, command: commands.Command) -> None:
    """Even a command that is refused uses up the preparations that it names."""
    with visit.take(command.identifiers) as materials:
      session.infer(materials, command.output)

  def _shown(self, ledger: Ledger, mode: str, count: int) -> contextlib.AbstractContextManager:
    """What shows the progress of preparing so many inferences."""
    if self._on_prepare is None:
      return contextlib.nullcontext()
    tally = message_walk.tally(
      self._model.public, self._structures[mode], self._contexts, MODES[mode]
    )
    return self._on_prepare(ledger, count * tally.ledger.record()['phases']['offline']['bytes'])

"""Keeps prepared inferences until they are used: each at most once.

A client's masked input x - r may leave it once for each r. Neither a crash nor a copy of a
directory, be it a restored backup or a second machine, may send another one:

- A client marks a preparation as used, on the disk, before anything is sent under it. So no
  crash gives it out again.
- A client sends x - r only under preparations whose *owner* it is. The owner is a random
  name that a client draws as it starts and never stores: so no copy has it. A client owns
  what it prepares. What is in its directory it claims with its first message, and the server
  grants what has no owner. The answer comes with the description, so that no inference waits
  for it.
- A server forgets a preparation as it gets the command that names it. It never grants it
  again.
- A preparation loses its owner when all connections of the owner have ended, and nothing can
  be on its way that the server did not read. That is so where the client ended them, since
  its bytes are read in order up to their end. It is also so where the server ends them while
  it owes the rest of an answer: a client waits for that before it asks for more. Where the
  server gives up waiting for a command, or in a handshake once it has granted claims, one
  may be on its way. Then it forgets what the owner had.

So two masked inputs under one r never leave clients that follow the protocol, all copies
together, if the server follows it too, and nobody on the network forges the end of a
connection; then one of the two is sent into a connection that nobody reads. A server that
grants what was used would get both: against that helps only the mark on the disk, which a
copy does not have. Nor does this help a copy of a running process with its memory, such as a
resumed snapshot of a machine.
"""

import collections
from collections.abc import Callable, Iterator, MutableMapping, Sequence
import contextlib
import dataclasses
import logging
import os
import threading
import time

from safenet_jax.crypto.randomness import Randomness
from safenet_jax.protocol.delphi import server_offline
from safenet_jax.protocol.delphi.material import ClientLayer, ClientMaterial, ServerMaterial
from safenet_jax.protocol.service import handshake
from safenet_jax.protocol.service.description import Description
from safenet_jax.protocol.service.preparation_files import Name, PreparationFiles
from safenet_jax.transport.accounts import Accounts, BYTES
from safenet_jax.transport.frames import ProtocolError

_LOGGER = logging.getLogger(__name__)
# For how long a client that comes again waits until its connection before has ended.
_HELD_SECONDS = 5.0
# For how long a server keeps what a lost connection left unfinished.
_SUSPENDED_SECONDS = 600.0
# For how long a client keeps what another process of the server may have.
_KEEP_SECONDS = 86400.0


class ClientStore:
  """The client's preparations with one server, in memory or in a directory.

  In a directory each preparation is a file. Before a preparation is given out, its file is
  marked as used, on the disk. Whatever happens then, it is not given out again.
  """

  def __init__(self, directory: str | os.PathLike[str] | None, server: str, randomness: Randomness):
    """As for `PreparationFiles`; a directory of None means memory."""
    self._names: dict[bytes, Name] = {}
    self._memory: dict[bytes, ClientMaterial] = {}
    self._lock = threading.Lock()
    self._model = self._mode = ''
    self._files = None if directory is None else PreparationFiles(directory, server, randomness)
    self._claimed = self._files.names[: handshake.MAX_CLAIMS] if self._files else []

  def __len__(self) -> int:
    return len(self._names)

  def hello(self, owner: bytes) -> handshake.Hello:
    """What the client says as it connects: it claims what it has, of more the newest."""
    claims = [bytes.fromhex(name.identifier) for name in self._claimed]
    return handshake.Hello(owner, self._files.token if self._files else None, claims)

  def granted_mode(self, description: Description, answers: bytes) -> str | None:
    """The mode of the newest preparation that was granted, if the server offers it."""
    for name, answer in zip(self._claimed, answers, strict=True):
      offered = name.mode in description.choices and name.model == description.model_id.hex()
      if answer == handshake.GRANTED and offered:
        return name.mode
    return None

  def open(self, description: Description, answers: bytes) -> None:
    """Begins, with those that the server granted; the others are not used.

    Those that it does not know are deleted, and one line of the log says so. Those that
    another process of the server may know stay for a day. So do those of another mode, for
    a connection in that mode.

    Args:
      description: of what the server serves, in the chosen mode.
      answers: of the server to the claims of `hello`.
    """
    self._model, self._mode = description.model_id.hex(), description.mode
    if self._files is None:
      return
    self._files.begin()
    told = list(zip(self._claimed, answers, strict=True))
    for name, answer in reversed(told):  # the oldest is used first
      if answer == handshake.GRANTED and (name.model, name.mode) == (self._model, self._mode):
        self._names[bytes.fromhex(name.identifier)] = name
    gone = [name for name, answer in told if answer == handshake.UNKNOWN]
    self._files.delete(gone)
    elsewhere = [name for name, answer in told if answer == handshake.ELSEWHERE]
    self._files.delete(name for name in elsewhere if self._files.age(name) > _KEEP_SECONDS)
    held = sum(answer == handshake.HELD for answer in answers)
    if gone:
      restarted = all(name.model != self._model for name in gone)
      reason = 'the server was started again' if restarted else 'used before, or too old'
      _LOGGER.warning('event=preparations_gone count=%d reason="%s"', len(gone), reason)
    if elsewhere:
      reason = 'another process of the server may have them, or they were used, or are too old'
      _LOGGER.warning('event=preparations_elsewhere count=%d reason="%s"', len(elsewhere), reason)
    if held:
      reason = 'another client has them: is this a copy of its directory?'
      _LOGGER.warning('event=preparations_held count=%d reason="%s"', held, reason)

  def claimed_again(self) -> list[bytes]:
    """What a connection in the place of a lost one claims of what is here; the rest is forgotten.

    Without a directory that is nothing: the server dropped its side as the connection ended.
    """
    kept = list(self._names)[-handshake.MAX_CLAIMS :] if self._files else []
    self._forget(set(self._names) - set(kept))
    return kept

  def granted_again(self, claims: Sequence[bytes], answers: bytes) -> None:
    """Forgets what the server did not grant: nothing may be sent under it."""
    self._forget(
      {key for key, answer in zip(claims, answers, strict=True) if answer != handshake.GRANTED}
    )

  def _forget(self, keys: set[bytes]) -> None:
    with self._lock:
      for key in keys:
        self._names.pop(key, None)
        self._memory.pop(key, None)

  def count(self, output: str) -> int:
    """Preparations for one of `structure.OUTPUTS`."""
    return len(self._found(output))

  def _found(self, output: str) -> list[bytes]:
    return [key for key, name in list(self._names.items()) if name.output == output]

  @property
  def layers(self) -> Callable[[], MutableMapping[str, ClientLayer]]:
    """Makes what takes the finished layers of a preparation, until it is put here."""
    return dict if self._files is None else self._files.layers

  def put(self, material: ClientMaterial) -> None:
    """Keeps a preparation, whose layers `layers` has taken."""
    name = Name(self._model, self._mode, material.output, material.identifier.hex())
    if self._files is None:
      self._memory[material.identifier] = material
    else:
      self._files.write(name, material)
    self._names[material.identifier] = name

  def take(self, count: int, output: str = 'logits') -> list[ClientMaterial]:
    """Gives out `count` preparations for an output.

    They count as used from then on, whatever becomes of them.

    Raises:
      ValueError: there are fewer; then none counts as used.
    """
    with self._lock:
      found = self._found(output)[:count]
      if len(found) < count:
        raise ValueError(f'{len(found)} prepared inferences, want {count}')
      names = [self._names.pop(key) for key in found]
      if self._files is None:
        return [self._memory.pop(key) for key in found]
      self._files.mark(names)
    return [self._files.load(name) for name in names]


@dataclasses.dataclass
class _Kept:
  start: float
  ticket: int
  material: ServerMaterial
  owner: bytes | None
  size: int  # bytes that are reserved for it


@dataclasses.dataclass
class _Suspended:
  """An image whose offline phase a lost connection interrupted; `size` bytes are reserved."""

  start: float
  ticket: int
  size: int
  image: server_offline.Image
  owner: bytes


@dataclasses.dataclass
class _Owner:
  """connections: that have not ended; forgets: whether one of them ended in doubt."""

  connections: int = 0
  forgets: bool = False


class ServerStore:
  """The server's side of all clients' preparations, in memory.

  Their memory is reserved in the accounts before they are made, and given back as they go.
  A server that is started again knows none of them. It serves under a new model id.
  """

  def __init__(self, accounts: Accounts, keep_seconds: float, *, alone: bool = True):
    """Starts empty.

    Args:
      accounts: where their memory is reserved, and which says whose preparations are given up.
      keep_seconds: how long a preparation is kept.
      alone: whether no other process serves at the same port.
    """
    self._unknown = handshake.UNKNOWN if alone else handshake.ELSEWHERE
    self._accounts, self._keep = accounts, keep_seconds
    self._changed = threading.Condition()
    self._found: dict[bytes, _Kept] = {}
    self._suspended: dict[tuple[bytes, int], _Suspended] = {}
    self._owners: collections.defaultdict[bytes, _Owner] = collections.defaultdict(_Owner)
    accounts.on_evict(lambda ticket, reason: self.give_up(ticket), BYTES)

  def __len__(self) -> int:
    return len(self._found)

  def enter(self, hello: handshake.Hello) -> bytes:
    """A connection begins; gives the answers to its claims.

    A client that comes again may be faster than the end of its connection before. So this
    waits for some seconds while a claim belongs to another owner.
    """
    with self._changed:
      self._expire()
      self._owners[hello.owner].connections += 1
      self._changed.wait_for(
        lambda: all(self._answer(hello.owner, claim) != handshake.HELD for claim in hello.claims),
        _HELD_SECONDS,
      )
      answers = bytes(self._answer(hello.owner, claim) for claim in hello.claims)
      for claim, answer in zip(hello.claims, answers):
        if answer == handshake.GRANTED:
          self._found[claim].owner = hello.owner
          self._accounts.touch(self._found[claim].ticket, False)
      return answers

  def _answer(self, owner: bytes, identifier: bytes) -> int:
    kept = self._found.get(identifier)
    if kept is None:
      return self._unknown
    return handshake.GRANTED if kept.owner in (None, owner) else handshake.HELD

  def leave(self, owner: bytes, *, keep: bool, idle: bool) -> None:
    """A connection ends.

    Args:
      owner: of its hello. When this was its last connection, its preparations have no owner.
      keep: whether they are kept, if all of its other connections say so too. It has to be
        False where a command may be on its way that was not read.
      idle: whether their memory may go to others, who need it.
    """
    with self._changed:
      found = self._owners[owner]
      found.connections -= 1
      found.forgets |= not keep
      if not found.connections:
        del self._owners[owner]
        for identifier, kept in list(self._found.items()):
          if kept.owner != owner:
            continue
          kept.owner = None
          if found.forgets:
            self._drop(identifier)
          elif idle:
            self._accounts.touch(kept.ticket, True)
      self._changed.notify_all()

  def put(self, material: ServerMaterial, ticket: int, owner: bytes) -> None:
    """Keeps a preparation, whose bytes were reserved under this ticket, for an owner."""
    with self._changed:
      self._found[material.identifier] = _Kept(
        time.monotonic(), ticket, material, owner, material.nbytes
      )

  def suspend(
    self,
    images: Sequence[server_offline.Image],
    ticket: int,
    size: int,
    owner: bytes,
    *,
    idle: bool,
  ) -> None:
    """Keeps images for some minutes whose connection was lost before they were ready.

    Args:
      images: of one command.
      ticket: under which `size` bytes are reserved for each of them.
      size: in bytes.
      owner: who alone may go on with them.
      idle: whether their memory may go to others, who need it.
    """
    with self._changed:
      for image in images:
        self._suspended[image.begun.name] = _Suspended(time.monotonic(), ticket, size, image, owner)
      if images and idle:
        self._accounts.touch(ticket, True)
      self._changed.notify_all()

  def resume(
    self, names: Sequence[tuple[bytes, int]], owner: bytes
  ) -> list[server_offline.Image | None]:
    """Gives out the owner's images of these names; None for those that are not known.

    They are not known any more from then on. An image may be ready, where the client was not
    told so. A client that comes again may be faster than the end of its connection before. So
    this waits for some seconds while one is missing.
    """
    with self._changed:
      self._expire()
      self._changed.wait_for(
        lambda: all(self._ready(name, owner) or self._mine(name, owner) for name in names),
        _HELD_SECONDS,
      )
      return [self._resumed(name, owner) for name in names]

  def _mine(self, name: tuple[bytes, int], owner: bytes) -> _Suspended | None:
    found = self._suspended.get(name)
    return found if found is not None and found.owner == owner else None

  def _ready(self, name: tuple[bytes, int], owner: bytes) -> bytes | None:
    """The identifier of a preparation that the client knows by this name alone."""
    for identifier, kept in self._found.items():
      if kept.material.begun.name == name and kept.owner in (None, owner):
        return identifier
    return None

  def _resumed(self, name: tuple[bytes, int], owner: bytes) -> server_offline.Image | None:
    if identifier := self._ready(name, owner):
      return server_offline.ready(self._drop(identifier))
    if self._mine(name, owner) is None:
      return None
    found = self._suspended.pop(name)
    self._accounts.release(found.ticket, found.size)
    return found.image

  def give_up(self, ticket: int) -> None:
    """Forgets all preparations whose bytes were reserved under this ticket."""
    with self._changed:
      for identifier in [name for name, kept in self._found.items() if kept.ticket == ticket]:
        self._drop(identifier)
      for name in [name for name, kept in self._suspended.items() if kept.ticket == ticket]:
        del self._suspended[name]

  def expire(self) -> None:
    """Forgets what is too old."""
    with self._changed:
      self._expire()

  @contextlib.contextmanager
  def take(self, identifiers: Sequence[bytes], owner: bytes) -> Iterator[list[ServerMaterial]]:
    """Gives out the owner's preparations of these names, for the time of the block.

    All of them count as used from then on, whatever becomes of them: where this raises, the
    client has sent masked inputs under the others. Their memory stays reserved until the block
    ends: a client that stalls in an inference holds it.

    Raises:
      ProtocolError: one is not known, was used before, is named twice, or belongs to somebody
        else.
    """
    found, missing = list[_Kept](), None
    try:
      with self._changed:
        self._expire()
        for identifier in identifiers:
          kept = self._found.get(identifier)
          if kept is not None and kept.owner == owner:
            found.append(self._pop(identifier))
          else:
            missing = missing or identifier
            if kept is not None and kept.owner is None:
              self._drop(identifier)  # a masked input came for it
      if missing is not None:
        raise ProtocolError(
          f'no preparation {missing.hex()}: it was used, is too old, or of another server'
        )
      yield [kept.material for kept in found]
    finally:
      for kept in found:
        self._accounts.release(kept.ticket, kept.size)

  def _expire(self) -> None:
    oldest = time.monotonic() - self._keep
    for identifier in [name for name, kept in self._found.items() if kept.start < oldest]:
      self._drop(identifier)
    oldest = time.monotonic() - min(self._keep, _SUSPENDED_SECONDS)
    for name in [name for name, kept in self._suspended.items() if kept.start < oldest]:
      gone = self._suspended.pop(name)
      self._accounts.release(gone.ticket, gone.size)

  def _pop(self, identifier: bytes) -> _Kept:
    """Nobody gets a preparation that is gone from here."""
    return self._found.pop(identifier)

  def _drop(self, identifier: bytes) -> ServerMaterial:
    kept = self._pop(identifier)
    self._accounts.release(kept.ticket, kept.size)
    return kept.material

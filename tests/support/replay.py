"""A client or a server, whole, against the recorded messages of its peer and without a socket.

A session is recorded once, with fixed coins and keys. Whoever replays one does then what it
did when it was recorded, up to where the recording is changed.
"""

from collections.abc import Iterator, Sequence
import contextlib
import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from safenet_jax.protocol.delphi import keys
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import store
from safenet_jax.transport import accounts, frames
from safenet_jax.transport import channel as channels
from safenet_jax.transport import listener as listeners
from safenet_jax.transport import stream as streams
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from tests.support import peers

PARTIES = ('client', 'server')
# Of a session's keys; a session that goes on with recorded keys has none of them.
SETUP = ('keys', 'points', 'corrections')
# Of the parties' layers, in any mode.
LAYERS = (
  'masks',
  'linear',
  'labels',
  'powers',
  'tables',
  'products',
  'choices',
  'shares',
  'prepared',
  'input',
  'activation',
  'masked',
  'logits',
  'share',
  'differences',
  'client labels',
  'seed',
  'digits',
  'openings',
  'signs',
  'class tables',
  'class choices',
  'class labels',
)


class Message(NamedTuple):
  """A frame as it lies on the wire, and whether it is another than was recorded."""

  tag: str
  frame: bytes
  changed: bool = False


class Tape:
  """A `Stream` of messages that are there already; what is written is lost."""

  def __init__(self, messages: Sequence[Message]):
    self.error: ProtocolError | None = None
    self.dismissed = None
    self.ends = list(itertools.accumulate(len(message.frame) for message in messages))
    self.position = 0
    self._data = memoryview(b''.join(message.frame for message in messages))

  def read(self, left, deadline):
    del deadline
    if self.error is not None:
      raise self.error
    some = self._data[self.position : self.position + len(left)]
    left[: len(some)] = some
    self.position += len(some)
    if len(some) < len(left):
      raise ProtocolError('the peer closed the connection')

  def write(self, buffers, deadline):
    del deadline
    if self.error is not None:
      raise self.error
    buffers.clear()

  def kill(self, error):
    self.error = self.error or error

  def linger(self, seconds):
    pass

  def close(self):
    pass


class Listening(Channel):
  """A channel that keeps where the messages end that it gave to its party."""

  def __init__(self, tape: Tape, party: str):
    super().__init__(tape, party=party)
    self.taken: set[int] = set()

  def _receive(self, wanted, deadline):
    values = super()._receive(wanted, deadline)
    self.taken.add(self._stream.position)
    return values


class _Recorder(streams.Stream):
  """A stream that keeps what it reads."""

  def __init__(self, sock):
    super().__init__(sock)
    self.heard = bytearray()

  def read(self, left, deadline):
    whole = left
    super().read(left, deadline)
    self.heard += whole


def _messages(heard: bytes) -> list[Message]:
  found, size = [], frames.PREFIX.size
  while heard:
    header, payload = frames.decode_prefix(heard[:size])
    tag = frames.decode_header(heard[size : size + header], payload).tag
    found.append(Message(tag, heard[: size + header + payload]))
    heard = heard[size + header + payload :]
  return found


class Outcome(NamedTuple):
  """What became of a replay.

  result: of the client, its logits or classes.
  error: what ended the party, None if nothing did.
  begun, reached: for every message, whether the party read of it, and whether it was given to
    whatever reads its payload: its tag, types and shapes were those that were due.
  """

  result: Any
  error: Exception | None
  begun: list[bool]
  reached: list[bool]


class Recording:
  """A session of both parties, from the handshake to the goodbye: what each of them hears."""

  def __init__(self, server: servers.Server, images: np.ndarray, output: str = 'logits'):
    self._server, self._images, self._output = server, images, output
    self._channel: Any = None
    self._coins: dict[type, int] = {}
    self.keys: dict[str, Any] = {}
    self._resumed = False
    with peers.sockets() as ends, pytest.MonkeyPatch.context() as patch:
      patch.setattr(streams, 'Stream', _Recorder)
      ours, theirs = (Channel(end, party=party) for end, party in zip(ends, PARTIES))
      with self._replayable():
        self.result, served = peers.both(lambda: self._client(ours), lambda: self._serve(theirs))
    if isinstance(self.result, Exception) or isinstance(served, Exception):
      raise AssertionError(f'{self.result!r}, {served!r}')
    self.heard = {
      'client': _messages(bytes(ours._stream.heard)),
      'server': _messages(bytes(theirs._stream.heard)),
    }

  def replay(self, party: str, messages: Sequence[Message], *, resumed: bool) -> Outcome:
    """Runs a party on messages to it; `resumed` with the keys of the recording."""
    tape = Tape(messages)
    self._resumed = resumed
    result, error = None, None
    with pytest.MonkeyPatch.context() as patch, self._replayable():
      patch.setattr(streams, 'Stream', lambda tape: tape)
      channel = Listening(tape, party)
      try:
        result = self._client(channel) if party == 'client' else self._serve(channel)
      except ProtocolError as found:
        error = found
      finally:
        channel.abort('over')
        channel.close()
    starts = [0, *tape.ends]
    return Outcome(
      result,
      error,
      [start < tape.position for start in starts[:-1]],
      [end in channel.taken for end in tape.ends],
    )

  def _client(self, channel: Channel) -> np.ndarray:
    self._channel = channel
    with clients.Client('recorded', 0, context=None, output=self._output) as client:
      client.prepare(len(self._images))
      return client.infer(self._images)

  def _serve(self, channel: Channel) -> None:
    # What earlier sessions left would be under the same names.
    self._server._accounts = accounts.Accounts(accounts.limits())
    self._server._store = store.ServerStore(self._server._accounts, 3600.0)
    visitor = accounts.Visitor('127.0.0.1')
    ticket = self._server._accounts.reserve(accounts.SESSION, visitor)
    with channel:
      self._server._serve(channel, listeners.Guest(visitor, ticket))

  @contextlib.contextmanager
  def _replayable(self) -> Iterator[None]:
    """The same coins for every session, and the same keys."""
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(channels, 'connect', lambda *unused, **options: self._channel)
      patch.setattr(clients, 'SystemRandomness', lambda: InsecureSeededRandomness(1))
      patch.setattr(servers, 'SystemRandomness', lambda: InsecureSeededRandomness(2))
      patch.setattr(bfv, 'SecretKey', _secret_key)
      patch.setattr(keys, 'contexts', _contexts)
      for party, seed in zip(PARTIES, (3, 4)):
        patch.setattr(keys, party, self._keys_of(party, getattr(keys, party), seed))
      yield

  def _keys_of(self, party, make, seed):
    """Keys from coins of their own, so that what follows draws the same with and without."""

    def recorded(channel, contexts, randomness):
      del randomness
      if not self._resumed:
        found = make(channel, contexts, InsecureSeededRandomness(seed))
        return self.keys.setdefault(party, found) and found
      found = self.keys[party]
      for transfers in (found.labels, found.words):
        transfers._streams._nonces.clear()
      return found._replace(numbers=itertools.count())

    return recorded


_context = functools.lru_cache(8)(bfv.Context)
_secret_key = functools.lru_cache(8)(bfv.SecretKey)


def _contexts(structure, seed):
  found = keys.parameters(structure, seed)
  return {modulus: _context(parameters) for modulus, parameters in found.items()}

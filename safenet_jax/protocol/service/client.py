"""Gets a served model's predictions for images that the server does not see."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import logging
import os
import ssl
import threading
import time
from typing import Any

import numpy as np

from safenet_jax import ranges
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.protocol.delphi import keys, message_shapes
from safenet_jax.protocol.delphi.party import ClientParty
from safenet_jax.protocol.layers.structure import OUTPUTS
from safenet_jax.protocol.service import budget as budgets
from safenet_jax.protocol.service import commands, description, handshake, sessions
from safenet_jax.protocol.service.description import Description, Expectation
from safenet_jax.protocol.service.store import ClientStore
from safenet_jax.transport import channel as channels
from safenet_jax.transport import frames
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.ledger import Ledger
from safenet_jax.transport.stream import LostError

# A server of several processes gives a second connection to any of them. Only the one that has the
# client's first can prepare for it: of two processes, one try in 256 meets the other all the time.
_POOL_TRIES = 8
# Seconds before a connection is made anew.
_PAUSE = 1.0
_LOGGER = logging.getLogger(__name__)


class Client:
  """A connection to a `Server`; blocking, for one thread, a context manager.

    with Client(host, port, context=tls.client_context(ca)) as client:
      client.prepare(10)              # needs no image: whenever there is time
      logits = client.infer(images)   # uint8 [B, H, W, C]
      classes = client.infer(images, output='class')  # the logits stay hidden

  After a ProtocolError the connection is closed; make a new client.
  """

  def __init__(
    self,
    host: str,
    port: int,
    *,
    context: ssl.SSLContext | None,
    expected: Expectation | None = None,
    directory: str | os.PathLike[str] | None = None,
    keep_prepared: int = 0,
    output: str | None = None,
    choose: Callable[[Description, float], str] | None = None,
    ledger: Ledger | None = None,
    timeout: float = 60.0,
    reconnects: int = 0,
    max_memory: int = 4 << 30,
    max_bytes: int = 4 << 30,
  ):
    """Connects and agrees on the model.

    Args:
      host, port: of the server.
      context: from `tls.client_context`. None means a connection without encryption.
        There is no default, so that this has to be written out.
      expected: what the client insists on; by default it takes any model.
      directory: where to keep prepared inferences, for later clients of a server of this
        host and port; None keeps them in memory, for this one. Those that the server does
        not have any more are deleted, and a line of the log says so.
      keep_prepared: how many inferences are kept prepared in the background, by a
        thread with a connection of its own.
      output: one of `structure.OUTPUTS`. `prepare` and `infer` use it where they are
        not given one, and the background thread prepares for it. A server that does
        not offer it is refused. The default is the logits, without refusing a server
        that does not offer them.
      choose: of a server that offers several modes, gives one of the description's `choices`;
        it also gets the seconds of a round trip. `safenet_jax.cheapest_mode()` is one. Without
        it the server's first mode is taken. Preparations in the directory decide before it.
      ledger: gets every byte and second of this connection.
      timeout: seconds until a silent server is given up. What is done for one image may
        take ten of these, and what its bytes take at 100 kB a second.
      reconnects: how often a connection that is lost while inferences are prepared is made
        anew. The server keeps what is unfinished for ten minutes, and both go on with it. A
        connection that is lost in an inference is not made anew.
      max_memory: bytes that this process may take. Fewer images are worked on at once
        where this is little, and a model for which one is too many is refused.
      max_bytes: both ways, of one image's prediction with its preparation; a model that
        takes more is refused.

    Raises:
      ProtocolError: no server listens there, or it refuses, is not trusted, or serves
        another model, or one that needs too much.
      ValueError: the mode of the server does not keep preparations in a directory, or
        inferences are to be kept prepared for an output that the server does not offer, or
        the directory's token makes no sense.
      OSError: the directory cannot be read or written.
    """
    ranges.check({'timeout': timeout, 'keep_prepared': keep_prepared})
    self.ledger = ledger or Ledger()
    randomness = SystemRandomness()
    self._store = ClientStore(directory, f'{host}:{port}', randomness)
    self._reconnects = reconnects
    self._hello = self._store.hello(randomness.bytes(message_shapes.ID_BYTES))
    self._connect = lambda ledger: channels.connect(
      host, port, context=context, timeout=timeout, ledger=ledger
    )
    self._channel = self._connect(self.ledger)
    with self._ending_on_error():
      if output is not None:
        expected = (expected or Expectation())._replace(outputs=(output,))
      chosen = functools.partial(self._choose, choose, directory is not None)
      welcome = handshake.client(self._channel, expected, self._hello, chosen)
      self.description = welcome.description
      self._model, self._output = self.description.model, output or OUTPUTS[0]
      self.ledger.truncation_failure = self._model.truncation_failure
      self._structure = description.structure(self.description)
      self._mode = sessions.MODES[self.description.mode]
      if keep_prepared:
        self._served(None)
      if directory is not None and not self._mode.kept_in_files:
        raise ValueError(
          f'a directory and mode {self._mode.name}, want none: its preparations stay in memory'
        )
      self._contexts = keys.contexts(self._structure, self.description.model_id)
      self._in_memory = directory is None
      self._budget = budgets.budget(
        self.description,
        self._structure,
        self._contexts,
        max_memory=max_memory,
        max_bytes=max_bytes,
        kept=keep_prepared if self._in_memory else 0,
        background=1 if keep_prepared else 0,
        in_files=not self._in_memory,
      )
      self._store.open(self.description, welcome.answers)
    self._session = self._new_session(self._channel)
    self._pool = _Pool(self, keep_prepared) if keep_prepared else None

  def _choose(
    self,
    choose: Callable[[Description, float], str] | None,
    in_files: bool,
    welcome: handshake.Welcome,
  ) -> str:
    """The mode of this client, among those that the server offers."""
    found = welcome.description
    if prepared := self._store.granted_mode(found, welcome.answers):
      return prepared
    usable = [m for m in found.choices if sessions.MODES[m].kept_in_files or not in_files]
    if choose is None or len(usable) < 2:
      return (usable or [found.mode])[0]
    found = dataclasses.replace(found, choices=tuple(usable))
    return frames.checked(choose, found, welcome.round_trip)

  @property
  def needs(self) -> budgets.Needs:
    """Memory and bytes that the model takes, known before anything was prepared."""
    return self._budget.needs

  @property
  def prepared(self) -> int:
    """How many unused inferences are prepared for the output that the client was made with."""
    return self._store.count(self._output)

  @property
  def batch(self) -> int:
    """How many images are prepared and inferred at once.

    That many images share the flights of their offline phase: the messages that go one
    way together. With more, both parties would need more memory, and hardly be faster.
    It is fewer if the server or this process has no room for so many.
    """
    return min(self._session.lot, self.description.batch, self._most)

  @property
  def _most(self) -> int:
    """The most images of one command."""
    return min(self._budget.images, commands.MAX_IMAGES)

  def prepare(self, count: int, output: str | None = None) -> None:
    """Runs the offline phase for `count` inferences.

    Args:
      count: of images.
      output: what the inferences are for. A preparation for logits is never used for a
        class.

    Raises:
      ValueError: the server does not offer this output, or this process has no room for so
        many; nothing was sent.
      ProtocolError: the server did not do its part, or has no room for so many.
    """
    output = self._served(output)
    if self._in_memory:
      self._budget.check_kept(len(self._store) + count)
    with self._ending_on_error():
      self._prepare(count, output)

  def _prepare(self, count: int, output: str) -> None:
    """Makes preparations, and goes on in a new connection where one was lost."""
    images: Sequence[Any] = ()
    tries = self._reconnects
    while count > 0:
      some = len(images) or min(self._most, count)
      try:
        for _ in self._make(self._channel, self._session, some, output, images):
          count -= 1
        images = ()
      except LostError as error:
        images = self._session.unfinished(output) or images
        before = self._store.count(output)
        tries = self._reconnect(error, tries)
        # What was ready may be lost too, and is made again.
        count += max(0, before - self._store.count(output))

  def _make(
    self,
    channel: Channel,
    session: sessions.ClientSession,
    count: int,
    output: str,
    images: Sequence[Any] = (),
  ) -> Iterator[None]:
    """Makes preparations over a connection, and keeps each in the store before it goes on.

    Args:
      channel, session: of the connection.
      count: of preparations.
      output: what they are for.
      images: of a connection that was lost, to go on with; if there are none, new ones begin.
    """
    kind = commands.RESUME if images else commands.PREPARE
    told = [image.begun.encode() for image in images]
    with channel.within(*self._budget.time(count)):
      commands.send(channel, commands.Command(kind, count, told, output))
      keep = self._store.layers
      make = (
        session.resume(images, output, keep) if images else session.prepare(count, output, keep)
      )
      for material in make:
        self._store.put(material)
        yield

  def _reconnect(self, error: LostError, tries: int) -> int:
    """A new connection to the same server, as the same owner.

    Args:
      error: what the connection before ended with.
      tries: how many are left.

    Returns:
      How many are left then.

    Raises:
      ProtocolError: there is no connection after all tries.
    """
    self._channel.close()
    last: ProtocolError = error
    while tries:
      tries -= 1
      _LOGGER.warning('event=reconnecting reason="%s"', last)
      time.sleep(_PAUSE)
      try:
        channel = self._connect(self.ledger)
      except ProtocolError as failed:
        last = failed
        continue
      try:
        claims = self._store.claimed_again()
        self._store.granted_again(claims, self._join(channel, claims))
      except ProtocolError as failed:
        channel.close()
        last = failed
        continue
      self._channel, self._session = channel, self._new_session(channel)
      return tries
    raise last

  def _join(self, channel: Channel, claims: Sequence[bytes] = ()) -> bytes:
    """The handshake of one more connection to the same server, of the same owner.

    Returns:
      The answers to the claims.
    """
    same = Expectation(model_id=self.description.model_id)
    hello = self._hello._replace(claims=claims)
    return handshake.client(channel, same, hello, lambda _: self._mode.name).answers

  def _served(self, output: str | None) -> str:
    """The output, or the client's own for None; ValueError if the server does not offer it."""
    output = output or self._output
    if output not in self.description.outputs:
      raise ValueError(
        f'output {output!r}, want what this server gives: {", ".join(self.description.outputs)}'
      )
    return output

  def _new_session(self, channel: Channel) -> sessions.ClientSession:
    party = ClientParty(
      channel, self._structure, self._contexts, SystemRandomness(), model=self._model
    )
    return sessions.ClientSession(self._mode, party, self.description.outputs)

  def infer(self, images: np.ndarray, output: str | None = None) -> np.ndarray:
    """Logits float64 [B, classes], or classes int64 [B], of uint8 images [B, H, W, C].

    Where values of an image leave their formats, the result is arbitrary. Then a checked class is
    `model.OUT_OF_RANGE`, -1, and so is what `description.model.classes` makes of the logits.

    Images go in groups of `batch`, or of as many as are prepared if these are more.
    Preparations that a group lacks are made first.

    Args:
      images: to predict.
      output: 'logits'; or 'class', the index of the largest logit, with which the client
        learns nothing else about the logits; or 'checked_class', where the client also learns
        whether all logits are in range.

    Raises:
      ValueError: images of another type or shape, or the server does not offer this
        output; no preparation was used.
      ProtocolError: the server did not do its part.
    """
    output, images = self._served(output), np.asarray(images)
    self._model.encode(images[:1])  # raises before anything is used
    alone, first = output != 'logits', 0
    found = [np.empty(0, np.int64) if alone else np.empty((0, self._structure.logits))]
    while first < len(images):
      count = min(max(self.batch, self._store.count(output)), self._most)
      found.append(self._infer(images[first : first + count], output))
      first += count
    result = np.concatenate(found)
    return result if alone else self._model.decode(result)

  def _infer(self, images: np.ndarray, output: str) -> np.ndarray:
    with self._ending_on_error():
      missing = len(images) - self._store.count(output)
      if missing > 0:
        self._prepare(missing, output)
      materials = self._store.take(len(images), output)
      if self._pool:
        self._pool.wake()
      names = [material.identifier for material in materials]
      with self._channel.within(*self._budget.time(len(names))):
        commands.send(self._channel, commands.Command(commands.INFER, len(names), names, output))
        return self._session.infer(materials, images, output)

  @contextlib.contextmanager
  def _ending_on_error(self):
    try:
      yield
    except BaseException:
      self._channel.close()
      raise

  def close(self) -> None:
    """Ends the session; preparations that are kept in a directory stay there."""
    if self._pool:
      self._pool.close()
    try:
      with contextlib.suppress(ProtocolError):
        commands.send(self._channel, commands.Command(commands.GOODBYE))
    finally:
      self._channel.close()

  def __enter__(self) -> 'Client':
    return self

  def __exit__(self, *unused) -> None:
    self.close()


class _Pool:
  """A thread with its own connection that keeps a number of inferences prepared."""

  def __init__(self, client: Client, count: int):
    self._client, self._count = client, count
    self._wanted = threading.Event()
    self._wanted.set()
    self._closing = False
    self._channel: Any = None
    self._thread = threading.Thread(target=self._run, name='preparing', daemon=True)
    self._thread.start()

  def wake(self) -> None:
    self._wanted.set()

  def close(self) -> None:
    self._closing = True
    self._wanted.set()
    self._thread.join(5.0)
    if self._thread.is_alive() and self._channel is not None:
      self._channel.abort('the client is closing')
      self._thread.join()

  def _run(self) -> None:
    while True:
      self._wanted.wait()
      self._wanted.clear()
      if self._closing:
        return
      try:
        self._fill()
      except ProtocolError as error:
        # Without this thread the client prepares by itself; its next inference wakes the thread.
        _LOGGER.warning('event=pool_failed reason="%s"', error)

  def _fill(self) -> None:
    """Prepares what is missing, over a connection that is for this alone."""
    client = self._client
    if client.prepared >= self._count:
      return
    for tries in range(1, _POOL_TRIES + 1):
      with client._connect(Ledger()) as channel:
        self._channel = channel
        try:
          client._join(channel)  # the client uses what is prepared here
        except handshake.OtherModelError:
          if tries == _POOL_TRIES:
            raise
          continue
        session = client._new_session(channel)
        while not self._closing and client.prepared < self._count:
          list(client._make(channel, session, 1, client._output))
        commands.send(channel, commands.Command(commands.GOODBYE))
        return

"""Parties that die before the message of one's choice, in this process or with their own."""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal

import pytest

from safenet_jax.protocol import channel as channels
from safenet_jax.protocol import client as clients
from safenet_jax.protocol import listener
from safenet_jax.protocol import server as servers
from safenet_jax.protocol import tls
from safenet_jax.protocol.channel import Channel
from safenet_jax.protocol.frames import ProtocolError
from tests.protocol import journals

# Called with the channel, how many messages were sent and received on it, which of the two
# comes next, and the tag.
Death = Callable[[Channel, int, str, str], None]


class Killed(Exception):
  """What a party ends with when it is killed in this process."""


def alive(channel: Channel, count: int, operation: str, tag: str) -> None:
  del channel, count, operation, tag


def before(party: str, number: int) -> Death:
  """The death of a party before its n-th message in this process: its socket is gone."""

  def die(channel, count, operation, tag):
    if channel.party == party and count == number:
      channel.abort('killed')
      raise Killed(f'{party} before it could {operation} {tag}')

  return die


def sigkill(party: str, place: tuple[str, str]) -> Death:
  """The death of the process of a party, before an operation with a tag."""

  def die(channel, count, operation, tag):
    del count
    if channel.party == party and (operation, tag) == place:
      channel.flush()  # what was sent before is on its way
      os.kill(os.getpid(), signal.SIGKILL)

  return die


class Mortal(Channel):
  """A channel that asks before every message whether its party still lives."""

  death: Death = staticmethod(alive)

  def __init__(self, *args, **options):
    super().__init__(*args, **options)
    self.count = 0

  def send(self, tag, *values):
    self._step('send', tag)
    super().send(tag, *values)

  def receive(self, tag, expected=()):
    self._step('receive', tag)
    return super().receive(tag, expected)

  def receive_bytes(self, tag, limit, *, idle=0.0):
    self._step('receive', tag)
    return super().receive_bytes(tag, limit, idle=idle)

  def _step(self, operation, tag):
    self.count += 1
    type(self).death(self, self.count - 1, operation, tag)


@contextlib.contextmanager
def dying(death: Death) -> Iterator[None]:
  """All connections that are made meanwhile end so."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Mortal, 'death', staticmethod(death))
    for module in (channels, listener):
      patch.setattr(module, 'Channel', Mortal)
    yield


def serve(pipe, model, files, journal, place=None) -> None:
  """A server's process, until the other end of the pipe is closed; sends its address."""
  with pytest.MonkeyPatch.context() as patch, dying(sigkill('server', place)):
    journals.Journal(journal).watch(patch)
    with servers.Server(model, context=tls.server_context(*files), timeout=20) as server:
      pipe.send(server.address)
      with contextlib.suppress(EOFError):
        pipe.recv()


def infer(pipe, address, authority, directory, journal, images, place=None) -> None:
  """A client's process: prepares until there are three, infers.

  Sends how many were left from its last life, and logits; or the error that it ends with.
  """
  with pytest.MonkeyPatch.context() as patch, dying(sigkill('client', place)):
    journals.Journal(journal).watch(patch)
    context = tls.client_context(authority)
    try:
      with clients.Client(*address, context=context, directory=directory, timeout=20) as client:
        left = client.prepared
        client.prepare(max(0, 3 - left))
        pipe.send((left, client.infer(images)))
    except ProtocolError as error:
      pipe.send(error)

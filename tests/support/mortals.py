"""Parties that die before the message of one's choice, in this process or with their own."""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal

import pytest

from safenet_jax.transport import channel as channels
from safenet_jax.transport import listener
from safenet_jax.transport.channel import Channel

# Called with the channel, how many messages were sent and received on it, which of the two
# comes next, and the tag.
Death = Callable[[Channel, int, str, str], None]


class KilledError(Exception):
  """What a party ends with that is killed in this process."""


def alive(channel: Channel, count: int, operation: str, tag: str) -> None:
  del channel, count, operation, tag


def before(party: str, number: int) -> Death:
  """The death of a party before its n-th message in this process: its socket is gone."""

  def die(channel, count, operation, tag):
    if channel.party == party and count == number:
      channel.abort('killed')
      raise KilledError(f'{party} before it could {operation} {tag}')

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

"""The first messages of a session: versions, what the client has, and what is served.

            client                             server
              ------- protocol version -------->        refuses another one
              ------- hello: owner, token,
                      claims ------------------>        grants preparations
              <------ description, answers -----
  refuses another model
              ------- model id, mode ---------->        goes on

A party that refuses sends the reason in one line, and raises it as an error. The
other party then raises that line too. The version has a message of its own, which is the
same in all versions: so each of them refuses the others in one line.

All that the client says here are random names, which tell nothing about an image. The
server sends what is public, and which of the claims it grants. Claims and answers are part
of messages that are sent anyway: no inference waits for them.
"""

from collections.abc import Callable, Sequence
import dataclasses
import struct
import time
from typing import NamedTuple

from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.protocol.delphi.message_shapes import ID_BYTES
from safenet_jax.protocol.service import description
from safenet_jax.protocol.service.description import Description, Expectation
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError

# The version of the messages that follow. Frames have a version of their own.
PROTOCOL_VERSION = 7
# The most preparations that a client asks for as it connects.
MAX_CLAIMS = 4096
# What the server says to a claim, one byte each. It knows no such preparation: it was used, is
# too old, or was made before a restart. It may be used in this connection. It is there, but now
# for somebody else. This process does not know it, and another one at the same port may.
UNKNOWN, GRANTED, HELD, ELSEWHERE = range(4)
_VERSION = struct.Struct('!I')
# A ResNet's description takes about 20 kB.


class OtherModelError(ProtocolError):
  """The server serves something else than the client insists on."""


class Hello(NamedTuple):
  """What a client says about itself.

  owner: 16 random bytes that a client draws as it starts, and never stores. Preparations
    belong to it, and so to all of its connections. A client that runs on a copy of the same
    directory is another owner.
  token: 16 random bytes that lie in the client's directory, so that its preparations are
    kept while it is not connected; None for a client without one.
  claims: identifiers of preparations in that directory, at most `MAX_CLAIMS`.
  """

  owner: bytes
  token: bytes | None = None
  claims: Sequence[bytes] = ()

  def encode(self) -> bytes:
    """Bytes for the wire."""
    return b''.join((self.owner, *([self.token] if self.token else ()), *self.claims))

  @classmethod
  def decode(cls, raw: bytes) -> 'Hello':
    """The inverse of `encode`; ProtocolError where it makes no sense."""
    if not raw or len(raw) % ID_BYTES:
      raise ProtocolError(f'a hello of {len(raw)} bytes, want names of {ID_BYTES} bytes each')
    owner, *rest = (raw[i : i + ID_BYTES] for i in range(0, len(raw), ID_BYTES))
    return cls(owner, rest[0] if rest else None, rest[1:])


class Welcome(NamedTuple):
  """What a client is told: what is served, and one of the answers above for each claim.

  round_trip: seconds that the answer took to come.
  """

  description: Description
  answers: bytes
  round_trip: float = 0.0


def client(
  channel: Channel,
  expected: Expectation | None = None,
  hello: Hello | None = None,
  choose: Callable[[Welcome], str] | None = None,
) -> Welcome:
  """The client's side.

  Args:
    channel: to the server.
    expected: what the client insists on; by default it takes any model.
    hello: what it says about itself; by default it is a new owner without claims.
    choose: gives the mode, of those that the description offers; by default the server's first.

  Returns:
    What the server said; the description's mode is the chosen one.

  Raises:
    ProtocolError: the server refused, or its description makes no sense.
    OtherModelError: it serves something else than what was expected.
  """
  hello = hello or Hello(SystemRandomness().bytes(ID_BYTES))
  with channel.scope(phase='handshake', layer='session', primitive='handshake'):
    channel.send('hello', _VERSION.pack(PROTOCOL_VERSION))
    channel.send('claims', hello.encode())
    begun = time.monotonic()
    count = len(hello.claims)
    raw = channel.receive_bytes('description', description.MAX_BYTES + count)
    round_trip = time.monotonic() - begun
    end = len(raw) - count
    answers = raw[max(0, end) :]
    try:
      if end < 0 or not set(answers) <= {UNKNOWN, GRANTED, HELD, ELSEWHERE}:
        raise ProtocolError(f'no answers to {count} claims')
      found = description.decode(raw[:end])
    except ProtocolError as error:
      channel.refuse(str(error))
      raise
    reason = expected.mismatch(found) if expected is not None else None
    if reason is not None:
      channel.refuse(reason)
      raise OtherModelError(f'the server has {reason}')
    welcome, choices = Welcome(found, answers, round_trip), found.choices or (found.mode,)
    if choose is not None:
      mode = choose(welcome)
      welcome = welcome._replace(description=dataclasses.replace(found, mode=mode))
    channel.send('accept', found.model_id, bytes([choices.index(welcome.description.mode)]))
    return welcome


def _know_nothing(hello: Hello) -> bytes:
  return bytes([UNKNOWN] * len(hello.claims))


def server(
  channel: Channel, served: Description, claim: Callable[[Hello], bytes] = _know_nothing
) -> str:
  """The server's side; gives the mode that the client chose.

  Args:
    channel: to the client.
    served: what is served.
    claim: called with what the client says about itself; gives the answers to its claims.

  Raises:
    ProtocolError: one of the two refuses.
  """
  with channel.scope(phase='handshake', layer='session', primitive='handshake'):
    (version,) = _VERSION.unpack(*channel.receive('hello', [(bytes, (_VERSION.size,))]))
    if version != PROTOCOL_VERSION:
      reason = f'protocol version {version}, want {PROTOCOL_VERSION}'
      channel.refuse(reason)
      raise ProtocolError(f'the client has {reason}')
    hello = Hello.decode(channel.receive_bytes('claims', ID_BYTES * (2 + MAX_CLAIMS)))
    channel.send('description', description.encode(served) + claim(hello))
    parts = [(bytes, (len(served.model_id),)), (bytes, (1,))]
    accepted, (index,) = channel.receive('accept', parts)
    if accepted != served.model_id:
      raise ProtocolError('the client accepted another model')
    choices = served.choices or (served.mode,)
    if index >= len(choices):
      raise ProtocolError(f'the client chose mode {index} of {len(choices)}')
    return choices[index]

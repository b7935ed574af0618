"""The first messages of a session: versions, and what is served.

            client                             server
              ------- protocol version -------->        refuses another one
              <------ description --------------
  refuses another model
              ------- model id ---------------->        goes on

A party that refuses sends the reason in one line, and raises it as an error. The
other party then raises that line too. The client sends nothing of its own, and the
server sends only what is public.
"""

import struct

from safenet_jax.protocol.service import description
from safenet_jax.protocol.service.description import Description, Expectation
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError

# The version of the messages that follow. Frames have a version of their own.
PROTOCOL_VERSION = 3
_VERSION = struct.Struct('!I')
# A ResNet's description takes about 20 kB.
_MAX_DESCRIPTION = 1 << 20


def client(channel: Channel, expected: Expectation | None = None) -> Description:
  """The client's side.

  Args:
    channel: to the server.
    expected: what the client insists on; by default it takes any model.

  Returns:
    The description of what the server serves.

  Raises:
    ProtocolError: the server refused, or serves something else, or its description
      makes no sense.
  """
  with channel.scope(phase='handshake', layer='session', primitive='handshake'):
    channel.send('hello', _VERSION.pack(PROTOCOL_VERSION))
    raw = channel.receive_bytes('description', _MAX_DESCRIPTION)
    try:
      found = description.decode(raw)
    except ProtocolError as error:
      channel.refuse(str(error))
      raise
    reason = expected.mismatch(found) if expected is not None else None
    if reason is not None:
      channel.refuse(reason)
      raise ProtocolError(f'the server has {reason}')
    channel.send('accept', found.model_id)
    return found


def server(channel: Channel, served: Description) -> None:
  """The server's side; ProtocolError where one of the two refuses."""
  with channel.scope(phase='handshake', layer='session', primitive='handshake'):
    (hello,) = channel.receive('hello', [(bytes, (_VERSION.size,))])
    (version,) = _VERSION.unpack(hello)
    if version != PROTOCOL_VERSION:
      reason = f'protocol version {version}, want {PROTOCOL_VERSION}'
      channel.refuse(reason)
      raise ProtocolError(f'the client has {reason}')
    channel.send('description', description.encode(served))
    (accepted,) = channel.receive('accept', [(bytes, (len(served.model_id),))])
    if accepted != served.model_id:
      raise ProtocolError('the client accepted another model')

"""The commands that a client sends to its session on the server, one small frame each."""

from collections.abc import Sequence
import dataclasses
import struct

from safenet_jax.protocol.delphi import progress
from safenet_jax.protocol.delphi.message_shapes import ID_BYTES
from safenet_jax.protocol.layers.structure import OUTPUTS
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError

PREPARE, RESUME, INFER, GOODBYE = b'P', b'R', b'I', b'Q'
# The most images of one command. This limits what both parties hold at once.
MAX_IMAGES = 256
# Bytes of each identifier.
_SIZES = {INFER: ID_BYTES, RESUME: progress.BYTES}
# Kind, output, count.
_HEAD = struct.Struct('!ccI')
_LETTERS = dict(zip(OUTPUTS, (b'L', b'C', b'K'), strict=True))
_NAMES = {letter: name for name, letter in _LETTERS.items()}


@dataclasses.dataclass(frozen=True)
class Command:
  """What the client asks for.

  kind: PREPARE, RESUME, INFER or GOODBYE.
  count: of images to prepare, to go on with, or to infer.
  identifiers: of the preparations that INFER uses, one for each image; for RESUME what it says
    of each image (`progress.Begun`), encoded.
  output: what the inferences are for, of `structure.OUTPUTS`.
  """

  kind: bytes
  count: int = 0
  identifiers: Sequence[bytes] = ()
  output: str = OUTPUTS[0]


def send(channel: Channel, command: Command) -> None:
  """Sends a command. There is no reply of its own: what was asked for begins."""
  head = _HEAD.pack(command.kind, _LETTERS[command.output], command.count)
  with channel.scope(phase='session', layer='session', primitive='command'):
    channel.send('command', head + b''.join(command.identifiers))


def receive(channel: Channel, idle: float) -> Command:
  """The next command, for which the client has `idle` seconds more than for other messages.

  Raises:
    ProtocolError: none came in time, or what came is not a command.
  """
  with channel.scope(phase='session', layer='session', primitive='command'):
    raw = channel.receive_bytes(
      'command', _HEAD.size + max(_SIZES.values()) * MAX_IMAGES, idle=idle
    )
  if len(raw) < _HEAD.size:
    raise ProtocolError(f'a command of {len(raw)} bytes')
  kind, letter, count = _HEAD.unpack_from(raw)
  rest = raw[_HEAD.size :]
  size = _SIZES.get(kind, 0)
  if kind not in (PREPARE, RESUME, INFER, GOODBYE) or len(rest) != size * count:
    raise ProtocolError(f'a command {kind!r} for {count} images in {len(raw)} bytes')
  if letter not in _NAMES:
    raise ProtocolError(f'a command for output {letter!r}')
  if kind != GOODBYE and not 1 <= count <= MAX_IMAGES:
    raise ProtocolError(f'a command for {count} images, want 1 to {MAX_IMAGES}')
  identifiers = [rest[i : i + size] for i in range(0, len(rest), size or 1)]
  return Command(kind, count, identifiers, _NAMES[letter])

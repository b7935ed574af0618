"""What a message looks like on the wire; nothing here touches a socket.

  magic, version, header length, payload length     16 bytes, big-endian
  header      msgpack [tag, [[dtype, [dimension, ...]], ...]], in its one shortest form
  payload     the arrays one after another, C order, little-endian

A receiver says beforehand which parts it expects. So sizes are checked before a byte of the
payload is read. An array's type is 'bytes' or an integer type, since the protocol computes
with nothing else.
"""

from collections.abc import Callable, Iterable, Sequence
import math
import struct
from typing import Any, NamedTuple

import msgpack
import numpy as np

PREFIX = struct.Struct('!4sHHQ')
_MAGIC = b'SNjx'
_VERSION = 1
# A frame's header is a few dozen bytes; this is room for some hundred parts.
MAX_HEADER = 4096
_MAX_TAG = 64
_MAX_DIMENSIONS = 8
_BYTES = 'bytes'
_DTYPES = {
  np.dtype(f'<{kind}{size}').name: np.dtype(f'<{kind}{size}')
  for kind in 'ui'
  for size in (1, 2, 4, 8)
}


class ProtocolError(Exception):
  """The peer, or the connection to it, did not do what the protocol says; one line."""


def checked(function: Callable, *args: Any, **options: Any) -> Any:
  """Calls a function with what the peer sent.

  A ValueError is the peer's fault then, and is raised as a ProtocolError.
  """
  try:
    return function(*args, **options)
  except ValueError as error:
    raise ProtocolError(str(error)) from None


class Part(NamedTuple):
  """Type and shape of one array of a message; `dtype` is 'bytes' or an integer type's name."""

  dtype: str
  shape: tuple[int, ...]

  @property
  def size(self) -> int:
    """Bytes on the wire."""
    width = 1 if self.dtype == _BYTES else _DTYPES[self.dtype].itemsize
    return math.prod(self.shape) * width

  def empty(self) -> np.ndarray:
    """An array to read the part into."""
    return np.empty(self.shape, _DTYPES.get(self.dtype, np.dtype(np.uint8)))

  def value(self, array: np.ndarray) -> np.ndarray | bytes:
    """What the receiver is given for an array that was read."""
    return array.tobytes() if self.dtype == _BYTES else array


class Header(NamedTuple):
  """What a frame says about its payload, before it."""

  tag: str
  parts: tuple[Part, ...]

  @property
  def size(self) -> int:
    """Bytes of the payload."""
    return sum(part.size for part in self.parts)


def expect(tag: str, parts: Iterable[tuple]) -> Header:
  """The header of the message that a receiver waits for.

  Args:
    tag: its name.
    parts: (dtype, shape) of every array; the dtype `bytes` has shape (length,).

  Raises:
    ValueError: a type that is not sent, or a tag that is too long.
  """
  return Header(
    _tag(tag), tuple(Part(_name(dtype), tuple(int(n) for n in shape)) for dtype, shape in parts)
  )


def wire_size(header: Header) -> int:
  """Bytes of a whole message."""
  return PREFIX.size + len(msgpack.packb(header)) + header.size


def encode(tag: str, values: Sequence) -> tuple[Header, bytes, list[memoryview]]:
  """A message's header, its first bytes, and views of its payload.

  Contiguous little-endian arrays are not copied.

  Raises:
    ValueError: a value that is neither bytes nor an array of integers.
  """
  arrays, parts = [], []
  for value in values:
    if isinstance(value, (bytes, bytearray, memoryview)):
      array, name = np.frombuffer(value, np.uint8), _BYTES
    else:
      name = _name(getattr(value, 'dtype', None))
      array = np.asarray(value, _DTYPES[name], order='C')
    arrays.append(array)
    parts.append(Part(name, array.shape))
  header = Header(_tag(tag), tuple(parts))
  packed = msgpack.packb(header)
  if len(packed) > MAX_HEADER:
    raise ValueError(f'{len(parts)} parts in one message, want a header up to {MAX_HEADER} bytes')
  first = PREFIX.pack(_MAGIC, _VERSION, len(packed), header.size) + packed
  return header, first, [view(array) for array in arrays if array.size]


def view(array: np.ndarray) -> memoryview:
  """The bytes of a contiguous array, not copied."""
  return array.reshape(-1).view(np.uint8).data


def decode_prefix(raw: bytes) -> tuple[int, int]:
  """(header length, payload length) that a frame's first 16 bytes announce, or ProtocolError."""
  magic, version, header, payload = PREFIX.unpack(raw)
  if magic != _MAGIC:
    raise ProtocolError('the peer does not speak this protocol: no frame where one has to begin')
  if version != _VERSION:
    raise ProtocolError(f'the peer sends frames of version {version}, want {_VERSION}')
  if not 1 <= header <= MAX_HEADER:
    raise ProtocolError(f'a frame with a header of {header} bytes, want 1 to {MAX_HEADER}')
  return header, payload


def decode_header(raw: bytes, payload: int) -> Header:
  """The header that a peer sent.

  Args:
    raw: its bytes.
    payload: how many bytes of payload the frame's first 16 bytes announced.

  Raises:
    ProtocolError: it is no header, or its parts do not take that many bytes.
  """
  try:
    found = msgpack.unpackb(raw, use_list=False)
    tag, parts = found
    header = Header(tag, tuple(Part(dtype, shape) for dtype, shape in parts))
  # ValueError is the base of msgpack's own errors, and of wrong UTF-8.
  except (ValueError, TypeError, RecursionError):
    raise ProtocolError('a frame whose header is not [tag, [[dtype, shape], ...]]') from None
  if not isinstance(tag, str) or len(tag) > _MAX_TAG:
    raise ProtocolError(f'a frame without a tag of at most {_MAX_TAG} characters')
  for dtype, shape in header.parts:
    if not isinstance(dtype, str) or (dtype != _BYTES and dtype not in _DTYPES):
      raise ProtocolError(f'a frame of dtype {printable(dtype)}, want integers or bytes')
    if (
      not isinstance(shape, tuple)
      or len(shape) > _MAX_DIMENSIONS
      or any(type(n) is not int or n < 0 for n in shape)
      or (dtype == _BYTES and len(shape) != 1)
    ):
      raise ProtocolError(f'a frame of shape {printable(shape)}')
  if msgpack.packb(header) != raw:
    raise ProtocolError('a frame whose header is not in its shortest form')
  if header.size != payload:
    raise ProtocolError(f'a frame of {payload} bytes whose header announces {header.size}')
  return header


def check(found: Header, wanted: Header) -> None:
  """ProtocolError where a peer announces another message than the one that is due."""
  if found.tag != wanted.tag:
    raise ProtocolError(f'got message {printable(found.tag)}, want {wanted.tag!r}')
  if found.parts != wanted.parts:
    raise ProtocolError(f'message {wanted.tag!r} has {_parts(found)}, want {_parts(wanted)}')


def printable(value, limit: int = 200) -> str:
  """Something that a peer sent, as a bounded line of printable ASCII."""
  try:
    text = value if isinstance(value, str) else repr(value)
  except RecursionError:
    text = 'something nested too deeply'
  text = ''.join(c if ' ' <= c <= '~' else '?' for c in text[: limit + 1])
  return text if len(text) <= limit else text[: limit - 3] + '...'


def _parts(header: Header) -> str:
  return printable(' '.join(f'{dtype}{list(shape)}' for dtype, shape in header.parts) or 'nothing')


def _tag(tag: str) -> str:
  if not 0 < len(tag) <= _MAX_TAG:
    raise ValueError(f'tag {tag!r}, want 1 to {_MAX_TAG} characters')
  return tag


def _name(dtype) -> str:
  if dtype is bytes or dtype == _BYTES:
    return _BYTES
  name = 'none' if dtype is None else np.dtype(dtype).name
  if name not in _DTYPES:
    raise ValueError(f'dtype {name}, want bytes or one of {", ".join(_DTYPES)}')
  return name

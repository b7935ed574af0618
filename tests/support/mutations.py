"""Recorded messages, changed: in their payload, which keeps its size, or in their structure."""

from collections.abc import Callable, Sequence
import random
import struct

import msgpack

from safenet_jax.transport import frames

_NUMBERS = (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 2061584302081, 1125844072267777)


def payload(rng: random.Random, frame: bytes, donors: Sequence[bytes]) -> bytes:
  """The frame with something else in one of its parts; small parts are as likely as large ones."""
  start, sizes = _parts(frame)
  filled = [i for i, size in enumerate(sizes) if size]
  if not filled:
    return structure(rng, frame, donors)
  part = rng.choice(filled)
  first = start + sum(sizes[:part])
  end = first + sizes[part]
  while True:
    changed = bytearray(frame)
    changed[first:end] = rng.choice(_PAYLOADS)(rng, changed[first:end], donors)
    assert len(changed) == len(frame)
    if changed != frame:
      return bytes(changed)


def structure(rng: random.Random, frame: bytes, donors: Sequence[bytes]) -> bytes:
  """What no honest peer would send in this place, whatever its payload is."""
  while True:
    changed = rng.choice(_STRUCTURES)(rng, frame, donors)
    if changed != frame:
      return changed


def _parts(frame: bytes) -> tuple[int, list[int]]:
  length, size = frames.decode_prefix(frame[: frames.PREFIX.size])
  start = frames.PREFIX.size + length
  header = frames.decode_header(frame[frames.PREFIX.size : start], size)
  return start, [part.size for part in header.parts]


def _flip(rng, data, donors):
  del donors
  for _ in range(rng.choice((1, 1, 2, 8))):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  return data


def _fill(rng, data, donors):
  del donors
  first, end = _run(rng, len(data))
  data[first:end] = rng.choice((bytes(1), b'\xff', rng.randbytes(1))) * (end - first)
  return data


def _noise(rng, data, donors):
  del donors
  first, end = _run(rng, len(data))
  data[first:end] = rng.randbytes(end - first)
  return data


def _blank(rng, data, donors):
  """All alike, perhaps after what may be an identifier."""
  del donors
  kept = rng.choice((0, 16, 32))
  data[kept:] = rng.choice((b'\0', b'\xff')) * len(data[kept:])
  return data


def _number(rng, data, donors):
  del donors
  if len(data) < 8:
    return _flip(rng, data, None)
  at = rng.randrange(len(data) // 8) * 8
  (value,) = struct.unpack_from('<Q', data, at)
  new = rng.choice((*_NUMBERS, (value + 1) % (1 << 64), (value - 1) % (1 << 64)))
  struct.pack_into('<Q', data, at, new)
  return data


def _swap(rng, data, donors):
  del donors
  size = min(rng.choice((1, 8, 16, 32)), len(data) // 2)
  one, other = (rng.randrange(len(data) - size + 1) for _ in range(2))
  data[one : one + size], data[other : other + size] = (
    data[other : other + size],
    data[one : one + size],
  )
  return _flip(rng, data, None) if rng.random() < 0.1 else data


def _transplant(rng, data, donors):
  donor = rng.choice(donors)
  first, end = _run(rng, min(len(data), len(donor)))
  at = rng.randrange(len(donor) - (end - first) + 1)
  data[first:end] = donor[at : at + end - first]
  return data


def _run(rng, size):
  length = min(size, rng.choice((1, 2, 4, 8, 16, 32, 256, 4096, size)))
  first = rng.randrange(size - length + 1)
  return first, first + length


_PAYLOADS: tuple[Callable, ...] = (_flip, _flip, _fill, _noise, _blank, _number, _swap, _transplant)


def _bad_prefix(rng, frame, donors):
  del donors
  changed = bytearray(frame)
  changed[rng.randrange(frames.PREFIX.size)] ^= 1 << rng.randrange(8)
  return bytes(changed)


def _bad_header(rng, frame, donors):
  del donors
  changed, (start, _) = bytearray(frame), _parts(frame)
  changed[rng.randrange(frames.PREFIX.size, start)] ^= 1 << rng.randrange(8)
  return bytes(changed)


def _lying_header(rng, frame, donors):
  """Well made, of another tag, type or shape."""
  start, _ = _parts(frame)
  tag, parts = msgpack.unpackb(frame[frames.PREFIX.size : start])
  lie = rng.randrange(4) if parts else 0
  if lie == 0:
    tag = rng.choice((tag + 'x', '', 'refused', _tag(rng.choice(donors))))
  elif lie == 1:
    rng.choice(parts)[0] = rng.choice(('uint8', 'uint64', 'int64', 'bytes', 'float64', 'object'))
  elif lie == 2:
    shape = rng.choice(parts)[1]
    value = rng.choice((0, 1, -1, 1 << 20, 1 << 63, 1 << 40))
    shape[rng.randrange(len(shape))] = value
  else:
    parts[:] = rng.choice((parts[:-1], parts * 2, parts[::-1]))
  packed = msgpack.packb([tag, parts])
  size = len(frame) - start
  if rng.random() < 0.5:  # a length that fits, so that the header alone is wrong
    size = max(0, sum(_size(*part) for part in parts))
  return _frame(packed, min(size, (1 << 64) - 1), frame[start:])


def _size(dtype, shape):
  width = {'uint64': 8, 'int64': 8, 'float64': 8, 'uint32': 4}.get(dtype, 1)
  for n in shape:
    width *= n
  return width


def _garbage_header(rng, frame, donors):
  del donors
  start, _ = _parts(frame)
  packed = rng.choice(
    (
      rng.randbytes(rng.randrange(1, 200)),
      b'\x91' * rng.randrange(1, 4096),
      msgpack.packb({'tag': []}),
      msgpack.packb(None),
    )
  )
  return _frame(packed, len(frame) - start, frame[start:])


def _frame(packed, size, rest):
  return frames.PREFIX.pack(b'SNjx', 1, len(packed), size) + packed + rest


def _lying_length(rng, frame, donors):
  del donors
  magic, version, header, size = frames.PREFIX.unpack_from(frame)
  lies = (0, size - 1, size + 1, size + 8, 1 << 40, (1 << 64) - 1)
  size = rng.choice([lie for lie in lies if lie >= 0])
  return frames.PREFIX.pack(magic, version, header, size) + frame[frames.PREFIX.size :]


def _cut(rng, frame, donors):
  del donors
  return frame[: rng.randrange(len(frame))] or b'\0'


def _garbage(rng, frame, donors):
  del frame, donors
  return rng.randbytes(rng.choice((1, 16, 100, 5000)))


def _other(rng, frame, donors):
  del frame
  return rng.choice(donors)


def _refusal(rng, frame, donors):
  del frame, donors
  _, first, rest = frames.encode('refused', [rng.randbytes(rng.choice((0, 10, 200, 201)))])
  return first + b''.join(rest)


def _tag(frame):
  start, _ = _parts(frame)
  return msgpack.unpackb(frame[frames.PREFIX.size : start])[0]


_STRUCTURES: tuple[Callable, ...] = (
  _bad_prefix,
  _bad_header,
  _lying_header,
  _lying_header,
  _garbage_header,
  _lying_length,
  _cut,
  _garbage,
  _other,
  _refusal,
)

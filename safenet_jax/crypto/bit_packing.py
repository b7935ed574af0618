"""Values of any number of bits as bytes, without gaps between them.

A value of 41 bits, say, has five whole bytes, and one bit is left over. The whole bytes of all
values come first, column after column. The bits that are left over come after them, those of
eight values at a time, so that each lot of eight ends on a whole byte.
"""

import functools

import numpy as np


def size(count: int, bits: int) -> int:
  """Bytes that `count` values of `bits` bits take; left-over bits are sent for lots of eight."""
  return count * (bits // 8) + -(-count // 8) * (bits % 8)


def _columns(values: np.ndarray, bits: int) -> list[np.ndarray]:
  """Views of the whole bytes of [n] values of `bits` bits: columns of 8, 4, 2 or 1 bytes."""
  columns, start = [], 0
  for width in (8, 4, 2, 1):
    if bits // 8 & width:
      columns.append(values.view(f'<u{width}')[start // width :: 8 // width])
      start += width
  return columns


@functools.cache
def _fields(bits: int) -> list[tuple[int, int, int]]:
  """The three steps that close the gaps between eight fields of `bits` bits, one in each byte.

  The first step joins fields to pairs, the second pairs to fours, the third fours to all
  eight. A step is the mask of what stays in place, the mask of what moves (after its move),
  and how many bits it moves by.
  """
  steps = []
  for fields in (1, 2, 4):
    width, span = bits * fields, 8 * fields
    low = sum((1 << width) - 1 << 2 * span * k for k in range(4 // fields))
    steps.append((low, low << width, span - width))
  return steps


def pack(values: np.ndarray, bits: int) -> bytes:
  """uint64 values below 2^bits as bytes: the whole bytes of all, then all bits left over."""
  flat = np.ascontiguousarray(values, '<u8').reshape(-1)
  packed = b''.join(column.tobytes() for column in _columns(flat, bits))
  whole, rest = divmod(bits, 8)
  if not rest:
    return packed
  lots = np.zeros(-(-flat.size // 8), '<u8')
  lots.view(np.uint8)[: flat.size] = flat.view(np.uint8)[whole::8]
  for low, high, shift in _fields(rest):
    lots = (lots & low) | (lots >> shift & high)
  return packed + lots.view(np.uint8).reshape(-1, 8)[:, :rest].tobytes()


def unpack(data: bytes, count: int, bits: int) -> np.ndarray:
  """The inverse of `pack`: `count` uint64 values.

  Raises:
    ValueError: the length of `data` is not `size(count, bits)`.
  """
  if len(data) != size(count, bits):
    raise ValueError(f'{len(data)} bytes, want {size(count, bits)}')
  values = np.zeros(count, '<u8')
  start = 0
  for column in _columns(values, bits):
    column[:] = np.frombuffer(data, column.dtype, count, start)
    start += column.itemsize * count
  whole, rest = divmod(bits, 8)
  if rest:
    lots = np.zeros(-(-count // 8), '<u8')
    octets = np.frombuffer(data, np.uint8, offset=start)
    lots.view(np.uint8).reshape(-1, 8)[:, :rest] = octets.reshape(-1, rest)
    for low, high, shift in reversed(_fields(rest)):
      lots = (lots & low) | ((lots & high) << shift)
    values.view(np.uint8)[whole::8] = lots.view(np.uint8)[:count]
  return values

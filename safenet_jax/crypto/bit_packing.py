"""Values of any number of bits as bytes, without gaps between them.

First come the whole bytes of all values, column after column, then the bits that are left
over, of eight values at a time.
"""

import functools

import numpy as np


def size(count: int, bits: int) -> int:
  """Bytes that `count` values of `bits` bits take, in lots of eight values."""
  return count * (bits // 8) + -(-count // 8) * (bits % 8)


def _columns(values: np.ndarray, bits: int) -> list[np.ndarray]:
  """Views of the whole bytes of [n] values of `bits` bits, 8, 4, 2, 1 at a time."""
  columns, start = [], 0
  for width in (8, 4, 2, 1):
    if bits // 8 & width:
      columns.append(values.view(f'<u{width}')[start // width :: 8 // width])
      start += width
  return columns


@functools.cache
def _fields(bits: int) -> list[tuple[int, int, int]]:
  """Masks and shift of each halving that closes the gaps between 8 fields."""
  steps = []
  for fields in (1, 2, 4):
    width, span = bits * fields, 8 * fields
    low = sum((1 << width) - 1 << 2 * span * k for k in range(4 // fields))
    steps.append((low, low << width, span - width))
  return steps


def pack(values: np.ndarray, bits: int) -> bytes:
  """uint64 values below 2^bits as bytes: whole bytes, then all bits left over."""
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

"""Packed bits of a circuit's wires: a row for each wire, a bit for each instance.

uint8 [wires, instances / 8], the lowest bit of a byte first.
"""

import numpy as np


def decode(colours: np.ndarray, decoding: np.ndarray) -> np.ndarray:
  """Packed output values, uint8 [outputs, block / 8].

  ValueError for colours of another type or shape.
  """
  if colours.dtype != np.uint8 or colours.shape != decoding.shape:
    raise ValueError(f'colours are {colours.dtype} {colours.shape}, want uint8 {decoding.shape}')
  return colours ^ decoding


def pack(words: np.ndarray, width: int) -> np.ndarray:
  """The low `width` bits of words, uint64 [block]: uint8 [width, block / 8].

  ValueError for others.
  """
  if words.dtype != np.uint64 or words.ndim != 1 or words.size % 8 or not 1 <= width <= 64:
    raise ValueError(
      f'{width} bits of words {words.dtype} {words.shape}, want 1 to 64 of uint64 [8 n]'
    )
  packed = np.empty((width, words.size // 8), np.uint8)
  octets = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8)
  for position, row in enumerate(packed):
    if position % 8 == 0:
      octet = octets[:, position // 8].copy()
    row[...] = np.packbits(octet & np.uint8(1 << position % 8), bitorder='little')
  return packed


def unpack(packed: np.ndarray) -> np.ndarray:
  """The inverse of `pack`: uint8 [width, block / 8] to uint64 [block]; ValueError for others."""
  if packed.dtype != np.uint8 or packed.ndim != 2 or not 1 <= len(packed) <= 64:
    raise ValueError(f'bits are {packed.dtype} {packed.shape}, want uint8 [1 to 64, block / 8]')
  words = np.zeros(8 * packed.shape[1], np.uint64)
  octets = words.view(np.uint8).reshape(-1, 8)
  for start in range(0, len(packed), 8):
    octet = np.zeros(words.size, np.uint8)
    for position, row in enumerate(packed[start : start + 8]):
      octet |= np.unpackbits(row, bitorder='little') << np.uint8(position)
    octets[:, start // 8] = octet
  return words

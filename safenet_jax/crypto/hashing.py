"""A hash of wire labels that stays one-way under offsets by delta.

The two labels of a wire are x and x xor delta, for a secret delta that all wires
share. The hash of a label x is

    H(x) = AES-XTS_K(x) xor sigma(x),  sigma(x) = (x << 1) xor (x >> 1),

where K is a key, the XTS tweak is the row number, and sigma works on each 64-bit
lane. Both sigma and `sigma + identity` are invertible (sigma is a linear
orthomorphism), which is what keeps `H(x)` and `H(x xor delta)` unrelated for a
secret delta (eprint 2019/074). The key is public but fresh: at most 2^14 rows are
hashed under one key, so that guessing a label costs about 2^112 work.
"""

from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np

MAX_ROWS = 1 << 14
KEY_BYTES = 32

_ONE = np.uint64(1)


def sigma(words: np.ndarray) -> np.ndarray:
  """`(x << 1) xor (x >> 1)` of every uint64 word."""
  return (words << _ONE) ^ (words >> _ONE)


def hash_labels(labels: np.ndarray, key: bytes) -> np.ndarray:
  """Hashes 128-bit labels to 64-bit words.

  Args:
    labels: uint64 [n, 2], 1 <= n <= 2^14, low word first.
    key: 32 bytes, uniform, public, never used for other labels.

  Returns:
    uint64 [n], the low words of `H`. The row number enters the hash, so equal
    labels in different rows hash differently.

  Raises:
    ValueError: labels or a key of another type or size.
  """
  if labels.dtype != np.uint64 or labels.ndim != 2 or labels.shape[1] != 2:
    raise ValueError(f'labels are {labels.dtype} {labels.shape}, want uint64 [n, 2]')
  rows = len(labels)
  if not 1 <= rows <= MAX_ROWS:
    raise ValueError(f'{rows} labels under one key, want 1 to {MAX_ROWS}')
  if len(key) != KEY_BYTES:
    raise ValueError(f'hash key of {len(key)} bytes, want {KEY_BYTES}')
  plain = np.ascontiguousarray(labels).reshape(-1).view(np.uint8)
  cipher = np.empty(plain.size + 15, np.uint8)
  # One update for all rows: a second one would start the tweaks again.
  encryptor = Cipher(algorithms.AES(key), modes.XTS(bytes(16))).encryptor()
  encryptor.update_into(plain.data, cipher.data)
  hashed = cipher[: plain.size].view(np.uint64)[0::2]
  return hashed ^ sigma(labels[:, 0])


def expand_keys(seed: bytes) -> Iterator[bytes]:
  """Public keys without end from a public seed of 16 bytes, uniform and never used before."""
  stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
  while True:
    yield stream.update(bytes(KEY_BYTES))

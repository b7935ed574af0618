"""The label hash: against a slow reference, and what its proof needs."""

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np
import pytest

from safenet_jax.crypto import hashing

KEY = bytes(range(32))


def reference(labels, key):
  """AES-XTS from AES in ECB mode, block by block (IEEE 1619)."""
  data = Cipher(algorithms.AES(key[:16]), modes.ECB()).encryptor()
  tweak = Cipher(algorithms.AES(key[16:]), modes.ECB()).encryptor()
  mask = int.from_bytes(tweak.update(bytes(16)), 'little')
  out = []
  for label in labels:
    value = int.from_bytes(label.tobytes(), 'little')
    block = data.update((value ^ mask).to_bytes(16, 'little'))
    hashed = int.from_bytes(block, 'little') ^ mask
    low = value % 2**64
    out.append((hashed ^ (low << 1) ^ (low >> 1)) % 2**64)
    mask <<= 1
    if mask >> 128:
      mask ^= (1 << 128) | 0x87
  return np.array(out, np.uint64)


def rank(rows):
  """The rank over GF(2) of a matrix given as integers."""
  found = 0
  rows = list(rows)
  while rows:
    pivot = rows.pop()
    if pivot:
      found += 1
      low = pivot & -pivot
      rows = [row ^ pivot if row & low else row for row in rows]
  return found


def test_hash_is_xts_plus_sigma_row_by_row():
  labels = np.random.default_rng(0).integers(0, 2**64, (300, 2), np.uint64, endpoint=False)
  got = hashing.hash_labels(labels, KEY)
  assert got.dtype == np.uint64
  np.testing.assert_array_equal(got, reference(labels, KEY))


def test_a_key_serves_16384_labels():
  assert hashing.MAX_ROWS == 1 << 14  # with which finding delta takes 2^112 work
  with pytest.raises(ValueError, match='want 1 to 16384'):
    hashing.hash_labels(np.zeros(((1 << 14) + 1, 2), np.uint64), KEY)


def test_hash_takes_a_strided_view():
  labels = np.random.default_rng(1).integers(0, 2**63, (40, 4), np.uint64)
  view = labels[::2, 1:3]
  np.testing.assert_array_equal(hashing.hash_labels(view, KEY), reference(view, KEY))


def test_equal_labels_in_different_rows_hash_differently():
  labels = np.full((hashing.MAX_ROWS, 2), 7, np.uint64)
  assert len(np.unique(hashing.hash_labels(labels, KEY))) == hashing.MAX_ROWS


def test_sigma_is_a_linear_orthomorphism():
  basis = np.uint64(1) << np.arange(64, dtype=np.uint64)
  image = hashing.sigma(basis)
  assert rank(int(word) for word in image) == 64
  assert rank(int(word) for word in image ^ basis) == 64
  words = np.random.default_rng(2).integers(0, 2**63, (2, 100), np.uint64)
  np.testing.assert_array_equal(
    hashing.sigma(words[0] ^ words[1]),
    hashing.sigma(words[0]) ^ hashing.sigma(words[1]),
  )


@pytest.mark.parametrize(
  'labels, key',
  [
    (np.zeros((hashing.MAX_ROWS + 1, 2), np.uint64), KEY),
    (np.zeros((0, 2), np.uint64), KEY),
    (np.zeros((4, 3), np.uint64), KEY),
    (np.zeros(4, np.uint64), KEY),
    (np.zeros((4, 2), np.int64), KEY),
    (np.zeros((4, 2), np.uint64), KEY[:16]),
  ],
)
def test_hash_refuses_wrong_shapes_and_too_many_rows(labels, key):
  with pytest.raises(ValueError, match='want'):
    hashing.hash_labels(labels, key)

"""One gate against the paper's equations, with a slow independent hash."""

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import circuits, garbling, half_gates
from safenet_jax.crypto.randomness import InsecureSeededRandomness


def _encrypt_block(key, block):
  return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def _xts(key, tweak, data):
  """AES-128-XTS by its definition (IEEE 1619), from single AES blocks."""
  mask = int.from_bytes(_encrypt_block(key[16:], tweak), 'little')
  out = b''
  for start in range(0, len(data), 16):
    block = int.from_bytes(data[start : start + 16], 'little') ^ mask
    block = int.from_bytes(_encrypt_block(key[:16], block.to_bytes(16, 'little')), 'little') ^ mask
    out += block.to_bytes(16, 'little')
    mask = (mask << 1) ^ (mask >> 127) * ((1 << 128) | 0x87)
  return out


def _hash(key, labels):
  """XTS_K(x) ^ (x << 1) ^ (x >> 1): uint64 [n, 2]."""
  cipher = np.frombuffer(_xts(key, bytes(16), labels.tobytes()), np.uint64).reshape(-1, 2)
  lanes = [[(int(x) << 1 ^ int(x) >> 1) % 2**64 for x in label] for label in labels]
  return cipher ^ np.array(lanes, np.uint64)


def _encrypt(encryptor, data):
  out = np.empty(len(data) + 15, np.uint8)
  encryptor(np.frombuffer(data, np.uint8), out)
  return out[: len(data)].tobytes()


def test_the_reference_cipher_is_ieee_1619():
  # Vector 2 of the standard's appendix B.
  key = b'\x11' * 16 + b'\x22' * 16
  cipher = _xts(key, b'\x33' * 5 + bytes(11), b'\x44' * 32)
  assert cipher.hex() == 'c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0'


def test_a_second_call_restarts_the_tweaks():
  key, data = bytes(range(32)), bytes(range(64))
  encryptor = half_gates.encryptor(key)
  for _ in range(2):
    assert _encrypt(encryptor, data) == _xts(key, bytes(16), data)
  # So a tile that was split over two calls would repeat its tweaks.
  assert _encrypt(encryptor, data[:32]) + _encrypt(encryptor, data[:32]) == 2 * _xts(
    key, bytes(16), data[:32]
  )


def test_more_blocks_than_xts_allows_raise():
  encryptor = half_gates.encryptor(bytes(range(32)))
  with pytest.raises(ValueError, match='XTS'):
    _encrypt(encryptor, bytes(16 * (2**20 + 1)))


@pytest.mark.parametrize('invert_x', [False, True])
@pytest.mark.parametrize('invert_y', [False, True])
def test_an_and_is_two_half_gates(invert_x, invert_y):
  builder = circuits.Builder()
  x, y = (*builder.input('x', 1), *builder.input('y', 1))
  circuit = builder.build(
    [builder.and_(circuits.Wire(x.number, invert_x), circuits.Wire(y.number, invert_y))]
  )
  garbler = garbling.Garbler(circuit, 64, InsecureSeededRandomness(1))
  garbled, encoding = garbler.garble()
  delta = garbler.delta
  nothing = np.zeros((1, 8), np.uint8)
  a, b = encoding.labels('x', nothing)[0], encoding.labels('y', nothing)[0]
  # The label of value 0 of an inverted wire is that of value 1.
  a, b = a ^ delta * np.uint64(invert_x), b ^ delta * np.uint64(invert_y)

  key = Cipher(algorithms.AES(garbled.seed), modes.CTR(bytes(16))).encryptor().update(bytes(32))
  hash_a, hash_b = np.split(_hash(key, np.concatenate([a, b])), 2)
  other_a, other_b = np.split(_hash(key, np.concatenate([a ^ delta, b ^ delta])), 2)
  colour_a, colour_b = a[:, :1] & np.uint64(1), b[:, :1] & np.uint64(1)
  generator = hash_a ^ other_a ^ colour_b * delta
  evaluator = hash_b ^ other_b ^ a
  np.testing.assert_array_equal(garbled.tables[0], [generator, evaluator])

  zero = hash_a ^ colour_a * generator ^ hash_b ^ colour_b * (evaluator ^ a)
  colour = zero[:, :1] & np.uint64(1)
  np.testing.assert_array_equal(encoding.output_labels[0], zero ^ colour * delta)
  np.testing.assert_array_equal(
    np.unpackbits(encoding.decoding[0], bitorder='little'), colour[:, 0]
  )


def test_every_gate_of_every_tile_and_block_has_its_own_key(monkeypatch):
  keys, lengths = [], []
  encryptor = half_gates.encryptor

  def record(key):
    keys.append(key)
    encrypt = encryptor(key)
    return lambda data, out: lengths.append(data.size) or encrypt(data, out)

  monkeypatch.setattr(half_gates, 'encryptor', record)
  circuit, block = circuits.relu_sign(6), half_gates.TILE + 64
  garbler = garbling.Garbler(circuit, block, InsecureSeededRandomness(2))
  for _ in range(2):
    garbler.garble()
  assert len(keys) == len(set(keys)) == 2 * 2 * circuit.and_count
  # Both operands of a whole tile in one call, once for each label of the wires.
  for tile in (half_gates.TILE, 64):
    assert lengths.count(2 * 16 * tile) == 2 * 2 * circuit.and_count
  assert len(lengths) == 2 * len(keys)


def test_selection_reads_packed_bits_lowest_first():
  table = half_gates.selection_table(np.array([5, 6], np.uint64), np.array([1, 2], np.uint64))
  out = np.empty(32, np.uint64)
  half_gates.select(table, np.array([0b00000010, 0b10000000], np.uint8), out)
  labels = out.reshape(16, 2)
  assert [int(row) for row in np.flatnonzero((labels == [4, 4]).all(axis=1))] == [1, 15]
  assert (np.delete(labels, [1, 15], axis=0) == [5, 6]).all()


def test_colours_are_low_bits():
  labels = np.random.default_rng(0).integers(0, 2**63, (64, 2), np.uint64)
  packed = half_gates.colours(labels.reshape(-1))
  np.testing.assert_array_equal(np.unpackbits(packed, bitorder='little'), labels[:, 0] & 1)


def test_scratch_is_aligned_to_cache_lines():
  for shape in ((3,), (5, 7), (1, 2, 3)):
    array = half_gates.aligned(shape)
    assert array.shape == shape and array.ctypes.data % 64 == 0

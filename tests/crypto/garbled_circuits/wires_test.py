from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import wires


@given(st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8), st.integers(1, 64))
def test_unpack_inverts_pack_on_the_low_bits(values, width):
  packed = wires.pack(np.array(values, np.uint64), width)
  assert packed.shape == (width, 1) and packed.dtype == np.uint8
  np.testing.assert_array_equal(
    wires.unpack(packed), np.array([v % 2**width for v in values], np.uint64)
  )


def test_rows_are_bits_and_instances_start_at_the_lowest_bit():
  packed = wires.pack(np.array([1, 2, 0, 3, 0, 0, 0, 0], np.uint64), 2)
  np.testing.assert_array_equal(packed, [[0b1001], [0b1010]])


def test_strided_words_pack_like_contiguous_ones():
  words = np.arange(32, dtype=np.uint64)
  np.testing.assert_array_equal(wires.pack(words[::2], 5), wires.pack(words[::2].copy(), 5))


def test_decode_flips_colours_that_stand_for_one():
  colours, decoding = np.array([[0b1100]], np.uint8), np.array([[0b1010]], np.uint8)
  np.testing.assert_array_equal(wires.decode(colours, decoding), [[0b0110]])


@pytest.mark.parametrize(
  'mistake',
  [
    lambda: wires.pack(np.zeros(8, np.int64), 3),
    lambda: wires.pack(np.zeros(9, np.uint64), 3),
    lambda: wires.pack(np.zeros(8, np.uint64), 65),
    lambda: wires.pack(np.zeros((8, 1), np.uint64), 3),
    lambda: wires.unpack(np.zeros((65, 8), np.uint8)),
    lambda: wires.unpack(np.zeros((3, 8), np.uint64)),
    lambda: wires.decode(np.zeros((1, 8), np.uint8), np.zeros((2, 8), np.uint8)),
    lambda: wires.decode(np.zeros((1, 8), bool), np.zeros((1, 8), np.uint8)),
  ],
)
def test_callers_mistakes_raise(mistake):
  with pytest.raises(ValueError, match='want'):
    mistake()

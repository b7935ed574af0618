"""Values come back from their packed bits."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from safenet_jax.crypto import bit_packing
from safenet_jax.crypto.randomness import InsecureSeededRandomness


@given(st.integers(1, 63), st.integers(0, 40), st.integers(0, 2**32))
def test_bits_come_back_and_take_the_stated_size(bits, count, seed):
  values = InsecureSeededRandomness(seed).ring(bits, count)
  data = bit_packing.pack(values, bits)
  assert len(data) == bit_packing.size(count, bits)
  assert len(data) <= count * bits / 8 + 7
  np.testing.assert_array_equal(bit_packing.unpack(data, count, bits), values)


@given(st.integers(1, 63), st.integers(1, 40), st.sampled_from([-1, 1]))
def test_unpacking_another_length_raises(bits, count, error):
  data = bytes(bit_packing.size(count, bits) + error)
  with pytest.raises(ValueError, match='want'):
    bit_packing.unpack(data, count, bits)

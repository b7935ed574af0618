"""Ring arithmetic against Python's integers; numpy and jitted JAX give the same bits."""

import functools

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.crypto import randomness, ring
from safenet_jax.models.layers import Conv

FIFTEEN = st.integers(-(1 << 14), (1 << 14) - 1)


def source(seed=0):
  return randomness.InsecureSeededRandomness(seed)


def share(randomness_, x, bits):
  """Two uniform shares whose sum is x mod 2^bits."""
  other = randomness_.ring(bits, x.shape)
  return ring.reduce(x - other, bits), other


def is_prime(n):
  """Miller-Rabin, exact below 3.3 * 10^24 with these bases."""
  d, s = n - 1, 0
  while d % 2 == 0:
    d, s = d // 2, s + 1
  for a in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
    x = pow(a, d, n)
    if x in (1, n - 1):
      continue
    if not any((x := x * x % n) == n - 1 for _ in range(s - 1)):
      return False
  return True


def test_primes_are_batching_primes_that_shift_exactly():
  assert is_prime(ring.PRIME_41) and ring.PRIME_41.bit_length() == 41
  assert is_prime(ring.PRIME_50) and ring.PRIME_50.bit_length() == 50
  assert ring.PRIME_41 % (1 << 37) == ring.PRIME_50 % (1 << 32) == 1


@given(st.lists(FIFTEEN, min_size=1, max_size=20), st.integers(16, 64), st.integers(0, 2**32))
def test_shares_reconstruct_every_15_bit_value(values, bits, seed):
  x = np.asarray(values)
  a, b = share(source(seed), ring.from_signed(x, bits), bits)
  assert a.max() <= ring.mask(bits) and b.max() <= ring.mask(bits)
  np.testing.assert_array_equal(ring.reconstruct(a, b, bits), x)
  smaller = bits - 1
  np.testing.assert_array_equal(
    ring.reconstruct(ring.reduce(a, smaller), ring.reduce(b, smaller), smaller), x
  )


def test_local_truncation_is_right_within_one_on_the_whole_15_bit_range():
  bits, shift = 56, 7
  x = np.arange(-(1 << 14), 1 << 14) << shift
  x = x + np.random.default_rng(0).integers(0, 1 << shift, x.size)
  a, b = share(source(), ring.from_signed(x, bits), bits)
  found = ring.truncate(a, bits, shift, server=False) + ring.truncate(b, bits, shift, server=True)
  assert set((found - (x >> shift)).tolist()) <= {0, 1}
  # Unbiased: the mean error over 2^15 values has a deviation below 0.002.
  assert abs(np.mean(found - x / (1 << shift))) < 0.01


@given(
  st.lists(st.integers(-(1 << 40), (1 << 40) - 1), min_size=1, max_size=30),
  st.integers(0, 30),
  st.integers(0, 2**32),
)
def test_local_truncation_is_an_integer_relation(values, shift, seed):
  x, bits = np.asarray(values), 60
  a, b = share(source(seed), ring.from_signed(x, bits), bits)
  found = ring.truncate(a, bits, shift, server=False) + ring.truncate(b, bits, shift, server=True)
  error = found - (x >> shift)
  failed = np.abs(error) > 1
  # A wrap is worth 2^(bits - shift), and that improbable that none is expected.
  assert not failed.any() or (np.abs(error[failed]) >> (bits - shift) == 1).all()


def test_truncation_fails_as_often_as_stated():
  bits, shift, count = 20, 4, 200_000
  x = np.full(count, 1 << 16)
  a, b = share(source(), ring.from_signed(x, bits), bits)
  found = ring.truncate(a, bits, shift, server=False) + ring.truncate(b, bits, shift, server=True)
  failures = np.mean(np.abs(found - (x >> shift)) > 1)
  assert failures == pytest.approx(ring.truncation_failure(1 << 16, bits), rel=0.1)


@given(st.floats(-200, 200), st.integers(0, 10))
def test_fixed_point_rounds_to_the_nearest_and_counts_saturation(value, fraction):
  encoded, saturated = ring.encode(np, np.asarray([value]), fraction)
  limit = 1 << 14
  if abs(value) * 2**fraction < limit - 1:
    assert saturated == 0
    assert abs(encoded[0] / 2.0**fraction - value) <= 2.0 ** -(fraction + 1)
  else:
    assert -limit <= encoded[0] < limit


def test_every_saturated_value_is_counted_and_takes_the_nearest_end():
  values = np.asarray([[-40.0, -32.0, -31.998], [0.0, 31.998046875, 31.9995], [32.0, 40.0, 1e30]])
  encoded, saturated = ring.encode(np, values, 9)
  low, high = -(1 << 14), (1 << 14) - 1
  assert encoded.tolist() == [[low, low, low + 1], [0, high, high], [high, high, high]]
  assert saturated == 5
  with jax.enable_x64(True):
    jitted, count = jax.jit(lambda x: ring.encode(jnp, x, 9))(values)
    assert jitted.tolist() == encoded.tolist() and count == saturated


@pytest.mark.parametrize('modulus', [ring.PRIME_41, ring.PRIME_50])
def test_modular_product_equals_python(modulus):
  edge = [0, 1, 2, modulus // 2, modulus // 2 + 1, modulus - 2, modulus - 1]
  a = np.concatenate(
    [np.repeat(np.asarray(edge, np.uint64), len(edge)), source(1).residues(modulus, 5000)]
  )
  b = np.concatenate(
    [np.tile(np.asarray(edge, np.uint64), len(edge)), source(2).residues(modulus, 5000)]
  )
  expected = [x * y % modulus for x, y in zip(a.tolist(), b.tolist())]
  assert ring.multiply_mod(np, a, b, modulus).tolist() == expected
  with jax.enable_x64(True):
    jitted = jax.jit(functools.partial(ring.multiply_mod, jnp, modulus=modulus))
    assert np.asarray(jitted(a, b)).tolist() == expected


def test_a_modulus_whose_quotients_would_be_rounded_is_refused():
  one = np.ones(1, np.uint64)
  assert ring.multiply_mod(np, one, one, (1 << 50) - 1) == 1
  with pytest.raises(ValueError, match='want below 2\\^50'):
    ring.multiply_mod(np, one, one, 1 << 50)


def test_residues_of_negative_numbers_are_counted_from_the_modulus():
  x = np.asarray([-5, -1, 0, 1, 7])
  residues = ring.to_residue(x, ring.PRIME_41)
  assert residues.tolist() == [ring.PRIME_41 - 5, ring.PRIME_41 - 1, 0, 1, 7]


def python_convolution(x, kernel, layer, bits):
  """A convolution from its definition, in Python's integers."""
  b, h, w, cin = x.shape
  k, _, inputs, cout = kernel.shape
  (top, bottom), (left, right) = layer.around
  oh, ow = (
    (n - (k - 1) * layer.dilation - 1) // layer.stride + 1
    for n in (h + top + bottom, w + left + right)
  )
  out = np.zeros((b, oh, ow, cout), object)
  for n, i, j, o in np.ndindex(*out.shape):
    total = 0
    for di, dj, c in np.ndindex(k, k, inputs):
      y = i * layer.stride + di * layer.dilation - top
      z = j * layer.stride + dj * layer.dilation - left
      if 0 <= y < h and 0 <= z < w:
        first = o // (cout // layer.groups) * inputs
        total += int(x[n, y, z, first + c]) * int(kernel[di, dj, c, o])
    out[n, i, j, o] = total % (1 << bits)
  return out.astype(np.uint64)


@pytest.mark.parametrize(
  'layer',
  [
    Conv(4, 1),
    Conv(4, 3),
    Conv(4, 3, 2),
    Conv(4, 5, 2),
    Conv(6, 3, groups=3),
    Conv(6, 3, 2, groups=6),
    Conv(4, 3, groups=2, dilation=2),
    Conv(4, 1, padding=((1, 0), (0, 2))),
    Conv(4, 2, 3, dilation=3, padding=((0, 3), (5, 1))),
  ],
)
@pytest.mark.parametrize('bits', [56, 64])
def test_convolution_is_exact_in_numpy_and_jax(layer, bits):
  rng = np.random.default_rng(0)
  x = source().ring(bits, (2, 5, 6, 6))
  x[0, 0, 0] = (1 << bits) - 1
  shape = layer.kernel, layer.kernel, 6 // layer.groups, layer.features
  w = rng.integers(-(1 << 14), 1 << 14, shape)
  expected = python_convolution(x, w, layer, bits)
  limb = ring.limb_bits(w)
  assert 20 < limb < 50
  for way in (limb, None):
    np.testing.assert_array_equal(ring.convolve(np, x, w, layer, bits, way), expected)
    with jax.enable_x64(True):
      jitted = jax.jit(lambda x, w, way=way: ring.convolve(jnp, x, w, layer, bits, way))
      np.testing.assert_array_equal(jitted(x, w), expected)


def test_limbs_hold_the_largest_sums():
  w = np.full((1000, 1), (1 << 14) - 1)
  limb = ring.limb_bits(w)
  x = np.full((1, 1000), (1 << 64) - 1, np.uint64)
  expected = 1000 * ((1 << 14) - 1) * ((1 << 64) - 1) % (1 << 64)
  assert int(ring.multiply(np, x, w, 64, limb)[0, 0]) == expected
  with pytest.raises(ValueError, match='L1 norm'):
    ring.limb_bits(np.full((2, 1), 1 << 52))


def test_uint32_is_refused_instead_of_computed_with():
  with pytest.raises(ValueError, match='uint64'):
    ring.reduce(jnp.arange(3, dtype=jnp.uint32), 8)

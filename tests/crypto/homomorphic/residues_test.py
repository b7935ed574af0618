import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import residues
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from tests.support import wide_integers

MODULI = np.array([140737488273409, 70368743669761], np.uint64)


def test_polynomials_take_exactly_the_bits_of_their_moduli():
  values = residues.uniform(InsecureSeededRandomness(1), MODULI, (3, 4096))
  data = residues.pack(values, MODULI)
  assert len(data) == 3 * 4096 * (47 + 46) // 8
  np.testing.assert_array_equal(residues.unpack(data, MODULI, (3, 4096)), values)


@pytest.mark.parametrize('error', [0, 1])
@pytest.mark.parametrize('row', [0, 1])
def test_a_residue_at_its_modulus_raises(row, error):
  values = np.zeros((2, 8), np.uint64)
  values[row, 5] = MODULI[row] + np.uint64(error)
  with pytest.raises(ValueError, match='residue'):
    residues.unpack(residues.pack(values, MODULI), MODULI, (8,))


def test_the_largest_residues_are_accepted():
  values = np.repeat(MODULI[:, None] - np.uint64(1), 8, axis=1)
  data = residues.pack(values, MODULI)
  np.testing.assert_array_equal(residues.unpack(data, MODULI, (8,)), values)


def test_subtraction_is_modular():
  randomness = InsecureSeededRandomness(2)
  a, b = (residues.uniform(randomness, MODULI, (50,)) for _ in range(2))
  got = residues.subtract(a, b, MODULI)
  want = (a.astype(object) - b.astype(object)) % MODULI.astype(object)[:, None]
  np.testing.assert_array_equal(got.astype(object), want)
  # The peer would refuse a modulus in the place of zero.
  assert not residues.subtract(a, a, MODULI).any()


@pytest.mark.parametrize('change', [lambda data: data + b'\0', lambda data: data[:-1]])
def test_another_length_is_refused(change):
  data = residues.pack(np.zeros((2, 8), np.uint64), MODULI)
  with pytest.raises(ValueError, match=f'want {len(data)}'):
    residues.unpack(change(data), MODULI, (8,))


def test_signed_values_become_residues():
  got = residues.from_signed(np.array([-21, -1, 0, 21]), MODULI)
  want = np.array([-21, -1, 0, 21], object) % MODULI.astype(object)[:, None]
  np.testing.assert_array_equal(got.astype(object), want)


def test_a_seed_expands_alike_for_both_and_differently_for_another_seed():
  draw = [residues.uniform(residues.Expansion(bytes([k]) * 16), MODULI, (4096,)) for k in (1, 1, 2)]
  np.testing.assert_array_equal(draw[0], draw[1])
  assert (draw[0] != draw[2]).mean() > 0.99
  assert (draw[0] < MODULI[:, None]).all()
  mean = (draw[0] / MODULI[:, None]).mean(axis=1)
  np.testing.assert_allclose(mean, 0.5, atol=6 / np.sqrt(12 * 4096))


def test_an_expansion_continues_whatever_the_pieces():
  whole = residues.Expansion(bytes(16)).words(100)
  stream = residues.Expansion(bytes(16))
  pieces = np.concatenate([stream.words(n) for n in (1, 37, 62)])
  np.testing.assert_array_equal(pieces, whole)


ALL_MODULI = [
  [18014398509404161],
  [4398046150657, 4398046445569],
  [274877562881, 274877595649, 274877661185],
]


@pytest.mark.parametrize('moduli', ALL_MODULI)
@pytest.mark.parametrize('dropped', [0, 1, 20, 38])
def test_high_bits_are_within_half_of_what_is_dropped(moduli, dropped):
  moduli = np.array(moduli, np.uint64)
  values = residues.uniform(InsecureSeededRandomness(3), moduli, (4096,))
  values[:, 0], values[:, 1] = 0, moduli - np.uint64(1)
  data = residues.pack_high(values, moduli, dropped)
  bits = sum(int(q).bit_length() for q in moduli) - dropped
  assert len(data) == residues.size(moduli, 4096, dropped) == 4096 * bits // 8
  found = residues.unpack_high(data, moduli, (4096,), dropped)
  assert (found < moduli[:, None]).all()
  distance = residues.subtract(found, values, moduli)
  distance = wide_integers.from_residues(distance, moduli).astype(float)
  assert np.abs(distance).max() <= 2.0**dropped / 2
  # Of two values the upper one is taken.
  middle = 0.5 if dropped else 0
  assert abs(distance.mean() - middle) <= 6 * 2.0**dropped / np.sqrt(12 * 4096)


def test_digits_beyond_what_they_can_be_are_refused():
  for moduli in ALL_MODULI:
    moduli = np.array(moduli, np.uint64)
    size = residues.size(moduli, 8, 5)
    with pytest.raises(ValueError, match='digit'):
      residues.unpack_high(b'\xff' * size, moduli, (8,), 5)
    with pytest.raises(ValueError, match=f'want {size}'):
      residues.unpack_high(bytes(size + 1), moduli, (8,), 5)

import math

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import bfv, levelled
from safenet_jax.crypto.randomness import SystemRandomness
from tests.support import wide_integers

(MODULUS,) = levelled.plain_moduli(1 << 20)
RANDOMNESS = SystemRandomness()


@pytest.fixture(scope='module')
def context():
  return bfv.Context(levelled.parameters(MODULUS, bytes(16)))


@pytest.fixture(scope='module')
def secret(context):
  return bfv.SecretKey(context)


def encrypted(context, secret, slots):
  """Ciphertexts in coefficient form, uint64 [n, 2, moduli, N], of slots [n, N]."""
  upload = secret.encrypt(np.stack([context.to_coefficients(row) for row in slots]), RANDOMNESS)
  found = context.load(upload, len(slots))
  for each in found:
    context.evaluator.transform_from_ntt_inplace(each)
  return np.stack([context.polynomials(each) for each in found])


def slots_of(context, secret, value):
  return context.to_slots(secret.decrypt(value)).astype(np.int64)


def deepest(context, secret):
  """What the networks do to one pixel at most: three layers, of the largest sums of weights."""
  pixels = RANDOMNESS.residues(16, (2, context.degree))
  value = encrypted(context, secret, pixels)
  plain = pixels.astype(object)
  for weights in ([[140, -120]], [[2100]], [[450]]):
    weights = np.array(weights)
    value = levelled.linear(weights, value, context.moduli)
    plain = weights @ plain
    if len(value[0]) < 5:
      value = levelled.square(context, levelled.add_constant(context, value[0], -17))[None]
      plain = (plain - 17) ** 2
  return value[0], plain[0]


def test_moduli_are_primes_for_slots_and_enough_of_them():
  for bound in (1, 1 << 30, 3 << 70):
    found = levelled.plain_moduli(bound)
    assert math.prod(found) > 2 * bound >= math.prod(found[:-1]) and len(set(found)) == len(found)
    for prime in found:
      assert prime % (2 * levelled.DEGREE) == 1 and prime.bit_length() == levelled.PRIME_BITS
      assert pow(3, prime - 1, prime) == 1


def test_sums_are_those_of_integers():
  moduli = np.array([(1 << 40) - 87, (1 << 39) - 7], np.uint64)
  values = RANDOMNESS.residues((1 << 39) - 7, (30, 3, 2, 5))
  weights = np.random.default_rng(0).integers(-15, 16, (4, 30))
  found = levelled.linear(weights, values, moduli)
  exact = np.tensordot(weights.astype(object), values.astype(object), 1) % moduli[:, None]
  assert (found == exact).all()


def test_weights_that_floats_would_round_are_refused():
  with pytest.raises(ValueError, match='want less than 2\\^53'):
    levelled.linear(
      np.full((1, 2), 1 << 13), np.zeros((2, 2, 1, 8), np.uint64), np.array([1 << 40])
    )


def test_squares_and_sums_at_the_depth_of_the_networks_keep_40_bits_for_hiding(context, secret):
  value, plain = deepest(context, secret)
  assert len(value) == 5
  np.testing.assert_array_equal(slots_of(context, secret, value), plain % MODULUS)
  assert secret.noise_budget(value) >= 40 + levelled._MARGIN


def test_a_hidden_value_has_the_same_slots_and_room_for_its_noise(context, secret):
  public = bfv.PublicKey(context, secret.public_key())
  value, plain = deepest(context, secret)
  once, again = (levelled.hidden(public, value, RANDOMNESS) for _ in range(2))
  for found in (once, again):
    np.testing.assert_array_equal(slots_of(context, secret, found), plain % MODULUS)
    assert 0 < secret.noise_budget(found) <= levelled._MARGIN + 1
  # Every polynomial is masked anew: as far from the bare one as uniform numbers are.
  half = context.modulus // 2
  for masked in (once, again):
    for first, second in zip(masked, value):
      change = (first + context.moduli[:, None] - second) % context.moduli[:, None]
      distance = np.abs(wide_integers.from_residues(change, context.moduli)).astype(object)
      assert max(distance) > half // 2


def test_integers_come_back_from_their_residues_with_signs():
  moduli = levelled.plain_moduli(1 << 60)
  values = np.array([0, 1, -1, 1 << 60, -(1 << 60)], object)
  residues = np.array([[value % t for value in values] for t in moduli])
  assert levelled.combine(residues, moduli).tolist() == values.tolist()

"""Random plaintexts that are drawn with their ciphertexts."""

import dataclasses
import functools

import numpy as np
import pytest

from safenet_jax.crypto import bit_packing
from safenet_jax.crypto.homomorphic import bfv, drawn_plaintexts, residues
from safenet_jax.crypto.randomness import InsecureSeededRandomness, SystemRandomness

KINDS = [28, 36, 56]


@functools.cache
def secret_of(bits):
  return bfv.SecretKey(bfv.Context(bfv.ring_parameters(bits)))


def free_and_plain(secret, seed=1):
  """Half of the coefficients free, and a plaintext for the others."""
  source, degree = InsecureSeededRandomness(seed), secret.context.degree
  free = source.bits(degree).astype(bool)
  plain = source.residues(secret.context.parameters.plain_modulus, (degree,))
  return free[None], np.where(free, np.uint64(0), plain)[None]


def draw(secret, plain, free, randomness=None):
  """The message, and the plaintexts."""
  part, found = drawn_plaintexts.draw(secret, plain, free, randomness or SystemRandomness())
  return drawn_plaintexts.encode(secret.context, [part]), found


def decrypted(secret, encrypted):
  context = secret.context
  context.evaluator.transform_from_ntt_inplace(encrypted)
  return secret.decrypt(context.polynomials(encrypted))


@pytest.mark.parametrize('bits', KINDS)
def test_what_is_drawn_and_what_is_given_is_decrypted(bits):
  secret = secret_of(bits)
  free, plain = free_and_plain(secret)
  message, found = draw(secret, plain, free, SystemRandomness())
  assert len(message) == drawn_plaintexts.size(secret.context, 1, np.count_nonzero(free))
  (encrypted,) = drawn_plaintexts.load(secret.context, message, free)
  np.testing.assert_array_equal(found[~free], plain[~free])
  assert found.max() < 2**bits
  np.testing.assert_array_equal(decrypted(secret, encrypted), found[0])


@pytest.mark.parametrize('bits', KINDS)
def test_the_noise_is_that_of_other_ciphertexts(bits):
  secret = secret_of(bits)
  free, plain = free_and_plain(secret)
  context, budgets = secret.context, []
  message, _ = draw(secret, plain, free, SystemRandomness())
  upload = secret.encrypt(plain, SystemRandomness())
  for (encrypted,) in (
    drawn_plaintexts.load(context, message, free),
    context.load(upload, 1),
  ):
    context.evaluator.transform_from_ntt_inplace(encrypted)
    budgets.append(secret._decryptor.invariant_noise_budget(encrypted))
  assert abs(budgets[0] - budgets[1]) <= 1


@pytest.mark.parametrize('bits', KINDS)
@pytest.mark.parametrize('part', [0, 1])
def test_a_free_coefficient_takes_the_bits_of_an_offset(bits, part):
  """Those of q / t, where another takes those of q."""
  context = secret_of(bits).context
  whole = context.parameters.cipher_bits
  width = whole - bits if part else whole
  assert (
    drawn_plaintexts.size(context, 1, part * context.degree) == 16 + context.degree * width // 8
  )


@pytest.mark.parametrize('bits', KINDS)
@pytest.mark.parametrize('first', [0, -8])
def test_every_pair_of_plaintext_and_offset_is_found_at_the_ends_of_the_interval(bits, first):
  """Offsets there are next to those of a neighbour, and large plaintexts round in floats."""
  context = secret_of(bits).context
  moduli, degree, room = context.moduli, context.degree, drawn_plaintexts._room(context)
  source = InsecureSeededRandomness(5)
  r = source.residues(1 << bits, (degree,)) | np.uint64(1 << bits - 1)
  offsets = ((first % room) + np.arange(degree) % 8).astype(np.uint64)
  h, zero = source.residues(1 << bits, (degree,)), np.zeros((moduli.size, degree), np.uint64)
  noise = residues.from_signed(residues.binomial(InsecureSeededRandomness(6), degree), moduli)
  # x = round(q r / t) - offset; the product a s is what gives that x.
  centred = residues.from_signed(offsets.astype(np.int64) - room // 2, moduli)
  x = residues.subtract(context.add_scaled(zero, r), centred, moduli)
  start = context.add_scaled(zero, h)
  product = residues.subtract(x, start, moduli)
  product = residues.subtract(product, residues.subtract(zero, noise, moduli), moduli)
  found = np.zeros(degree, np.uint64)
  free = np.ones(degree, bool)
  halves = drawn_plaintexts._offsets(context, found, free, h, product, InsecureSeededRandomness(6))
  assert halves is not None
  np.testing.assert_array_equal(found, r)
  np.testing.assert_array_equal(halves[0], offsets)


@pytest.mark.parametrize('bits', KINDS)
def test_what_belongs_to_no_pair_is_refused(bits):
  """Halfway between two points."""
  context = secret_of(bits).context
  moduli, degree = context.moduli, context.degree
  zero, one = np.zeros((moduli.size, degree), np.uint64), np.ones(degree, np.uint64)
  noise = residues.from_signed(residues.binomial(InsecureSeededRandomness(6), degree), moduli)
  half = residues.from_signed(np.full(degree, (context.modulus >> bits) // 2, np.int64), moduli)
  x = residues.subtract(context.add_scaled(zero, one), half, moduli)
  product = residues.subtract(x, residues.subtract(zero, noise, moduli), moduli)
  halves = drawn_plaintexts._offsets(
    context, 0 * one, one > 0, 0 * one, product, InsecureSeededRandomness(6)
  )
  assert halves is None


def chi_square(counts):
  want = counts.sum() / counts.size
  return ((counts - want) ** 2 / want).sum()


@pytest.mark.parametrize('bits', KINDS)
def test_plaintexts_and_offsets_are_uniform_and_independent(bits):
  """Of the top two bits of both together: 15 degrees of freedom."""
  secret, randomness = secret_of(bits), SystemRandomness()
  context, found = secret.context, []
  free = np.ones((1, context.degree), bool)
  room, width = drawn_plaintexts._room(context), drawn_plaintexts.width(context)
  for _ in range(8):
    message, r = draw(secret, np.zeros(free.shape, np.uint64), free, randomness)
    offsets = bit_packing.unpack(message[16:], context.degree, width)
    _, h = drawn_plaintexts._expand(context, message[:16], free[0])
    # r less h is what c1 s adds, which the server does not know.
    difference = (r[0] - h) % np.uint64(2**bits)
    quarters = [
      x >> np.uint64(bits - 2) if top is None else x * np.uint64(4) // np.uint64(top)
      for x, top in ((r[0], None), (h, None), (difference, None), (offsets, room))
    ]
    found.append(np.stack(quarters))
  quarters = np.concatenate(found, axis=1).astype(int)
  for one in range(4):
    for other in range(one):
      counts = np.bincount(4 * quarters[one] + quarters[other], minlength=16)
      assert chi_square(counts) < 60, (one, other)  # 15 degrees: 2e-7


def test_without_fresh_noise_who_knows_a_plaintext_finds_the_key_equation():
  """c0 - round(q r / t) + a s is the noise: it is as wide as that of other ciphertexts."""
  secret = secret_of(28)
  context = secret.context
  free = np.ones((1, context.degree), bool)
  message, r = draw(secret, np.zeros((1, context.degree), np.uint64), free, SystemRandomness())
  a, _ = drawn_plaintexts._expand(context, message[:16], free[0])
  (encrypted,) = drawn_plaintexts.load(context, message, free)
  context.evaluator.transform_from_ntt_inplace(encrypted)
  c0 = context.polynomials(encrypted)[0]
  scaled = context.add_scaled(np.zeros_like(c0), r[0])
  q = int(context.moduli[0])
  noise = (c0 - scaled).astype(np.int64)[0] + secret.multiply([a])[0].astype(np.int64)[0]
  noise = (noise + q // 2) % q - q // 2
  assert np.abs(noise).max() <= 21
  assert abs(noise.var() - 10.5) < 6 * 10.5 * np.sqrt(2 / noise.size)


def test_every_draw_is_a_new_one():
  secret, randomness = secret_of(28), SystemRandomness()
  free, plain = free_and_plain(secret)
  one, other = (draw(secret, plain, free, randomness) for _ in range(2))
  assert one[0][:16] != other[0][:16]
  assert (one[1] == other[1])[free].mean() < 0.01


def test_a_coefficient_that_belongs_to_no_pair_makes_a_new_seed(monkeypatch):
  """In a ring with little room beside the plaintext it happens often."""
  parameters = dataclasses.replace(bfv.ring_parameters(28), plain_modulus=1 << 41)
  secret = bfv.SecretKey(bfv.Context(parameters))
  free = np.zeros((1, 2048), bool)
  free[:, :2000] = True
  seeds, expand = [], drawn_plaintexts._expand

  def noted(context, seed, free):
    seeds.append(seed)
    return expand(context, seed, free)

  monkeypatch.setattr(drawn_plaintexts, '_expand', noted)
  for _ in range(20):
    message, found = draw(secret, np.zeros((1, 2048), np.uint64), free, SystemRandomness())
  assert len(set(seeds)) == len(seeds) > 20
  (encrypted,) = drawn_plaintexts.load(secret.context, message, free)
  np.testing.assert_array_equal(decrypted(secret, encrypted), found[0])


def test_what_is_malformed_is_refused():
  secret = secret_of(28)
  context = secret.context
  free, plain = free_and_plain(secret)
  message, _ = draw(secret, plain, free, SystemRandomness())
  offsets = bit_packing.size(int(np.count_nonzero(free)), drawn_plaintexts.width(context))
  for change, match in (
    (message + b'\0', 'upload of'),
    (message[:-1], 'upload of'),
    (message[:16] + b'\xff' * offsets + message[16 + offsets :], 'offset'),
    (message[: 16 + offsets] + b'\xff' * (len(message) - 16 - offsets), 'residue'),
  ):
    with pytest.raises(ValueError, match=match):
      drawn_plaintexts.load(context, change, free)
  assert residues.SEED_BYTES == 16

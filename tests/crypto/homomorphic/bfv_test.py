import math
import multiprocessing

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import bfv, residues
from safenet_jax.crypto.randomness import InsecureSeededRandomness, SystemRandomness
from tests.support import fresh, wide_integers


@pytest.fixture(scope='module')
def context():
  return bfv.Context(bfv.ring_parameters())


@pytest.fixture(scope='module')
def secret(context):
  return bfv.SecretKey(context)


@pytest.fixture(scope='module')
def public(context, secret):
  return bfv.PublicKey(context, secret.public_key())


def to_polynomials(context, encrypted):
  """[2, moduli, degree] in coefficient form of a ciphertext in NTT form."""
  context.evaluator.transform_from_ntt_inplace(encrypted)
  return context.polynomials(encrypted)


def encryption_noise(context, secret, upload, count):
  """c0 + c1 s of encryptions of zero: the errors, [count, degree]."""
  errors = []
  for encrypted in context.load(upload, count):
    c0, c1 = context.polynomials(encrypted)
    product = context.ciphertext(np.stack([c1, c1]), ntt=True)
    context.evaluator.multiply_plain_inplace(product, secret._secret)
    context.evaluator.add_inplace(product, context.ciphertext(np.stack([c0, c0]), ntt=True))
    errors.append(wide_integers.from_residues(to_polynomials(context, product)[0], context.moduli))
  return np.array(errors).astype(np.int64)


def test_what_is_encrypted_is_decrypted(context, secret):
  randomness = InsecureSeededRandomness(1)
  values = randomness.ring(56, (3, context.degree))
  values[1], values[2, 100:] = 0, 0
  encrypted = context.load(secret.encrypt(values, randomness), 3)
  got = [secret.decrypt(to_polynomials(context, one)) for one in encrypted]
  np.testing.assert_array_equal(got, values)


def test_an_upload_is_a_seed_and_one_polynomial_a_plaintext(context, secret):
  upload = secret.encrypt(np.zeros((2, 4096), np.uint64), SystemRandomness())
  assert len(upload) == context.upload_size(2) == 16 + 2 * 4096 * 84 // 8


def test_the_noise_is_centred_binomial_of_21_coins_a_side(context, secret):
  upload = secret.encrypt(np.zeros((8, 4096), np.uint64), SystemRandomness())
  noise = encryption_noise(context, secret, upload, 8)
  assert np.abs(noise).max() <= 21
  # Variance 42 / 4; six standard errors of mean, variance and covariance.
  assert abs(noise.mean()) < 6 * math.sqrt(10.5 / noise.size)
  assert abs(noise.var() - 10.5) < 6 * 10.5 * math.sqrt(2 / noise.size)
  assert abs((noise[0] * noise[1]).mean()) < 6 * 10.5 / math.sqrt(4096)
  counts = [(noise == k).mean() for k in range(-3, 4)]
  want = [math.comb(42, 21 + k) / 2**42 for k in range(-3, 4)]
  np.testing.assert_allclose(counts, want, atol=0.013)


def test_the_noise_budget_is_that_of_seal(context, secret):
  upload = secret.encrypt(np.zeros((1, 4096), np.uint64), SystemRandomness())
  (encrypted,) = context.load(upload, 1)
  context.evaluator.transform_from_ntt_inplace(encrypted)
  # q / t = 2^28, less one bit for the half and five for errors up to 21.
  assert secret._decryptor.invariant_noise_budget(encrypted) in (22, 23)


def test_two_encryptions_of_one_plaintext_share_nothing(context, secret):
  randomness = SystemRandomness()
  zeros = np.zeros((1, 4096), np.uint64)
  first, second = (secret.encrypt(zeros, randomness) for _ in range(2))
  assert first[:16] != second[:16]
  pairs = [context.polynomials(context.load(u, 1)[0]) for u in (first, second)]
  assert (pairs[0] == pairs[1]).mean() < 1e-3


def test_uploads_are_uniform_whatever_is_encrypted(context, secret):
  """Chi-square of the top four bits of c0, for two fixed plaintexts."""
  for value in (0, 2**56 - 1):
    values = np.full((4, 4096), value, np.uint64)
    for encrypted in context.load(secret.encrypt(values, SystemRandomness()), 4):
      top = context.polynomials(encrypted)[0, 0] >> np.uint64(38)
      counts = np.bincount(top.astype(np.int64), minlength=16)
      assert ((counts - 256) ** 2 / 256).sum() < 60  # 15 degrees: 2e-7


def test_another_key_decrypts_to_garbage(context, secret):
  values = np.zeros((1, 4096), np.uint64)
  (encrypted,) = context.load(secret.encrypt(values, SystemRandomness()), 1)
  got = bfv.SecretKey(context).decrypt(to_polynomials(context, encrypted))
  assert (got == 0).mean() < 1e-3


def test_a_fresh_zero_is_fresh_and_zero(context, secret, public):
  randomness = SystemRandomness()
  first, second = (context.polynomials(public.fresh_zero(randomness)) for _ in range(2))
  assert not secret.decrypt(first).any()
  assert (first == second).mean() < 1e-3
  # e0 + e1 s - e u: with two thirds of s and u other than zero, 74 times the noise of one.
  (product,) = secret.multiply(context.to_ntt([first[1]]))
  noise = (first[0] + product)[0] % context.moduli[0]
  noise = np.where(noise > context.moduli[0] // 2, noise - context.moduli[0], noise)
  deviation = noise.view(np.int64).std()
  assert 0.8 < deviation / (3.24 * (1 + 4 / 3 * context.degree) ** 0.5) < 1.25


def test_rounding_divides_by_q_over_t(context):
  values = residues.uniform(InsecureSeededRandomness(2), context.moduli, (5000,))
  q = math.prod(int(m) for m in context.moduli)
  v = wide_integers.from_residues(values, context.moduli)
  want = [(2 * int(x) * 2**56 + q) // (2 * q) % 2**56 for x in v]
  np.testing.assert_array_equal(context.round(values).astype(object), want)


@pytest.mark.parametrize('error', [-1, 1, -(16 + 43008)])
def test_uploads_of_another_length_raise(context, secret, error):
  upload = secret.encrypt(np.zeros((1, 4096), np.uint64), SystemRandomness())
  with pytest.raises(ValueError, match='upload of'):
    context.load((upload + b'\0')[: len(upload) + error], 1)


def test_residues_beyond_the_modulus_raise(context):
  upload = bytes(16) + b'\xff' * (context.upload_size(1) - 16)
  with pytest.raises(ValueError, match='residue'):
    context.load(upload, 1)


def test_the_second_half_follows_from_the_servers_seed_and_the_parameters():
  halves = [
    bfv.Context(parameters).second_half
    for parameters in (
      bfv.ring_parameters(56, b'1'),
      bfv.ring_parameters(56, b'1'),
      bfv.ring_parameters(56, b'2'),
      bfv.ring_parameters(40, b'1'),
    )
  ]
  np.testing.assert_array_equal(halves[0], halves[1])
  assert (halves[0] != halves[2]).mean() > 0.999
  assert (halves[0] != halves[3]).mean() > 0.999


def test_a_key_of_another_seed_does_not_decrypt(context):
  """The client has made its first half for the second half that the server uses."""
  other = bfv.Context(bfv.ring_parameters(seed=b'another'))
  randomness = SystemRandomness()
  one = np.zeros(context.degree, np.uint64)
  one[0] = 1
  for ours, good in ((context, True), (other, False)):
    secret = bfv.SecretKey(ours)
    public = bfv.PublicKey(context, secret.public_key())
    encrypted = context.load(secret.encrypt(one[None], randomness), 1)
    (total,) = public.combine(encrypted, [[context.multiplier(one)]], SystemRandomness())
    assert np.array_equal(secret.decrypt(context.polynomials(total)), one) == good


@pytest.mark.parametrize('error', [-1, 1])
def test_public_keys_of_another_length_raise(context, secret, error):
  key = secret.public_key()
  with pytest.raises(ValueError, match='bytes'):
    bfv.PublicKey(context, (key + b'\0')[: len(key) + error])


def test_a_public_key_of_other_parameters_raises(secret):
  other = bfv.Context(bfv.slot_parameters(2061584302081))
  with pytest.raises(ValueError, match='bytes'):
    bfv.PublicKey(other, secret.public_key())


@pytest.mark.parametrize('modulus', [2061584302081 + 2, 2**51 + 1, 2**14])
def test_slot_parameters_want_a_small_batching_prime(modulus):
  with pytest.raises(ValueError, match='modulus'):
    bfv.slot_parameters(modulus)


def test_slots_want_a_batching_prime(context):
  with pytest.raises(ValueError, match='slots'):
    context.to_slots(np.zeros(4096, np.uint64))
  composite = bfv.Context(bfv.slot_parameters(5 * 2**14 + 1))
  with pytest.raises(ValueError, match='slots'):
    composite.to_coefficients(np.zeros(8192, np.uint64))


def _draw(pipe, public, secret, randomness):
  """Everything random that the two parties make, as bytes."""
  zero = public.context.polynomials(public.fresh_zero(randomness)).tobytes()
  upload = secret.encrypt(np.zeros((1, 4096), np.uint64), randomness)
  pipe.send_bytes(zero[:64])
  pipe.send_bytes(upload[:16])
  pipe.send_bytes(upload[16:80])
  pipe.send_bytes(randomness.bytes(64))


def test_a_forked_child_repeats_nothing():
  fresh.run(check_fork)


def check_fork():
  context = bfv.Context(bfv.ring_parameters())
  secret = bfv.SecretKey(context)
  public = bfv.PublicKey(context, secret.public_key())
  randomness = SystemRandomness()
  randomness.bytes(1)
  fork = multiprocessing.get_context('fork')
  draws = []
  for _ in range(2):
    ours, theirs = fork.Pipe()
    child = fork.Process(target=_draw, args=(theirs, public, secret, randomness))
    child.start()
    draws.append([ours.recv_bytes() for _ in range(4)])
    child.join()
  ours, theirs = fork.Pipe()
  _draw(theirs, public, secret, randomness)
  draws.append([ours.recv_bytes() for _ in range(4)])
  for one in zip(*draws):
    assert len(set(one)) == 3


def test_parameters_of_less_than_128_bits_are_refused():
  for parameters in (
    bfv.Parameters(2048, (47, 46, 16), 1 << 56),
    bfv.Parameters(4096, (47, 47, 16), 1 << 56),
  ):
    with pytest.raises(ValueError, match='security standard'):
      bfv.Context(parameters)

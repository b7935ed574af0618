import math

import numpy as np
import pytest

from safenet_jax.crypto import messages
from safenet_jax.crypto.homomorphic import bfv, ole, residues
from safenet_jax.crypto.randomness import SystemRandomness
from tests.support import wide_integers

PRIMES = [24159191041, 2061584302081, 1125844072267777]


class Parties:
  """A client and a server over F_p, and the sums of products they compute."""

  def __init__(self, p):
    self.p = p
    self.context = bfv.Context(bfv.slot_parameters(p))
    self.secret = bfv.SecretKey(self.context)
    self.public = bfv.PublicKey(self.context, self.secret.public_key())
    self.randomness = SystemRandomness()

  def shares(self, a, b):
    """alpha, beta for uint64 [products, n]."""
    message = ole.request(self.secret, a, self.randomness, b'tag')
    assert len(message) == ole.request_size(self.context, *a.shape)
    answer, beta = ole.reply(self.public, message, b, self.randomness, b'tag')
    assert len(answer) == ole.reply_size(self.context, a.shape[1])
    alpha = ole.finish(self.secret, answer, a.shape[1], b'tag')
    assert alpha.shape == beta.shape == a.shape[1:]
    assert max(alpha.max(), beta.max()) < self.p
    return alpha, beta

  def check(self, a, b):
    alpha, beta = self.shares(a, b)
    want = (a.astype(object) * b.astype(object)).sum(axis=0) % self.p
    np.testing.assert_array_equal((alpha.astype(object) + beta) % self.p, want)


@pytest.fixture(scope='module', params=PRIMES)
def parties(request):
  return Parties(request.param)


@pytest.mark.parametrize('p', PRIMES)
def test_the_moduli_are_batching_primes(p):
  assert p % 16384 == 1
  # Fermat to the first twelve bases is a proof below 2^64 (Miller-Rabin form).
  odd = (p - 1) // ((p - 1) & -(p - 1))
  for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
    x, steps = pow(base, odd, p), 0
    while x not in (1, p - 1) and odd << steps < p - 1:
      x, steps = x * x % p, steps + 1
    assert x == p - 1 or (x == 1 and steps == 0)


@pytest.mark.parametrize('products', [1, 2, 3])
@pytest.mark.parametrize('count', [1, 8192, 8193])
def test_shares_add_to_the_sum_of_products(parties, products, count):
  draw = parties.randomness.residues
  parties.check(*(draw(parties.p, (products, count)) for _ in range(2)))


def test_one_thread_replies_at_a_time(parties, monkeypatch):
  """Many at once would hold the memory of as many."""
  combine, locked = bfv.PublicKey.combine, []

  def noted(public, *args):
    locked.append(public.context.reply_lock.locked())
    return combine(public, *args)

  monkeypatch.setattr(bfv.PublicKey, 'combine', noted)
  parties.check(*(parties.randomness.residues(parties.p, (1, 1)) for _ in range(2)))
  assert locked == [True] and not parties.context.reply_lock.locked()


def test_every_pair_of_extreme_values_is_exact(parties):
  p = parties.p
  extremes = np.array([0, 1, p // 2, p // 2 + 1, p - 2, p - 1], np.uint64)
  a, b = (part.reshape(1, -1) for part in np.meshgrid(extremes, extremes))
  parties.check(a, b)


@pytest.mark.parametrize('a', [0, -1])
@pytest.mark.parametrize('b', [0, -1])
def test_whole_vectors_of_extreme_values_are_exact(parties, a, b):
  vectors = [np.full((2, 8192), value % parties.p, np.uint64) for value in (a, b)]
  parties.check(*vectors)


def test_one_product_of_zeros_among_others_is_exact(parties):
  a, b = (parties.randomness.residues(parties.p, (2, 100)) for _ in range(2))
  b[0] = 0
  parties.check(a, b)


def test_shares_are_uniform_and_new_each_time(parties):
  a, b = (np.zeros((1, 8192), np.uint64), np.ones((1, 8192), np.uint64))
  first, _ = parties.shares(a, b)
  second, beta = parties.shares(a, b)
  assert (first == second).mean() < 1e-3
  for share in (first, second, beta):
    counts = np.bincount((share.astype(object) * 16 // parties.p).astype(np.int64), minlength=16)
    assert ((counts - 512) ** 2 / 512).sum() < 60  # 15 degrees: 2e-7


def test_the_noise_is_within_the_bound_of_the_moduli(parties):
  context, p = parties.context, parties.p
  a, b = (parties.randomness.residues(p, (2, 8192)) for _ in range(2))
  message = ole.request(parties.secret, a, parties.randomness, b'tag')
  multipliers = [[context.multiplier(context.to_coefficients(row))] for row in b]
  encrypted = context.load(message[messages.BYTES :], 2)
  (total,) = parties.public.combine(encrypted, multipliers, SystemRandomness())
  q = math.prod(int(m) for m in context.moduli)
  # Two products by polynomials uniform in +-p/2: six deviations over 8192 places.
  noise = 3.24 * math.sqrt(2 * 8192 / 12) * p
  bound = math.log2(q / (2 * p)) - math.log2(6 * noise)
  budget = parties.secret._decryptor.invariant_noise_budget(total)
  assert bound - 1 <= budget <= bound + 3
  # What replies leave out adds 2^dropped sqrt(8192 / 18).
  noise += 2.0**context.parameters.dropped * math.sqrt(8192 / 18)
  # A carry in any coefficient ruins the block: 2^-23 for two products.
  assert 8192 * noise * p / q < 2**-23


def test_another_key_is_refused_and_would_decrypt_to_garbage(parties):
  a, b = (parties.randomness.residues(parties.p, (1, 100)) for _ in range(2))
  message = ole.request(parties.secret, a, parties.randomness, b'tag')
  answer, beta = ole.reply(parties.public, message, b, parties.randomness, b'tag')
  other = bfv.SecretKey(parties.context)
  with pytest.raises(ValueError, match='of another session, key or step'):
    ole.finish(other, answer, 100, b'tag')
  other.fingerprint = parties.secret.fingerprint
  alpha = ole.finish(other, answer, 100, b'tag')
  want = a[0].astype(object) * b[0].astype(object) % parties.p
  assert not ((alpha.astype(object) + beta) % parties.p == want).any()


@pytest.mark.parametrize('error', [-1, 1])
def test_messages_of_another_length_raise(parties, error):
  context, b = parties.context, np.ones((1, 100), np.uint64)
  message = bytes(ole.request_size(context, 1, 100) + error)
  with pytest.raises(ValueError, match='request of'):
    ole.reply(parties.public, message, b, parties.randomness, b'tag')
  with pytest.raises(ValueError, match='reply of'):
    ole.finish(parties.secret, bytes(ole.reply_size(context, 100) + error), 100, b'tag')


def test_residues_beyond_the_modulus_raise(parties):
  answer = ole._reply_identifier(parties.secret.fingerprint, b'tag', 0)
  answer += b'\xff' * (ole.reply_size(parties.context, 100) - len(answer))
  with pytest.raises(ValueError, match='digit'):
    ole.finish(parties.secret, answer, 100, b'tag')


def test_wrong_vectors_raise(parties):
  good = np.zeros((1, 100), np.uint64)
  for bad in (good[0], good.astype(np.int64), good + np.uint64(parties.p), good[:, :0]):
    with pytest.raises(ValueError, match='want'):
      ole.request(parties.secret, bad, parties.randomness, b'tag')


def test_messages_of_another_key_or_tag_and_shuffled_blocks_are_refused(parties):
  a, b = (parties.randomness.residues(parties.p, (1, 8193)) for _ in range(2))
  request = ole.request(parties.secret, a, parties.randomness, b'1')
  key = bfv.SecretKey(parties.context).public_key()
  for public, tag in (
    (bfv.PublicKey(parties.context, key), b'1'),
    (parties.public, b'2'),
  ):
    with pytest.raises(ValueError, match='request .* of another'):
      ole.reply(public, request, b, parties.randomness, tag)
  answer, beta = ole.reply(parties.public, request, b, parties.randomness, b'1')
  half = len(answer) // 2
  for tag, found in ((b'2', answer), (b'1', answer[half:] + answer[:half])):
    with pytest.raises(ValueError, match='reply .* of another'):
      ole.finish(parties.secret, found, 8193, tag)
  alpha = ole.finish(parties.secret, answer, 8193, b'1')
  want = a[0].astype(object) * b[0] % parties.p
  np.testing.assert_array_equal((alpha.astype(object) + beta) % parties.p, want)


def spread(context, key, randomness):
  """How far c1 of a reply is from a b: the largest distance modulo q, in units of q.

  `a` is the c1 of the request, and the client that sent `key` knows it.
  """
  secret, public = bfv.SecretKey(context), bfv.PublicKey(context, key)
  secret.fingerprint = public.fingerprint  # which names the key that was sent
  p = context.parameters.plain_modulus
  a, b = (randomness.residues(p, (1, context.degree)) for _ in range(2))
  request = ole.request(secret, a, randomness, b'tag')
  message, _ = ole.reply(public, request, b, randomness, b'tag')
  start = messages.BYTES + residues.SEED_BYTES
  dropped = context.parameters.dropped
  c1 = residues.unpack_high(message[start:], context.moduli, (context.degree,), dropped)
  (encrypted,) = context.load(request[messages.BYTES :], 1)
  context.evaluator.multiply_plain_inplace(
    encrypted, context.multiplier(context.to_coefficients(b[0]))
  )
  context.evaluator.transform_from_ntt_inplace(encrypted)
  distance = residues.subtract(c1, context.polynomials(encrypted)[1], context.moduli)
  return np.abs(wide_integers.from_residues(distance, context.moduli)).max() / context.modulus


@pytest.mark.parametrize('value', [0, 1])
def test_no_key_that_the_client_sends_opens_the_servers_vector(value):
  context = bfv.Context(bfv.slot_parameters(PRIMES[0]))
  key = residues.pack(np.full_like(context.second_half, value), context.moduli)
  assert spread(context, key, SystemRandomness()) > 0.49


@pytest.mark.parametrize('second', [1, 2])
def test_a_second_half_of_the_client_would_open_the_servers_vector(monkeypatch, second):
  context = bfv.Context(bfv.slot_parameters(PRIMES[0]))
  monkeypatch.setattr(context, 'second_half', np.full_like(context.second_half, second))
  key = residues.pack(np.zeros_like(context.second_half), context.moduli)
  assert spread(context, key, SystemRandomness()) < 1e-9

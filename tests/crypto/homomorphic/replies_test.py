"""What a client can read from a reply, with its defences and without them."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto import messages
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, packing, replies, residues
from safenet_jax.crypto.randomness import SystemRandomness

BITS = 56
Layer = packing.Convolution


@pytest.fixture(scope='module')
def context():
  return bfv.Context(dataclasses.replace(bfv.ring_parameters(BITS), dropped=0))


@pytest.fixture(scope='module')
def secret(context):
  return bfv.SecretKey(context)


@pytest.fixture
def public(context, secret):
  return bfv.PublicKey(context, secret.public_key())


def draw_kernel(layer):
  return np.random.default_rng(3).integers(-512, 512, layer.kernel_shape)


def run(secret, public, layer, kernel):
  """The upload, the reply, the client's share c and the server's share u."""
  randomness = SystemRandomness()
  weights = encrypted_convolution.prepare(public.context, layer, kernel)
  r = randomness.ring(BITS, layer.input_shape)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  message, u = encrypted_convolution.reply(public, weights, upload, randomness, b'tag')
  c = encrypted_convolution.decrypt_map(secret, layer, message, b'tag')
  return upload, message, c, u


def recover_kernel(context, upload, message):
  """The first group's first multiplier from c1 = a W, modulo the first prime.

  Of a context whose replies leave nothing of c1 out: what they leave out alone is noise.
  """
  q = int(context.moduli[0])
  data = message[messages.BYTES + residues.SEED_BYTES :]
  c1 = residues.unpack_high(data, context.moduli, (context.degree,), 0)
  encrypted = context.ciphertext(np.stack([c1, c1]), ntt=False)
  context.evaluator.transform_to_ntt_inplace(encrypted)
  c1 = context.polynomials(encrypted)[0]
  stream = residues.Expansion(upload[messages.BYTES :][:16])
  a = residues.uniform(stream, context.moduli, (context.degree,))
  quotient = np.zeros_like(c1)
  quotient[0] = [int(x) * pow(int(y), -1, q) % q for x, y in zip(c1[0], a[0])]
  encrypted = context.ciphertext(np.stack([quotient, quotient]), ntt=True)
  context.evaluator.transform_from_ntt_inplace(encrypted)
  found = context.polynomials(encrypted)[0, 0].astype(np.int64)
  return np.where(found > q // 2, found - q, found)


@pytest.mark.parametrize('defended', [False, True])
def test_only_the_fresh_zero_keeps_the_kernel_from_the_client(
  context, secret, public, monkeypatch, defended
):
  layer = Layer(8, 8, 2, 3, 3)
  kernel = draw_kernel(layer)
  layout = encrypted_convolution.layout_of(context, layer)
  assert (layout.inputs, layout.outputs) == (1, 1)
  if not defended:
    nothing = np.zeros((2, context.moduli.size, context.degree), np.uint64)
    monkeypatch.setattr(public, 'fresh_zero', lambda _: context.ciphertext(nothing, ntt=False))
  upload, message, _, _ = run(secret, public, layer, kernel)
  found = recover_kernel(context, upload, message)
  (packed,) = layout.pack_kernel(kernel, range(1))
  if defended:
    assert (found == packed[0]).mean() < 1e-3
    assert np.median(np.abs(found)) > 2**39  # uniform below 2^41 in size: about 2^40
  else:
    np.testing.assert_array_equal(found, packed[0])


def degenerate_keys(context):
  """First halves pk0 that a client might choose instead of its own, by name."""
  shape = context.moduli.size, context.degree
  assert context.second_half.shape == shape
  sparse = np.zeros(shape, np.uint64)
  sparse[:, 0] = 1
  small = np.broadcast_to(np.arange(context.degree, dtype=np.uint64) % 3, shape)
  other = bfv.Context(bfv.ring_parameters(BITS, b'another session'))
  return {
    'zero': np.zeros(shape, np.uint64),
    'one': np.ones(shape, np.uint64),
    'sparse': sparse,
    'small': small,
    'largest': np.broadcast_to(context.moduli[:, None] - np.uint64(1), shape),
    'second half': context.second_half,
    'of another session': bfv.SecretKey(other).public_key(),
  }


@pytest.mark.parametrize(
  'name', ['zero', 'one', 'sparse', 'small', 'largest', 'second half', 'of another session']
)
def test_no_key_that_the_client_sends_opens_the_kernel(context, name):
  """The attack of the next test, which also chooses where it can: pk0, the half that it sends."""
  key = degenerate_keys(context)[name]
  if not isinstance(key, bytes):
    key = residues.pack(key, context.moduli)
  assert chosen_key_attack(bfv.PublicKey(context, key)) > 0.49


@pytest.mark.parametrize('second', [1, 2])
def test_a_second_half_of_the_client_would_open_the_kernel(monkeypatch, second):
  context = bfv.Context(dataclasses.replace(bfv.ring_parameters(BITS), dropped=0))
  monkeypatch.setattr(context, 'second_half', np.full_like(context.second_half, second))
  key = residues.pack(np.zeros_like(context.second_half), context.moduli)
  assert chosen_key_attack(bfv.PublicKey(context, key)) < 1e-6


def chosen_key_attack(public):
  """How far c1 is from a W for a client that sent the key `public`, in units of q_0.

  The largest distance modulo the first prime q_0. Where it is small, nothing but noise hides W.
  """
  context, layer = public.context, Layer(8, 8, 2, 3, 3)
  kernel = draw_kernel(layer)
  layout = encrypted_convolution.layout_of(context, layer)
  weights = encrypted_convolution.prepare(context, layer, kernel)
  randomness = SystemRandomness()
  secret = bfv.SecretKey(context)
  secret.fingerprint = public.fingerprint  # which names the key that was sent
  upload = encrypted_convolution.encrypt_map(
    secret, layer, randomness.ring(BITS, layer.input_shape), randomness, b'tag'
  )
  message, _ = encrypted_convolution.reply(public, weights, upload, randomness, b'tag')
  data = message[messages.BYTES + residues.SEED_BYTES :]
  c1 = residues.unpack_high(data, context.moduli, (context.degree,), 0)
  (packed,) = layout.pack_kernel(kernel, range(1))
  a = context.load(upload[messages.BYTES :], 1)[0]
  w = np.where(packed[0] < 0, packed[0] + 2**BITS, packed[0]).astype(np.uint64)
  context.evaluator.multiply_plain_inplace(a, context.multiplier(w))
  context.evaluator.transform_from_ntt_inplace(a)
  distance = residues.subtract(c1, context.polynomials(a)[1], context.moduli)[0]
  q = context.moduli[0]
  return float(np.minimum(distance, q - distance).max() / q)


def test_every_reply_adds_zeros_of_its_own(context, secret, public, monkeypatch):
  layer = Layer(70, 66, 2, 3, 3)
  zeros, fresh_zero = [], public.fresh_zero

  def record(randomness):
    zeros.append(fresh_zero(randomness))
    return zeros[-1]

  monkeypatch.setattr(public, 'fresh_zero', record)
  layout = encrypted_convolution.layout_of(context, layer)
  for _ in range(2):
    run(secret, public, layer, draw_kernel(layer))
  blobs = {context.polynomials(zero).tobytes() for zero in zeros}
  assert len(blobs) == len(zeros) == 2 * layout.tiles * layout.outputs


def chi_square(values, bits=BITS):
  """Of the top four bits: 15 degrees of freedom."""
  top = (values >> np.uint64(bits - 4)).astype(np.int64).ravel()
  counts, want = np.bincount(top, minlength=16), top.size / 16
  return ((counts - want) ** 2 / want).sum()


def test_shares_are_uniform_whatever_the_weights(secret, public):
  layer = Layer(32, 32, 1, 8, 3)
  for kernel in (np.zeros(layer.kernel_shape, np.int64), draw_kernel(layer)):
    _, _, c, u = run(secret, public, layer, kernel)
    assert chi_square(c) < 60  # 15 degrees: 2e-7
    assert chi_square(u) < 60


@pytest.mark.parametrize('masked', [False, True])
def test_without_seed_and_fresh_zero_the_share_is_the_result(
  context, secret, public, monkeypatch, masked
):
  """So the test above fails without its defences; the seed is one by itself."""
  layer = Layer(32, 32, 1, 8, 3)
  kernel = np.zeros(layer.kernel_shape, np.int64)
  nothing = np.zeros((2, context.moduli.size, context.degree), np.uint64)
  nothing[1, :, 0] = 1  # SEAL refuses all zeros
  monkeypatch.setattr(public, 'fresh_zero', lambda _: context.ciphertext(nothing, ntt=False))
  if not masked:
    monkeypatch.setattr(replies, '_drawn', no_first_half)
  _, _, c, u = run(secret, public, layer, kernel)
  assert not ((c + u) % 2**BITS).any()
  if masked:
    assert chi_square(c) < 60 and chi_square(u) < 60
  else:
    assert not c.any() and not u.any()
    assert chi_square(c) > 1e4


def no_first_half(context, seed, places):
  """No z at all."""
  del seed
  return np.zeros((context.moduli.size, places.size), np.uint64)


def test_every_group_has_a_seed_of_its_own(secret, public):
  layer = Layer(32, 32, 1, 8, 3)
  seeds = set()
  for _ in range(2):
    _, message, _, _ = run(secret, public, layer, draw_kernel(layer))
    groups = encrypted_convolution.layout_of(public.context, layer).outputs
    for start in range(0, len(message), len(message) // groups):
      seeds.add(message[start + messages.BYTES :][: residues.SEED_BYTES])
  assert len(seeds) == 2 * groups > 2


def test_the_second_half_is_uniform(context, secret, public):
  """Chi-square of c1 as sent, for two kernels."""
  layer = Layer(32, 32, 1, 2, 3)
  for kernel in (np.zeros(layer.kernel_shape, np.int64), draw_kernel(layer)):
    _, message, _, _ = run(secret, public, layer, kernel)
    data = message[messages.BYTES + residues.SEED_BYTES :]
    first = residues.unpack_high(data, context.moduli, (4096,), 0)[0]
    assert chi_square(first >> np.uint64(42 - 4), bits=4) < 60


def test_a_reply_is_a_seed_and_the_high_bits_of_one_polynomial():
  context = bfv.Context(bfv.ring_parameters(BITS))
  layer = Layer(8, 8, 64, 64, 3)
  layout = encrypted_convolution.layout_of(context, layer)
  group = messages.BYTES + residues.SEED_BYTES + 4096 * (BITS + 15) // 8
  assert encrypted_convolution.reply_size(context, layer) == layout.outputs * group


def test_shares_add_to_the_plaintext_at_the_places(context, secret, public):
  randomness = SystemRandomness()
  values = randomness.ring(BITS, (1, context.degree))
  one = np.zeros(context.degree, np.uint64)
  one[0] = 1
  encrypted = context.load(secret.encrypt(values, randomness), 1)
  totals = public.combine(encrypted, [[context.multiplier(one)] * 2], SystemRandomness())
  places = np.array([5, 0, 4095, 4096, 8191])
  message, mask = replies.mask(context, totals, places, randomness)
  assert len(message) == replies.size(context, 2)
  alpha = replies.unmask(secret, message, 2, places)
  want = np.tile(values[0], 2)[places]
  np.testing.assert_array_equal((alpha + context.round(mask)) % 2**BITS, want)

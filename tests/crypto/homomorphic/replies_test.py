"""What a client can read from a reply, with its defences and without them."""

import numpy as np
import pytest

from safenet_jax.crypto import messages
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, packing, replies, residues
from safenet_jax.crypto.randomness import Randomness, SystemRandomness

BITS = 56
Layer = packing.Convolution


class InsecureZeros(Randomness):
  """No mask at all."""

  def fill(self, out):
    out[...] = 0


@pytest.fixture(scope='module')
def context():
  return bfv.Context(bfv.ring_parameters(BITS))


@pytest.fixture(scope='module')
def secret(context):
  return bfv.SecretKey(context)


@pytest.fixture
def public(context, secret):
  return bfv.PublicKey(context, secret.public_key())


def draw_kernel(layer):
  return np.random.default_rng(3).integers(-512, 512, layer.kernel_shape)


def run(secret, public, layer, kernel, masks=None):
  """The upload, the reply, the client's share c and the server's share u."""
  randomness = SystemRandomness()
  weights = encrypted_convolution.prepare(public.context, layer, kernel)
  r = randomness.ring(BITS, layer.input_shape)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  message, u = encrypted_convolution.reply(public, weights, upload, masks or randomness, b'tag')
  c = encrypted_convolution.decrypt_map(secret, layer, message, b'tag')
  return upload, message, c, u


def recover_kernel(context, layout, upload, message):
  """The first group's first multiplier from c1 = a W, modulo the first prime."""
  q = int(context.moduli[0])
  places = layout.output_places(0).size
  data = message[messages.BYTES + residues.size(context.moduli, places) :]
  c1 = residues.unpack(data, context.moduli, (context.degree,))
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
  layout = packing.layout(layer, context.degree)
  assert (layout.inputs, layout.outputs) == (1, 1)
  if not defended:
    nothing = np.zeros((2, context.moduli.size, context.degree), np.uint64)
    monkeypatch.setattr(public, 'fresh_zero', lambda: context.ciphertext(nothing, ntt=False))
  upload, message, _, _ = run(secret, public, layer, kernel)
  found = recover_kernel(context, layout, upload, message)
  (packed,) = layout.pack_kernel(kernel, range(1))
  if defended:
    assert (found == packed[0]).mean() < 1e-3
    assert np.median(np.abs(found)) > 2**40
  else:
    np.testing.assert_array_equal(found, packed[0])


def degenerate_keys(context):
  """First halves pk0 that a client might choose instead of its own, by name."""
  shape = context.moduli.size + 1, context.degree
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
    'largest': np.broadcast_to(context.key_moduli[:, None] - np.uint64(1), shape),
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
    key = residues.pack(key, context.key_moduli)
  assert chosen_key_attack(bfv.PublicKey(context, key)) < 1e-3


@pytest.mark.parametrize('second', [0, 1])
def test_a_second_half_of_the_client_would_open_the_kernel(monkeypatch, second):
  context = bfv.Context(bfv.ring_parameters(BITS))
  monkeypatch.setattr(context, 'second_half', np.full_like(context.second_half, second))
  key = residues.pack(np.zeros_like(context.second_half), context.key_moduli)
  assert chosen_key_attack(bfv.PublicKey(context, key)) > 0.999


def chosen_key_attack(public):
  """What part of a packed kernel the client finds in c1 when it sent the key `public`."""
  context, layer = public.context, Layer(8, 8, 2, 3, 3)
  kernel = draw_kernel(layer)
  layout = packing.layout(layer, context.degree)
  weights = encrypted_convolution.prepare(context, layer, kernel)
  randomness = SystemRandomness()
  secret = bfv.SecretKey(context)
  secret.fingerprint = public.fingerprint  # which names the key that was sent
  upload = encrypted_convolution.encrypt_map(
    secret, layer, randomness.ring(BITS, layer.input_shape), randomness, b'tag'
  )
  message, _ = encrypted_convolution.reply(public, weights, upload, randomness, b'tag')
  (packed,) = layout.pack_kernel(kernel, range(1))
  return (recover_kernel(context, layout, upload, message) == packed[0]).mean()


def test_every_reply_adds_zeros_of_its_own(context, secret, public, monkeypatch):
  layer = Layer(70, 66, 2, 3, 3)
  zeros, fresh_zero = [], public.fresh_zero

  def record():
    zeros.append(fresh_zero())
    return zeros[-1]

  monkeypatch.setattr(public, 'fresh_zero', record)
  layout = packing.layout(layer, context.degree)
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


def test_without_the_mask_the_share_is_the_result(secret, public):
  """So the test above fails without its defence."""
  layer = Layer(32, 32, 1, 8, 3)
  kernel = np.zeros(layer.kernel_shape, np.int64)
  _, _, c, u = run(secret, public, layer, kernel, InsecureZeros())
  assert not c.any() and not u.any()
  assert chi_square(c) > 1e4


def test_masked_polynomials_are_uniform(context, secret, public):
  """Chi-square of c0 and c1 as sent, for two kernels."""
  layer = Layer(32, 32, 1, 2, 3)
  for kernel in (np.zeros(layer.kernel_shape, np.int64), draw_kernel(layer)):
    _, message, _, _ = run(secret, public, layer, kernel)
    body, split = message[messages.BYTES :], residues.size(context.moduli, 2048)
    for data, count in ((body[:split], 2048), (body[split:], 4096)):
      first = residues.unpack(data, context.moduli, (count,))[0]
      assert chi_square(first >> np.uint64(47 - 4), bits=4) < 60


def test_only_useful_coefficients_are_sent(context):
  layer = Layer(8, 8, 64, 64, 3)
  layout = packing.layout(layer, context.degree)
  bits = 93 * (8 * 8 * 64 + layout.outputs * 4096)
  size = encrypted_convolution.reply_size(context, layer)
  assert bits / 8 <= size <= bits / 8 + (16 + messages.BYTES) * layout.outputs


def test_shares_add_to_the_plaintext_at_the_places(context, secret, public):
  randomness = SystemRandomness()
  values = randomness.ring(BITS, (1, context.degree))
  one = np.zeros(context.degree, np.uint64)
  one[0] = 1
  encrypted = context.load(secret.encrypt(values, randomness), 1)
  totals = public.combine(encrypted, [[context.multiplier(one)] * 2])
  places = np.array([5, 0, 4095, 4096, 8191])
  message, mask = replies.mask(context, totals, places, randomness)
  assert len(message) == replies.size(context, 2, 5)
  alpha = replies.unmask(secret, message, 2, places)
  want = np.tile(values[0], 2)[places]
  np.testing.assert_array_equal((alpha + context.round(mask)) % 2**BITS, want)

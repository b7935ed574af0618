import functools
import math

import numpy as np
import pytest

from safenet_jax.crypto import messages
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, packing
from safenet_jax.crypto.randomness import InsecureSeededRandomness, SystemRandomness
from tests.support import plain_convolution

BITS = 56
Layer = packing.Convolution

CNN7 = [
  Layer(32, 32, 3, 64, 3),
  Layer(32, 32, 64, 64, 3),
  Layer(16, 16, 64, 64, 3),
  Layer(8, 8, 64, 64, 3),
  Layer(8, 8, 64, 64, 1),
  Layer(8, 8, 64, 16, 1),
  Layer(1, 1, 1024, 10, 1),
]
OTHERS = [
  Layer(28, 28, 1, 16, 5),
  Layer(14, 14, 16, 16, 5),
  Layer(7, 9, 3, 5, 5, 2),
  Layer(15, 16, 4, 4, 3, 2),
  Layer(9, 9, 4, 6, 1, 2),
  Layer(1, 1, 1, 1, 1),
  Layer(70, 66, 2, 3, 3),  # tiled
  Layer(1, 5000, 1, 2, 3, 2),  # tiled along one axis
  Layer(7, 7, 40, 40, 3, groups=40),
  Layer(60, 70, 3, 3, 3, 2, groups=3, padding=((0, 1), (0, 1))),
  Layer(9, 8, 8, 12, 3, groups=4, dilation=2, padding=((1, 0), (2, 2))),
]
RESNET32 = [
  Layer(32, 32, 3, 16, 3),
  Layer(32, 32, 16, 16, 3),
  Layer(32, 32, 16, 32, 3, 2),
  Layer(32, 32, 16, 32, 1, 2),
  Layer(16, 16, 32, 32, 3),
  Layer(16, 16, 32, 64, 3, 2),
  Layer(16, 16, 32, 64, 1, 2),
  Layer(8, 8, 64, 64, 3),
  Layer(1, 1, 64, 100, 1),
]
VGG16 = [
  Layer(16, 16, 64, 128, 3),
  Layer(16, 16, 128, 128, 3),
  Layer(8, 8, 128, 256, 3),
  Layer(8, 8, 256, 256, 3),
  Layer(4, 4, 256, 512, 3),
  Layer(4, 4, 512, 512, 3),
  Layer(2, 2, 512, 512, 3),
  Layer(1, 1, 512, 512, 1),
  Layer(1, 1, 512, 10, 1),
]


@pytest.fixture(scope='module')
def context():
  return bfv.Context(bfv.ring_parameters(BITS))


@pytest.fixture(scope='module')
def secret(context):
  return bfv.SecretKey(context)


@pytest.fixture
def public(context, secret):
  return bfv.PublicKey(context, secret.public_key())


def draw_kernel(layer, bits=10):
  rng = np.random.default_rng(3)
  return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), layer.kernel_shape)


def run(secret, public, layer, kernel, randomness=None):
  """r, the reply, the client's share c and the server's share u."""
  randomness = randomness or SystemRandomness()
  weights = encrypted_convolution.prepare(public.context, layer, kernel)
  r = randomness.ring(BITS, layer.input_shape)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  assert len(upload) == encrypted_convolution.upload_size(public.context, layer)
  message, u = encrypted_convolution.reply(public, weights, upload, randomness, b'tag')
  assert len(message) == encrypted_convolution.reply_size(public.context, layer)
  c = encrypted_convolution.decrypt_map(secret, layer, message, b'tag')
  assert c.shape == u.shape == layer.output_shape
  return r, message, c, u


def deviation(layer, kernel, r, c, u):
  """c + u - W r in Z_2^56, nearest to zero."""
  difference = c + u - plain_convolution.convolved(r, kernel, layer)
  return (difference << np.uint64(64 - BITS)).view(np.int64) >> (64 - BITS)


def check_exact(secret, public, layer):
  kernel = draw_kernel(layer)
  r, _, c, u = run(secret, public, layer, kernel)
  wrong = deviation(layer, kernel, r, c, u)
  assert np.abs(wrong).max() <= 1
  # E|noise| t / q for noise of deviation 3.24 ||w||, and what replies leave out: 12 2^-15.
  norms = np.sqrt((kernel.astype(float) ** 2).sum(axis=(0, 1, 2)))
  expected = (3.24 * norms * 2.0**-28).sum() * c[..., 0].size + 12 * 2.0**-15 * c.size
  assert np.count_nonzero(wrong) <= expected + 6 * math.sqrt(expected) + 3


@pytest.mark.parametrize('layer', CNN7 + OTHERS, ids=str)
def test_shares_add_to_the_convolution(secret, public, layer):
  check_exact(secret, public, layer)


@pytest.mark.slow
@pytest.mark.parametrize('layer', RESNET32 + VGG16, ids=str)
def test_shares_add_to_the_convolution_of_large_networks(secret, public, layer):
  check_exact(secret, public, layer)


@pytest.mark.parametrize('bits', [20, 28, 36, 41])
def test_other_rings_work(bits):
  context = bfv.Context(bfv.ring_parameters(bits))
  secret = bfv.SecretKey(context)
  public = bfv.PublicKey(context, secret.public_key())
  layer = Layer(8, 8, 3, 4, 3)
  kernel = draw_kernel(layer)
  randomness = SystemRandomness()
  r = randomness.ring(bits, layer.input_shape)
  weights = encrypted_convolution.prepare(context, layer, kernel)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  message, u = encrypted_convolution.reply(public, weights, upload, randomness, b'tag')
  c = encrypted_convolution.decrypt_map(secret, layer, message, b'tag')
  want = plain_convolution.convolved(r, kernel, layer)
  assert ((c + u - want + np.uint64(1)) % np.uint64(2**bits)).max() <= 2


@pytest.mark.parametrize('bits', [28, 36, 56])
@pytest.mark.parametrize('layer', [Layer(32, 32, 3, 6, 3), *OTHERS[2:7]], ids=str)
def test_shares_add_to_the_convolution_of_a_drawn_map(bits, layer):
  secret, public = keys_of(bits)
  kernel, randomness = draw_kernel(layer), SystemRandomness()
  weights = encrypted_convolution.prepare(public.context, layer, kernel)
  upload, r = encrypted_convolution.draw_map(secret, layer, randomness, b'tag')
  sizes = [
    encrypted_convolution.upload_size(public.context, layer, drawn=drawn) for drawn in (True, False)
  ]
  assert len(upload) == sizes[0] < sizes[1]
  assert r.shape == layer.input_shape and r.max() < 2**bits
  message, u = encrypted_convolution.reply(public, weights, upload, randomness, b'tag', drawn=True)
  c = encrypted_convolution.decrypt_map(secret, layer, message, b'tag')
  want = plain_convolution.convolved(r, kernel, layer)
  assert ((c + u - want + np.uint64(1)) % np.uint64(2**bits)).max() <= 2


@functools.cache
def keys_of(bits):
  context = bfv.Context(bfv.ring_parameters(bits))
  secret = bfv.SecretKey(context)
  return secret, bfv.PublicKey(context, secret.public_key())


def test_a_drawn_map_is_refused_as_a_given_one_and_the_other_way_round(context, secret, public):
  layer = Layer(1, 1, 4096, 1, 1)  # one polynomial, which is drawn as a whole
  randomness = SystemRandomness()
  weights = encrypted_convolution.prepare(context, layer, draw_kernel(layer))
  upload, r = encrypted_convolution.draw_map(secret, layer, randomness, b'tag')
  given = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  for message, drawn in ((upload, False), (given, True)):
    with pytest.raises(ValueError, match='upload of'):
      encrypted_convolution.reply(public, weights, message, randomness, b'tag', drawn=drawn)
  with pytest.raises(ValueError, match='upload .* of another'):
    changed = given[: messages.BYTES] + upload[messages.BYTES :]
    encrypted_convolution.reply(public, weights, changed, randomness, b'tag', drawn=True)


def test_weights_fit_a_ring_as_they_can_be_prepared():
  layer = Layer(1, 1, 1, 1, 1)
  for weight in (1 << 14, 1 << 15, 1 << 16, 1 << 17):
    kernel = np.full(layer.kernel_shape, weight)
    for bits in (28, 36, 56):
      context = keys_of(bits)[0].context
      try:
        encrypted_convolution.prepare(context, layer, kernel)
        assert encrypted_convolution.fits(kernel, bits)
      except ValueError:
        assert not encrypted_convolution.fits(kernel, bits)
  assert not encrypted_convolution.fits(kernel, 28) and not encrypted_convolution.fits(kernel, 36)


class CountingEvaluator:
  """SEAL's evaluator with a list of the calls made."""

  def __init__(self, evaluator):
    self.evaluator, self.calls = evaluator, []

  def __getattr__(self, name):
    method = getattr(self.evaluator, name)

    def call(*args):
      self.calls.append(name)
      return method(*args)

    return call


def test_zero_kernels_work_and_cost_the_same_calls_and_bytes(secret, public, monkeypatch):
  layer = Layer(32, 32, 3, 7, 3)
  dense = draw_kernel(layer)
  block = dense.copy()
  block[..., 2:6] = 0  # at 3 channels a ciphertext, all of the second is zero
  input_block = dense.copy()
  input_block[:, :, 1] = 0
  seen = set()
  for kernel in (dense, block, input_block, np.zeros_like(dense)):
    counter = CountingEvaluator(secret.context.evaluator)
    with monkeypatch.context() as patch:
      patch.setattr(secret.context, 'evaluator', counter)
      r, message, c, u = run(secret, public, layer, kernel)
    assert np.abs(deviation(layer, kernel, r, c, u)).max() <= 1
    seen.add((tuple(counter.calls), len(message)))
  assert len(seen) == 1


def test_the_largest_weights_work(secret, public):
  layer = Layer(8, 8, 2, 2, 3)
  kernel = np.full(layer.kernel_shape, 2**14)
  kernel[..., 1] = -(2**14)
  r, _, c, u = run(secret, public, layer, kernel)
  assert np.abs(deviation(layer, kernel, r, c, u)).max() <= 1


@pytest.mark.parametrize('layer', [CNN7[1], CNN7[4], OTHERS[0], OTHERS[6]], ids=str)
def test_the_noise_is_within_the_bound_of_the_moduli(context, secret, public, layer):
  kernel = draw_kernel(layer)
  randomness = SystemRandomness()
  weights = encrypted_convolution.prepare(context, layer, kernel)
  r = randomness.ring(BITS, layer.input_shape)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  layout = weights.layout
  tile = context.load(upload[messages.BYTES :], layout.tiles * layout.inputs)[: layout.inputs]
  totals = public.combine(tile, weights.multipliers, weights.offset)
  packed = layout.pack_kernel(kernel, range(layout.outputs))
  for total, polynomials in zip(totals, packed):
    norm = math.sqrt((polynomials.astype(float) ** 2).sum())
    # Six deviations of the products and 2^7 for Enc(0), against q / 2 t = 2^27.
    bound = 27 - math.log2(6 * 3.24 * norm + 2**7)
    budget = secret._decryptor.invariant_noise_budget(total)
    assert bound - 1 <= budget <= bound + 3
    assert budget >= 8


def test_another_key_is_refused_and_would_decrypt_to_garbage(context, secret, public, monkeypatch):
  layer = Layer(8, 8, 3, 4, 3)
  kernel = draw_kernel(layer)
  r, message, _, u = run(secret, public, layer, kernel)
  other = bfv.SecretKey(context)
  with pytest.raises(ValueError, match='of another session, key or step'):
    encrypted_convolution.decrypt_map(other, layer, message, b'tag')
  monkeypatch.setattr(other, 'fingerprint', secret.fingerprint)
  c = encrypted_convolution.decrypt_map(other, layer, message, b'tag')
  assert np.abs(deviation(layer, kernel, r, c, u)).min() > 2**20


def test_messages_of_another_key_layer_or_tag_are_refused(context, secret, public):
  # Two layers of one size each way, and two groups in each reply.
  layers = [Layer(32, 32, 1, 6, 3), Layer(32, 32, 1, 6, 5)]
  kernels = [draw_kernel(layer) for layer in layers]
  weights = [encrypted_convolution.prepare(context, *pair) for pair in zip(layers, kernels)]
  randomness = SystemRandomness()
  r = randomness.ring(BITS, layers[0].input_shape)
  client = encrypted_convolution.encrypt_map, encrypted_convolution.decrypt_map
  upload = client[0](secret, layers[0], r, randomness, b'1')
  assert encrypted_convolution.upload_size(context, layers[1]) == len(upload)
  stranger = bfv.PublicKey(context, bfv.SecretKey(context).public_key())
  for server, prepared, tag in (
    (stranger, weights[0], b'1'),
    (public, weights[1], b'1'),
    (public, weights[0], b'2'),
  ):
    with pytest.raises(ValueError, match='upload .* of another'):
      encrypted_convolution.reply(server, prepared, upload, randomness, tag)
  message, u = encrypted_convolution.reply(public, weights[0], upload, randomness, b'1')
  half = len(message) // 2
  for layer, tag, found in (
    (layers[1], b'1', message),
    (layers[0], b'2', message),
    (layers[0], b'1', message[half:] + message[:half]),
    (layers[0], b'1', message[:half] * 2),
  ):
    with pytest.raises(ValueError, match='reply .* of another'):
      client[1](secret, layer, found, tag)
  c = client[1](secret, layers[0], message, b'1')
  assert np.abs(deviation(layers[0], kernels[0], r, c, u)).max() <= 1


@pytest.mark.parametrize('error', [-1, 1])
def test_blobs_of_another_length_raise(context, secret, public, error):
  layer = Layer(8, 8, 3, 4, 3)
  kernel = draw_kernel(layer)
  _, message, _, _ = run(secret, public, layer, kernel)
  weights = encrypted_convolution.prepare(context, layer, kernel)
  with pytest.raises(ValueError, match='reply of'):
    wrong = (message + b'\0')[: len(message) + error]
    encrypted_convolution.decrypt_map(secret, layer, wrong, b'tag')
  upload = bytes(encrypted_convolution.upload_size(context, layer) + error)
  with pytest.raises(ValueError, match='upload of'):
    encrypted_convolution.reply(public, weights, upload, SystemRandomness(), b'tag')


def test_digits_beyond_the_modulus_raise(context, secret):
  layer = Layer(8, 8, 3, 4, 3)
  message = encrypted_convolution._reply_identifier(secret.fingerprint, layer, b'tag', 0)
  message += b'\xff' * (encrypted_convolution.reply_size(context, layer) - len(message))
  with pytest.raises(ValueError, match='digit'):
    encrypted_convolution.decrypt_map(secret, layer, message, b'tag')


def test_wrong_kernels_and_maps_raise(context, secret):
  layer = Layer(8, 8, 3, 4, 3)
  kernel = draw_kernel(layer)
  randomness = InsecureSeededRandomness(1)
  for bad in (kernel[..., :3], kernel.astype(np.float64), np.full_like(kernel, 2**54)):
    with pytest.raises(ValueError, match='want'):
      encrypted_convolution.prepare(context, layer, bad)
  values = randomness.ring(BITS, layer.input_shape)
  for bad in (values[:7], values.view(np.int64), np.full_like(values, 2**56)):
    with pytest.raises(ValueError, match='want'):
      encrypted_convolution.encrypt_map(secret, layer, bad, randomness, b'tag')


def test_weights_whose_noise_would_show_are_refused(context):
  layer = packing.Convolution(2, 2, 64, 1, 1)
  kernel = np.full(layer.kernel_shape, 1 << 34)
  with pytest.raises(ValueError, match='round wrongly'):
    encrypted_convolution.prepare(context, layer, kernel)
  # One weight w rounds wrongly with 3.24 w 2^-28, which is to be at most 2^-10.
  single = packing.Convolution(1, 1, 1, 1, 1)
  kernel = np.full(single.kernel_shape, 1 << 16)
  encrypted_convolution.prepare(context, single, kernel)
  with pytest.raises(ValueError, match='round wrongly'):
    encrypted_convolution.prepare(context, single, 2 * kernel)


def test_one_thread_replies_at_a_time(secret, public, monkeypatch):
  """Many at once would hold the memory of as many."""
  combine, locked = bfv.PublicKey.combine, []

  def noted(public, *args):
    locked.append(public.context.reply_lock.locked())
    return combine(public, *args)

  monkeypatch.setattr(bfv.PublicKey, 'combine', noted)
  layer = Layer(1, 1, 64, 10, 1)
  run(secret, public, layer, draw_kernel(layer))
  assert locked == [True] and not public.context.reply_lock.locked()

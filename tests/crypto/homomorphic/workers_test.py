import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, packing, workers
from safenet_jax.crypto.randomness import SystemRandomness
from tests.support import plain_convolution

PARAMETERS = bfv.ring_parameters()
# Two output ciphertexts, one, and one.
SHAPES = [
  packing.Convolution(32, 32, 1, 6, 3),
  packing.Convolution(8, 8, 3, 4, 3, 2),
  packing.Convolution(1, 1, 64, 10, 1),
]
KERNELS = [
  np.random.default_rng(1).integers(-100, 100, (*layer.kernel_shape[:3], 1))
  * np.ones(layer.channels_out, np.int64)
  for layer in SHAPES
]


@pytest.fixture(scope='module')
def secret():
  return bfv.SecretKey(bfv.Context(PARAMETERS))


@pytest.fixture(scope='module')
def pool():
  with workers.Workers(2, PARAMETERS, list(zip(SHAPES, KERNELS))) as pool:
    yield pool


def test_an_upload_before_the_key_raises():
  error = pytest.raises(ValueError, match='before the public key')
  with workers.Workers(1, PARAMETERS, [(SHAPES[2], KERNELS[2])]) as pool, error:
    pool.reply(0, b'', b'tag')


@pytest.mark.parametrize('index', range(len(SHAPES)))
def test_workers_together_answer_like_one_server(secret, pool, index):
  layer, randomness = SHAPES[index], SystemRandomness()
  pool.use_key(secret.public_key())
  r = randomness.ring(56, layer.input_shape)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  message, u = pool.reply(index, upload, b'tag')
  c = encrypted_convolution.decrypt_map(secret, layer, message, b'tag')
  want = plain_convolution.padded(r, KERNELS[index], layer.stride)
  np.testing.assert_array_equal((c + u) % 2**56, want % 2**56)


def test_two_workers_and_two_replies_repeat_nothing(secret):
  """Both workers have the same weights, get the same upload and are new."""
  layer, randomness = SHAPES[0], SystemRandomness()
  r = randomness.ring(56, layer.input_shape)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  pieces, shares = [], []
  with workers.Workers(2, PARAMETERS, [(layer, KERNELS[0])]) as pool:
    pool.use_key(secret.public_key())
    for _ in range(2):
      message, u = pool.reply(0, upload, b'tag')
      half = len(message) // 2
      pieces += [message[start : start + half] for start in (0, half)]
      shares += [u[..., :3], u[..., 3:]]
  for one in range(4):
    for other in range(one):
      same = np.frombuffer(pieces[one], np.uint8) == np.frombuffer(pieces[other], np.uint8)
      assert abs(same.mean() - 1 / 256) < 1e-3
      assert (shares[one] == shares[other]).mean() < 1e-3


def test_a_malformed_upload_raises_and_the_pool_goes_on(secret, pool):
  pool.use_key(secret.public_key())
  with pytest.raises(ValueError, match='upload of'):
    pool.reply(1, b'short', b'tag')
  with pytest.raises(ValueError, match='bytes'):
    pool.use_key(b'short')
  with pytest.raises(ValueError, match='layer'):
    pool.reply(3, b'', b'tag')
  test_workers_together_answer_like_one_server(secret, pool, 1)


def test_no_workers_raise():
  with pytest.raises(ValueError, match='workers'):
    workers.Workers(0, PARAMETERS, [])

"""The linear layers of one image under encryption beside their bare SEAL calls.

Values are CPU seconds of both parties. Preparing the weights, which happens once per
model, is not counted. The floor of a layer is the SEAL calls that its packing needs,
on messages and weights that are already SEAL's own objects. It leaves out packing,
masks, and turning messages into bytes.
"""

import collections
from collections.abc import Callable, Iterator
import time

import numpy as np
import seal

from experiments import benchmarks
from experiments.benchmarks import Row
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution
from safenet_jax.crypto.homomorphic.packing import Convolution
from safenet_jax.crypto.randomness import SystemRandomness

# Uniform weights of 10 bits have norms as large as those of trained layers, or larger.
_WEIGHT_BITS = 10


def _dense(channels_in: int, channels_out: int) -> Convolution:
  return Convolution(1, 1, channels_in, channels_out, 1)


def _same(size: int, channels: int, kernel: int = 3) -> Convolution:
  return Convolution(size, size, channels, channels, kernel)


# MiniONN's CIFAR-10 network (eprint 2017/452, Figure 13).
CNN7 = [
  Convolution(32, 32, 3, 64, 3),
  _same(32, 64),
  _same(16, 64),
  _same(16, 64),
  _same(8, 64),
  _same(8, 64, 1),
  Convolution(8, 8, 64, 16, 1),
  _dense(1024, 10),
]
# Configuration D of Simonyan and Zisserman (arXiv 1409.1556) on 32x32 images, with
# two dense layers.
VGG16 = [
  Convolution(32, 32, 3, 64, 3),
  _same(32, 64),
  Convolution(16, 16, 64, 128, 3),
  _same(16, 128),
  Convolution(8, 8, 128, 256, 3),
  *[_same(8, 256)] * 2,
  Convolution(4, 4, 256, 512, 3),
  *[_same(4, 512)] * 2,
  *[_same(2, 512)] * 3,
  _dense(512, 512),
  _dense(512, 10),
]
# He et al. (arXiv 1512.03385, section 4.2), n = 5, with projection shortcuts, 100
# classes.
RESNET32 = [
  Convolution(32, 32, 3, 16, 3),
  *[_same(32, 16)] * 10,
  Convolution(32, 32, 16, 32, 3, 2),
  Convolution(32, 32, 16, 32, 1, 2),
  *[_same(16, 32)] * 9,
  Convolution(16, 16, 32, 64, 3, 2),
  Convolution(16, 16, 32, 64, 1, 2),
  *[_same(8, 64)] * 9,
  _dense(64, 100),
]
NETWORKS = {'he_cnn7': CNN7, 'he_vgg16': VGG16, 'he_resnet32': RESNET32}


def rows() -> Iterator[Row]:
  context = bfv.Context(bfv.ring_parameters())
  for name, layers in NETWORKS.items():
    value = floor = 0.0
    for layer, count in collections.Counter(layers).items():
      found = benchmarks.best(_runs(context, layer), repetitions=5, clock=time.process_time)
      value += count * found['layer']
      floor += count * found['calls']
    setting = (
      f'{len(layers)} layers, one image, both parties; N = {context.degree}, '
      f'{context.parameters.plain_modulus.bit_length() - 1}-bit ring; floor: bare SEAL calls'
    )
    yield Row('he', name, setting, value, 'CPU s', floor)


def _runs(context: bfv.Context, layer: Convolution) -> dict[str, Callable[[], object]]:
  randomness = SystemRandomness()
  secret = bfv.SecretKey(context)
  public = bfv.PublicKey(context, secret.public_key())
  weights = encrypted_convolution.prepare(context, layer, _kernel(layer, randomness))
  values = randomness.ring(context.parameters.plain_modulus.bit_length() - 1, layer.input_shape)

  def run() -> None:
    upload, _ = encrypted_convolution.draw_map(secret, layer, randomness, b'')
    message, _ = encrypted_convolution.reply(public, weights, upload, randomness, b'', drawn=True)
    encrypted_convolution.decrypt_map(secret, layer, message, b'')

  layout = encrypted_convolution.layout_of(context, layer)
  plains = [context.plaintext(c) for c in layout.pack_map(values)]
  return {'layer': run, 'calls': _calls(context, layout, plains, weights.multipliers)}


def _calls(context, layout, plains, multipliers) -> Callable[[], None]:
  """Encryption, products, sums, re-randomisation and decryption, nothing else."""
  keys = seal.KeyGenerator(context.seal)
  encryptor = seal.Encryptor(context.seal, keys.create_public_key(), keys.secret_key())
  decryptor = seal.Decryptor(context.seal, keys.secret_key())
  evaluator = context.evaluator

  def run() -> None:
    encrypted = [encryptor.encrypt_symmetric(plain) for plain in plains]
    for ciphertext in encrypted:
      evaluator.transform_to_ntt_inplace(ciphertext)
    for start in range(0, len(encrypted), layout.inputs):
      totals: list[seal.Ciphertext] = []
      for ciphertext, row in zip(encrypted[start:], multipliers):
        for k, multiplier in enumerate(row):
          product = evaluator.multiply_plain(ciphertext, multiplier)
          if k == len(totals):
            totals.append(product)
          else:
            evaluator.add_inplace(totals[k], product)
      for total in totals:
        evaluator.transform_from_ntt_inplace(total)
        evaluator.add_inplace(total, encryptor.encrypt_zero())
        decryptor.decrypt(total, seal.Plaintext())

  return run


def _kernel(layer: Convolution, randomness: SystemRandomness) -> np.ndarray:
  words = randomness.ring(_WEIGHT_BITS, layer.kernel_shape)
  return words.astype(np.int64) - (1 << _WEIGHT_BITS - 1)

"""Weights get the bits that they need, and no ring becomes wider for them."""

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import encrypted_convolution
from safenet_jax.fixed_point import rings
from safenet_jax.fixed_point.formats import Precision
from safenet_jax.models import layers
from safenet_jax.models import network as networks
from safenet_jax.quantization import quantize, weight_bits
from safenet_jax.quantization.weight_bits import Reader
from tests.support import networks as small

ALL = small.NETWORKS | small.OTHERS | small.CHAINS
RNG = np.random.default_rng(0)
DENSE = layers.Dense(4)


def fewest(kernel, fraction, readers, least, rings):
  return least


def chosen(inputs, norm, *readers):
  kernel = np.full((1, 1, inputs, 16), norm / np.sqrt(inputs))
  return weight_bits.choose(kernel, 7, readers, 8, rings.NARROW)


def test_small_weights_and_long_sums_get_more_bits():
  small_values = Reader(1.0)
  # 11 + log2(sqrt(12 / 12) / 2.1), rounded up; one more for each four times the inputs.
  assert chosen(12, 2.1, small_values) == 10
  assert chosen(48, 2.1, small_values) == 11
  assert chosen(48, 1.05, small_values) == 12
  assert chosen(12, 100.0, small_values) == 8


def test_what_reads_the_layer_has_room_for_the_bits():
  # 28 bits, less 2 free ones, 7 of the input, and 8 of the largest value.
  assert chosen(4096, 1.0, Reader(256.0)) == 11
  assert chosen(4096, 1.0, Reader(256.0), Reader(512.0)) == 10
  # The fewest bits need the ring of 36. What comes later takes half of its room.
  assert chosen(48, 1.05, Reader(4096.0)) == 12
  assert chosen(48, 1.05, Reader(512.0, later=True)) == 9
  assert chosen(48, 1.05, Reader(2.0**24)) == 8
  assert chosen(48, 1.05) == 8


@pytest.mark.parametrize('bits', rings.NARROW)
def test_the_norm_stays_below_what_encryption_takes(bits):
  for scale in (4.0, 8.0, 32.0):
    kernel = RNG.normal(0, scale / 64, (4096, 16))
    found = weight_bits.choose(kernel, 4, [Reader(1.0)], 2, [bits])
    fits = [
      encrypted_convolution.fits(np.round(kernel * 2.0**more).astype(np.int64), bits)
      for more in (found, found + 2)
    ]
    assert fits == [True, False]


def truncations(public):
  shapes = layers.shapes(public.layers, public.input_shape)
  return [shape.name for shape in shapes if isinstance(shape.layer, layers.Truncate)]


@pytest.mark.parametrize('name', ALL)
def test_neither_rings_nor_sign_tests_become_wider(name, monkeypatch):
  net, variables = small.trained(ALL[name])

  def public():
    return quantize.quantize(net, variables, None, small.IMAGES, **small.STATISTICS).public

  after = public()
  monkeypatch.setattr(weight_bits, 'choose', fewest)
  before = public()
  assert after.rings == before.rings
  assert truncations(after) == truncations(before)
  for activation, form in after.activations.items():
    others = before.activations[activation]
    assert form.output_fraction == others.output_fraction
    # The largest value is rounded up to a power of two with fewer bits behind it.
    assert form.sign_bits - form.dropped <= others.sign_bits - others.dropped
    assert form.select_bits <= max(others.select_bits, 36)


def test_polynomials_keep_the_failures_of_their_truncation():
  net, variables = small.trained(small.NETWORKS['projected'])
  count = len(networks.activation_channels(net))
  plan = small.planned(net, variables, [10] * count, [2] * count)
  model = quantize.quantize(net, variables, plan, small.IMAGES, **small.STATISTICS)
  assert {form.input_fraction for form in model.public.activations.values()} == {15}


def test_a_deep_network_is_many_times_as_exact(monkeypatch):
  conv = layers.Conv(64, batch_norm=False)
  records = (conv, layers.Activation()) * 4
  net, variables = small.trained((*records, layers.AveragePool(None), layers.Flatten(), DENSE))
  wanted = np.asarray(small.floating(net)(variables, small.normal(small.IMAGES)))

  def error():
    model = quantize.quantize(
      net, variables, None, small.IMAGES, precision=Precision(activation=11), **small.STATISTICS
    )
    return np.sqrt(np.mean((model.logits(small.IMAGES) - wanted) ** 2)) / wanted.std()

  after = error()
  monkeypatch.setattr(weight_bits, 'choose', fewest)
  assert after < 0.25 * error()


def test_layers_with_other_readers_keep_their_bits():
  mean = layers.AveragePool(2), layers.Activation(), layers.Flatten()
  for behind in (mean, (layers.Flatten(), layers.Dense(9, batch_norm=False))):
    net, variables = small.trained((layers.Conv(8, batch_norm=False), *behind, DENSE))
    model = quantize.quantize(net, variables, None, small.IMAGES, **small.STATISTICS)
    kernel = np.float64(variables['params']['conv0']['kernel'])
    np.testing.assert_array_equal(model.linear['conv0'].kernel, np.round(kernel * 2.0**8))

"""The simulated protocol against an independent integer reference, on real images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.approximation import activation, importance, plans
from safenet_jax.crypto import randomness
from safenet_jax.fixed_point import formats
from safenet_jax.models import architectures
from safenet_jax.models import layers as records
from safenet_jax.models.network import activation_channels
from safenet_jax.protocol.simulation import simulator
from safenet_jax.quantization import quantize
from safenet_jax.transport import ledger as ledgers
from tests.support import networks as small
from tests.support import reference, shares

PLANS = {
  'all ReLU': ([0] * 7, [2] * 7),
  'all square': ([20] * 7, [2] * 7),
  'all cubic': ([20] * 7, [3] * 7),
  'mixed': ([10, 15, 5, 10, 0, 20, 10], [2, 3, 0, 2, 2, 2, 3]),
}
# With one of which the two parties alone are tested.
ALL_PLANS = PLANS | {'layer-wise': ([0] * 4 + [20] * 3, [2] * 7)}


@pytest.fixture(scope='module')
def images():
  return data.load('fashion_mnist')


@functools.cache
def initial(early_pool):
  """An untrained network, and a step of its batch statistics, compiled once for all plans."""
  net = architectures.cnn7(width=0.125, input_shape=(28, 28, 1), pool_before_activation=early_pool)

  @jax.jit
  def step(variables, images, approximation):
    _, state = net.apply(variables, images, approximation, train=True, mutable=['batch_stats'])
    return {'params': variables['params'], **state}

  return net, jax.jit(net.init)(jax.random.key(0)), step


@functools.cache
def served(name, early_pool=False, precision=None):
  """A network with batch statistics of real images, its plan, and its fixed-point model."""
  images = data.load('fashion_mnist')
  net, variables, step = initial(early_pool)
  approximation = activation.approximate(
    plans.from_twentieths(*ALL_PLANS[name]),
    importance.ranks(net, variables),
    tuple(c.at[3].set(0.02) for c in activation.initial_coefficients(activation_channels(net))),
  )
  normal = jnp.asarray((images.train.images[:64] / 255 - images.mean) / images.std, jnp.float32)
  for _ in range(40):
    variables = step(variables, normal, approximation)
  model = quantize.quantize(
    net,
    variables,
    approximation,
    images.train.images[:64],
    mean=images.mean,
    std=images.std,
    precision=precision,
  )
  return net, variables, approximation, model


@pytest.mark.parametrize('name', PLANS)
@pytest.mark.parametrize('early_pool', [False, True])
def test_every_layer_equals_the_integer_reference(images, name, early_pool):
  _, _, _, model = served(name, early_pool)
  test = images.test.images[:2]
  with shares.recorded() as held:
    logits = simulator.integers(model, test, randomness.InsecureSeededRandomness(1))
  values = held.values(model)

  for n in range(len(test)):
    normal = (test[n] / 255.0 - np.asarray(images.mean)) / np.asarray(images.std)
    x = np.round(normal * 2.0**model.public.input_fraction).astype(np.int64)
    for t in range(7):
      weights, form = model.linear[f'conv{t}'], model.public.activations[f'activation{t}']
      conv_layer = reference.layer_of(model, f'conv{t}')
      y = reference.convolution(x, weights.kernel, conv_layer) + weights.bias
      np.testing.assert_array_equal(values[f'conv{t}'][n], y)
      if early_pool and t in (1, 3):
        y = reference.windows(y, records.AveragePool(2), np.sum, 0).astype(np.int64)
      exact, bound = reference.activation(y, form, model.polynomials.get(f'activation{t}', ()))
      # From here on with the protocol's own rounding.
      x = values[f'activation{t}'][n]
      assert (np.abs(x - exact) <= bound).all(), (t, np.abs(x - exact).max())
      assert abs(np.mean(x - exact)) < 0.1 * bound.mean()
    dense = model.linear['dense0']
    expected = x.reshape(-1) @ dense.kernel + dense.bias
    np.testing.assert_array_equal(logits[n], expected)


@pytest.mark.parametrize('name', PLANS)
def test_fixed_point_network_converges_to_the_float_network(images, name):
  coarse = formats.Precision()
  fine = formats.Precision(activation=10, weight=11, square=11, cubic=9)
  test = images.test.images[:64]
  normal = jnp.asarray((test / 255 - images.mean) / images.std, jnp.float32)
  errors = []
  for precision in (coarse, fine):
    net, variables, approximation, model = served(name, precision=precision)
    floating = np.asarray(small.floating(net)(variables, normal, approximation))
    report = formats.RangeReport()
    fixed = model.logits(test, report)
    assert set(report.exceeded) == {*model.public.activations, 'logits'}
    assert report.truncation_failure < 2.0**-15
    # Untrained squares of squares blow up on single images: the median image counts.
    errors.append(np.median(np.abs(fixed - floating).max(-1) / np.abs(floating).max(-1)))
  assert errors[0] < 0.1
  # Large squares leave no more than ten fraction bits below p: a floor of the error.
  assert errors[1] < max(errors[0] / 2, 0.015)


def test_private_class_is_that_of_the_fixed_point_network(images):
  _, _, _, model = served('mixed')
  test = images.test.images[:8]
  private = simulator.infer(model, test, randomness.SystemRandomness())
  np.testing.assert_array_equal(private.argmax(-1), model.run(test).argmax(-1))


def test_logits_are_the_integers_in_the_units_of_the_float_network(images):
  _, _, _, model = served('mixed')
  test = images.test.images[:2]
  logits, integers = (
    infer(model, test, randomness.InsecureSeededRandomness(1))
    for infer in (simulator.infer, simulator.integers)
  )
  assert logits.dtype == np.float64 and integers.dtype == np.int64
  np.testing.assert_array_equal(logits * 2.0**model.public.output_fraction, integers)


def test_pruned_channels_are_physically_gone(images):
  _, _, _, model = served('mixed')
  assert model.linear['conv2'].kernel.shape[-1] == 6
  assert model.linear['conv3'].kernel.shape[2] == 6
  assert model.public.activations['activation2'].degree == 0


def test_ledger_counts_one_round_trip_per_activation_layer(images):
  _, _, _, model = served('mixed')
  ledger = ledgers.Ledger()
  simulator.infer(
    model, images.test.images[:1], randomness.InsecureSeededRandomness(0), ledger=ledger
  )
  record = ledger.record()
  # x - r goes first; then every activation layer is one message each way.
  assert record['phases']['online']['rounds'] == 8
  rows = {(r['phase'], r['layer'], r['primitive'], r['party']): r['bytes'] for r in record['rows']}
  form = model.public.activations['activation0']
  count = 28 * 28 * form.relu
  padded = -(-count // 64) * 64
  width = form.sign_bits - form.dropped
  assert rows['online', 'activation0', 'labels', 'server'] == 16 * width * padded
  assert rows['online', 'activation0', 'select words', 'server'] == -(
    -count * form.select_bits // 8
  )
  assert (
    rows['offline', 'activation0', 'garbled tables', 'server'] == 32 * (width - 1) * padded + 48
  )
  assert rows['online', 'input', 'masked input', 'client'] == 28 * 28 * 7
  assert record['phases']['online']['bytes'] == sum(
    row['bytes'] for row in record['rows'] if row['phase'] == 'online'
  )


def test_wrong_images_are_refused(images):
  _, _, _, model = served('all square')
  with pytest.raises(ValueError, match='want uint8'):
    simulator.infer(model, np.zeros((1, 32, 32, 3), np.uint8), randomness.SystemRandomness())


def test_a_ring_too_small_for_local_truncation_is_refused(images):
  with pytest.raises(ValueError, match='local truncation fails'):
    served('all square', precision=formats.Precision(ring=30, select_ring=10))


def test_a_small_cubic_coefficient_keeps_its_precision(images):
  _, _, _, model = served('all cubic')
  for form in model.public.activations.values():
    # A step of c3 is at most 2^-10, with large values and a pool too.
    assert form.value_fraction - 3 * (form.input_fraction - form.shift) >= 10
    assert form.polynomial_shift <= 32


def test_an_unfinished_annealed_switch_is_not_served(images):
  net, variables, approximation, _ = served('all square')
  blended = tuple(layer.replace(blend=0.5) for layer in approximation)
  with pytest.raises(ValueError, match='blend 0.5'):
    quantize.quantize(
      net, variables, blended, images.train.images[:4], mean=images.mean, std=images.std
    )

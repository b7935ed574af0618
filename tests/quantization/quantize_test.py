"""Which networks have a fixed-point model, and which are refused."""

import jax
import numpy as np
import pytest

from safenet_jax.approximation import activation, importance, plans
from safenet_jax.crypto import randomness
from safenet_jax.fixed_point import formats
from safenet_jax.models import layers, weights
from safenet_jax.models import network as networks
from safenet_jax.protocol.simulation import simulator
from safenet_jax.quantization import calibration, quantize

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 2), np.uint8)
STATISTICS = {'mean': (0.5, 0.5), 'std': (0.3, 0.3)}


def served(*records, images=IMAGES, statistics=STATISTICS):
  """The network, its variables and its model, half of every layer's channels square."""
  net = networks.Network((*records, layers.Flatten(), layers.Dense(3)), (8, 8, 2))
  variables = net.init(jax.random.key(0))
  channels = networks.activation_channels(net)
  approximation = activation.approximate(
    plans.from_twentieths([10] * len(channels), [2] * len(channels)),
    importance.ranks(net, variables),
    activation.initial_coefficients(channels),
  )
  model = quantize.quantize(net, variables, approximation, images, **statistics)
  return net, variables, approximation, model


@pytest.mark.parametrize(
  'records',
  [
    (layers.Conv(6), layers.Activation(), layers.AveragePool(None)),
    (layers.Conv(6), layers.AveragePool(None), layers.Activation()),
    (
      layers.Conv(6, stride=2),
      layers.Activation(),
      layers.Flatten(),
      layers.Dense(8, batch_norm=True),
      layers.Activation(),
    ),
  ],
)
def test_pools_of_whole_maps_and_normalised_dense_layers_are_served(records):
  net, variables, approximation, model = served(*records)
  normal = ((IMAGES / 255 - 0.5) / 0.3).astype(np.float32)
  floating = np.asarray(net.apply(variables, normal, approximation))
  unit = 2.0**model.public.output_fraction
  np.testing.assert_allclose(model.run(IMAGES) / unit, floating, atol=0.05 * floating.std() + 0.05)
  private = simulator.infer(model, IMAGES[:4], randomness.InsecureSeededRandomness(0))
  np.testing.assert_allclose(private, floating[:4], atol=0.05 * floating.std() + 0.05)


def test_means_of_too_many_different_numbers_of_values_are_one_clear_line():
  pool = layers.AveragePool(7, 1, ((3, 3), (3, 3)), count_padding=False)
  with pytest.raises(ValueError, match='means of 16, 20, .* values have no common multiple'):
    served(layers.Conv(4), layers.Activation(), pool)


def test_a_network_without_an_approximation_is_served_as_all_relu():
  net, variables, _, _ = served(layers.Conv(6), layers.Activation(), layers.AveragePool(None))
  given = activation.approximate(
    plans.all_relu(1), importance.ranks(net, variables), activation.initial_coefficients((6,))
  )
  models = [
    quantize.quantize(net, variables, approximation, IMAGES, **STATISTICS)
    for approximation in (None, given)
  ]
  assert models[0].public.activations == models[1].public.activations
  assert models[0].public.activations['activation0'].relu == 6
  np.testing.assert_array_equal(models[0].run(IMAGES), models[1].run(IMAGES))
  report = quantize.quantization_report(
    models[0], net, variables, None, IMAGES, np.zeros(20, np.int32)
  )
  assert report.agreement >= 18


NETWORK = networks.Network(
  (layers.Conv(4), layers.Activation(), layers.Flatten(), layers.Dense(3)), (8, 8, 2)
)
VARIABLES = weights.untrained_variables(NETWORK)


def with_value(name, value):
  """The variables with this value somewhere in one array."""
  arrays = weights.flatten_variables(VARIABLES)
  arrays[name] = np.array(arrays[name])
  arrays[name].flat[1] = value
  tree = {'params': {}, 'batch_stats': {}}
  for full, array in arrays.items():
    layer, kind = full.split('/')
    tree['batch_stats' if kind in ('mean', 'var') else 'params'].setdefault(layer, {})[kind] = array
  return tree


@pytest.mark.parametrize(
  'given, message',
  [
    ({'variables': with_value('conv0/kernel', np.nan)}, 'conv0/kernel of float32, want finite'),
    ({'variables': with_value('dense0/bias', np.inf)}, 'dense0/bias of float32, want finite'),
    ({'variables': with_value('conv0_bn/var', -1)}, 'conv0_bn/var of negative numbers'),
    ({'variables': {'params': VARIABLES['params']}}, r'missing conv0_bn/mean \(4,\)'),
    ({'variables': None}, 'variables of type NoneType, want those of network.init'),
    ({'images': IMAGES[:0]}, r'calibration images uint8 \(0, 8, 8, 2\), want .* at least one'),
    ({'images': IMAGES.transpose(0, 3, 1, 2)}, r'uint8 \(20, 2, 8, 8\), want uint8 \[B, 8, 8, 2'),
    ({'images': IMAGES / 255}, r'calibration images float64 \(20, 8, 8, 2\), want uint8'),
    ({'images': IMAGES[0]}, r'calibration images uint8 \(8, 8, 2\), want uint8'),
    ({'std': (0.3, 0.0)}, r'std \(0.3, 0.0\), want a number above 0'),
    ({'mean': (0.5,)}, r'mean \(0.5,\), want one number for each of 2 channels'),
    ({'mean': 0.5}, 'mean 0.5, want one number for each of 2 channels'),
    ({'approximation': ()}, 'approximations of 0 layers, want one for each of the 1'),
    ({'approximation': activation.all_relu((8,))}, r'activation0/mask bool \(8,\), want bool \(4,'),
    ({'approximation': [np.tanh]}, 'activation0: ufunc, want an Approximation'),
    ({'precision': formats.Precision(margin=np.nan)}, 'margin nan, want a number of at least 1'),
    ({'network': 'cnn7'}, 'network of type str, want a Network'),
  ],
)
def test_what_is_given_is_checked_before_anything_is_computed(given, message):
  with pytest.raises(ValueError, match=message):
    quantize.quantize(
      **{'network': NETWORK, 'variables': VARIABLES, 'approximation': None, 'images': IMAGES}
      | STATISTICS
      | given
    )


def test_a_model_takes_images_of_its_shape_and_some():
  model = quantize.quantize(NETWORK, VARIABLES, None, IMAGES, **STATISTICS)
  source = randomness.InsecureSeededRandomness(0)
  for images, message in (
    (IMAGES[:0], 'no images, want at least one'),
    (IMAGES / 255, r'images float64 \(20, 8, 8, 2\), want uint8 \[B, 8, 8, 2\]'),
    (IMAGES.tolist()[0], r'images int64 \(8, 8, 2\), want uint8'),
  ):
    for call in (model.run, lambda x: simulator.infer(model, x, source)):
      with pytest.raises(ValueError, match=message):
        call(images)
  with pytest.raises(ValueError, match='model of type Network, want a FixedPointModel'):
    simulator.infer(NETWORK, IMAGES, source)
  with pytest.raises(ValueError, match='randomness of type ABCMeta, want a Randomness'):
    simulator.infer(model, IMAGES, randomness.SystemRandomness)
  with pytest.raises(ValueError, match='batch 0, want an integer'):
    quantize.quantization_report(
      model, NETWORK, VARIABLES, None, IMAGES, np.zeros(20, np.int32), batch=0
    )


def test_an_image_far_beyond_the_others_sets_no_format():
  records = layers.Conv(6), layers.Activation(), layers.Conv(6), layers.Activation()
  flat = 124 + IMAGES // 32
  models = [
    served(*records, images=images)[-1]
    for images in (flat, np.concatenate([IMAGES[:1], flat]), IMAGES)
  ]
  for usual, found in zip(
    models[0].public.activations.values(), models[1].public.activations.values()
  ):
    assert usual == found
  assert models[0].public.activations != models[2].public.activations


@pytest.mark.filterwarnings('error')
def test_an_image_that_leaves_float64_sets_no_format():
  # Its first values are some 50, and are squared twelve times. Those of the others are 0.2.
  records = (layers.Conv(6), layers.Activation()) * 12
  flat = 127 + IMAGES // 128
  statistics = {'mean': (0.5, 0.5), 'std': (0.01, 0.01)}
  models = [
    served(*records, images=images, statistics=statistics)[-1]
    for images in (flat, np.concatenate([flat[:3], IMAGES[:1], flat[3:]]))
  ]
  assert models[0].public == models[1].public


def test_a_network_most_of_whose_images_leave_the_range_is_refused(monkeypatch):
  monkeypatch.setattr(calibration, '_OUTLIER', 1.0)
  with pytest.raises(ValueError, match='calibration images leave the range of the others'):
    served(layers.Conv(6), layers.Activation(), layers.Conv(6), layers.Activation())

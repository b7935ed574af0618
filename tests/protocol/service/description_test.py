"""What the client learns of a model, and what a lying server cannot make it believe."""

import dataclasses
import math

from hypothesis import given, settings
from hypothesis import strategies as st
import msgpack
import numpy as np
import pytest

from safenet_jax.crypto import randomness
from safenet_jax.fixed_point import consistency
from safenet_jax.models import architectures, layers
from safenet_jax.protocol.service import description
from safenet_jax.transport import record_codec
from safenet_jax.transport.frames import ProtocolError
from tests.quantization import quantize_test
from tests.support import models

SOURCE = randomness.InsecureSeededRandomness(0)


def described():
  return description.describe(models.model(), SOURCE)


def with_model(found, **changes):
  """A description whose model has other fields, whatever they are."""
  return dataclasses.replace(found, model=dataclasses.replace(found.model, **changes))


def leaves(value):
  if isinstance(value, dict):
    value = [*value, *value.values()]
  if not isinstance(value, (list, tuple)):
    return [value]
  return [leaf for item in value for leaf in leaves(item)]


def test_a_description_comes_back():
  found = described()
  assert description.decode(description.encode(found)) == found


def test_a_quantised_model_is_described_as_it_is():
  _, _, _, model = quantize_test.served(
    layers.Conv(6), layers.Activation(), layers.AveragePool(None)
  )
  found = description.decode(description.encode(description.describe(model, SOURCE)))
  assert found.model == model.public
  images = quantize_test.IMAGES
  np.testing.assert_array_equal(found.model.encode(images), model.public.encode(images))


SHORTCUT = layers.Gather((2, -1, 0), shift=8)
POOL = layers.MaxPool(2)


def gathered(layer=SHORTCUT, pool=POOL):
  """A description with a shortcut and a max pool."""
  form = models.activation(3, 0, 0, (8, 8), pool)
  form = dataclasses.replace(form, select_bits=form.sign_bits - form.dropped + 1)
  return with_model(
    described(),
    layers=(
      layers.Conv(3, batch_norm=False),
      layers.Residual((layers.Conv(3, batch_norm=False),), (layer,)),
      layers.Activation(),
      pool,
      layers.Flatten(),
      layers.Dense(3),
    ),
    activations={'activation0': form},
    absorbed=frozenset({'max_pool0'}),
  )


def test_shortcuts_and_max_pools_are_described():
  found = gathered()
  assert description.decode(description.encode(found)) == found


@pytest.mark.parametrize(
  'found, message',
  [
    (gathered(layers.Gather((0, 1, 3))), 'gather0 got 3 channels, want those of'),
    (gathered(layers.Gather((0, 1, -2))), 'gather0 got 3 channels, want those of'),
    (gathered(layers.Gather((0, 1))), 'a residual branch of shape'),
    (gathered(layers.Gather((0, 1, 2), stride=0)), 'Gather with stride 0, shift 0 and factor 1'),
    (gathered(layers.Gather((0, 1, 2), shift=65)), 'Gather with stride 1, shift 65 and'),
    (gathered(layers.Gather((0, 1, 2), shift=-1)), 'Gather with stride 1, shift -1 and'),
    (gathered(layers.Gather((0, 1, 2), factor=0)), 'shift 0 and factor 0'),
    (with_model(gathered(), absorbed=frozenset()), 'formats of other activations'),
    (gathered(pool=layers.MaxPool(17, 1, ((16, 0), (16, 0)))), 'max_pool0 has window 17, want'),
  ],
)
def test_a_lying_shortcut_or_pool_is_one_line(found, message):
  with pytest.raises(ProtocolError, match=message):
    description.decode(description.encode(found))


def before_the_last(*added):
  """A description with more layers before the dense one."""
  found = described()
  *first, flatten, dense = found.model.layers
  return with_model(found, layers=(*first, *added, flatten, dense))


NORMAL = {'batch_norm': False}


def test_records_that_only_served_models_have_are_described():
  found = before_the_last(layers.Truncate(3), layers.Constant((2, 2, 4)))
  assert description.decode(description.encode(found)) == found


@pytest.mark.parametrize(
  'added, message',
  [
    (layers.Truncate(0), 'Truncate with shift 0'),
    (layers.Truncate(41), 'Truncate with shift 41'),
    (layers.Truncate(-1), 'Truncate with shift -1'),
    (layers.Constant(()), r'Constant of shape \(\)'),
    (layers.Constant((2, 2, -4)), r'Constant of shape \(2, 2, -4\)'),
    (layers.Constant((65536, 65536, 65536)), 'values, want 1 to'),
    (layers.Constant((2, 2)), r'Constant of shape \(2, 2\)'),
    (layers.Conv(6, groups=3, **NORMAL), 'want a multiple of its 3 groups'),
    (layers.Conv(4, dilation=16, padding=((16, 16),) * 2, **NORMAL), 'conv2 has dilation 16'),
    (layers.Conv(4, padding=((17, 0), (1, 1)), **NORMAL), 'conv2 has padding'),
    (layers.Conv(4, padding=((0, 0), (0, 0)), **NORMAL), '3 x 3 window fits'),
  ],
)
def test_a_lying_convolution_or_constant_is_one_line(added, message):
  with pytest.raises(ProtocolError, match=message):
    description.decode(description.encode(before_the_last(added)))


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'select_bits': 28}, 'maxima of 28 bits'),
    ({'relu': 2, 'polynomial': 1, 'degree': 2, 'modulus': 2061584302081}, 'of 1 polynomial'),
    ({'sign_bits': 60, 'select_bits': 53}, '60 bits and a window of 2'),
    ({'general': True}, 'general degree 0'),
  ],
)
def test_a_format_that_no_circuit_has_is_refused(changes, message):
  found = gathered()
  form = dataclasses.replace(found.model.activations['activation0'], **changes)
  with pytest.raises(ProtocolError, match=message):
    description.decode(description.encode(with_model(found, activations={'activation0': form})))


@pytest.mark.parametrize(
  'build',
  [
    architectures.cnn7,
    architectures.vgg16,
    architectures.resnet32,
    architectures.resnet18,
  ],
)
def test_every_architecture_is_described(build):
  net = build()
  shapes = layers.shapes(net.layers, net.input_shape)
  found = with_model(
    described(),
    layers=net.layers,
    input_shape=net.input_shape,
    mean=(0.5,) * 3,
    std=(0.2,) * 3,
    activations={
      s.name: models.activation(s.input_shape[-1], 0, 0, s.input_shape[:-1])
      for s in shapes
      if isinstance(s.layer, layers.Activation)
    },
    absorbed=frozenset(),
  )
  raw = description.encode(found)
  assert len(raw) < 30_000
  assert description.decode(raw) == found


def test_models_with_other_weights_have_the_same_description_but_for_the_id():
  raws = [
    description.encode(
      dataclasses.replace(description.describe(models.model(seed), SOURCE), model_id=bytes(16))
    )
    for seed in (0, 1)
  ]
  assert raws[0] == raws[1]


def test_no_array_of_the_model_is_in_its_description():
  """Neither as bytes, nor as numbers: there is no array, and no field that weights have."""
  model = models.model()
  raw = description.encode(description.describe(model, SOURCE))
  private = [a for w in model.linear.values() for a in (w.kernel, w.bias)]
  private += model.polynomials.values()
  numbers = {leaf for leaf in leaves(msgpack.unpackb(raw)) if isinstance(leaf, int)}
  for array in private:
    for row in array.reshape(-1, array.shape[-1]):
      assert row.tobytes() not in raw and row.astype(np.int16).tobytes() not in raw
    values = array.ravel().tolist()
    assert len([v for v in values if v in numbers]) < 0.1 * len(values) + 2
  for name in ('bias', 'limb', 'polynomials', 'linear', 'LinearWeights'):
    assert name.encode() not in raw


def test_every_load_of_a_model_draws_another_id():
  system = randomness.SystemRandomness()
  ids = {description.describe(models.model(), system).model_id for _ in range(20)}
  assert len(ids) == 20 and all(len(found) == 16 for found in ids)


def changed(path, value):
  """A description as a msgpack tree with one value replaced."""
  tree = msgpack.unpackb(description.encode(described()))
  *way, last = path
  node = tree
  for key in way:
    node = node[key]
  node[last] = value
  return msgpack.packb(tree)


MODEL = 1, 'model', 1
FORM = (*MODEL, 'activations', 'activation0', 1)


@pytest.mark.parametrize(
  'path, value, message',
  [
    ((0,), 'Popen', 'of class Popen, want Description'),
    ((*MODEL, 'layers', 0, 0), 'LinearWeights', 'of class LinearWeights, want Activation'),
    ((*MODEL, 'layers', 0, 0), ['Conv'], r"of class \['Conv'\]"),
    ((*MODEL, 'layers', 0, 1), {'features': 3}, 'Conv with other fields'),
    ((*MODEL, 'layers', 0, 1, 'extra'), 3, 'Conv with other fields .*extra'),
    ((1, 'kernel'), b'x', 'Description with other fields .*kernel'),
    ((*MODEL, 'kernel'), b'x', 'PublicModel with other fields .*kernel'),
    ((*MODEL, 'layers', 0, 1, 'features'), True, 'Conv.features is True, want int'),
    ((*MODEL, 'layers', 0, 1, 'features'), 6.0, 'Conv.features is 6.0, want int'),
    ((*MODEL, 'layers', 0, 1, 'stride'), 0, 'Conv with stride 0'),
    ((*MODEL, 'layers', 0, 1, 'features'), 1 << 40, 'Conv with features'),
    ((*MODEL, 'layers', 0, 1, 'features'), 1 << 63, 'want a smaller integer'),
    ((*MODEL, 'layers', 0, 1, 'features'), 5, 'channels'),
    ((*MODEL, 'layers', 2, 1, 'window'), 3, 'does not divide'),
    ((*MODEL, 'layers'), {}, 'want a list'),
    ((*MODEL, 'layers'), [], 'no vector of logits'),
    ((*MODEL, 'input_shape'), [8, 8], 'want 3 values'),
    ((*MODEL, 'input_shape'), [8, 8, 0], r'images \(8, 8, 0\)'),
    ((*MODEL, 'input_shape'), [65536, 65536, 2], 'values, want 1 to'),
    ((*MODEL, 'mean'), [0.5], 'means or deviations'),
    ((*MODEL, 'mean', 0), math.nan, 'want a finite number'),
    ((*MODEL, 'std', 0), 0.0, 'deviations'),
    ((1, 'model_id'), b'short', 'id of 5 bytes'),
    ((1, 'model_id'), b'x' * 2000, 'at most 1000 characters'),
    ((*MODEL, 'precision', 1, 'ring'), 60, 'ring of 60 bits'),
    ((*MODEL, 'absorbed'), ['average_pool7'], 'absorbed pools'),
    ((*MODEL, 'output_fraction'), 1000.0, '1000.0 fraction bits'),
    ((1, 'outputs'), [], r'outputs \(\)'),
    ((1, 'outputs'), ['class', 'weights'], "outputs .'class', 'weights'"),
    ((1, 'outputs'), ['class', 'class'], "outputs .'class', 'class'"),
    ((*MODEL, 'logit_bits'), 57, 'logits of 57 bits'),
    ((*MODEL, 'activations'), {}, 'formats of other activations'),
    ((*MODEL, 'activations'), [], 'want a map'),
    ((*FORM, 'relu'), -1, 'channels'),
    ((*FORM, 'relu'), 5, 'channels'),
    ((*FORM, 'degree'), 5, 'degree 5'),
    ((*FORM, 'map_shape'), [8, 4], 'channels'),
    ((*FORM, 'pool', 1, 'window'), 3, 'pool of window 3'),
    ((*FORM, 'pool', 1, 'window'), None, r'activation0 pools by AveragePool\(window=None'),
    ((*FORM, 'pool'), None, 'activation0 pools by None'),
    ((*FORM, 'limit'), 1280, r'activation0 is Activation\(.* with a limit of 1280'),
    ((*FORM, 'limit'), 5, 'has a limit of 5 in 24 bits'),
    ((*FORM, 'slope'), 2, 'activation0 has a slope of 2 / 2.0'),
    ((*FORM, 'slope_bits'), 17, 'activation0 has a slope of 0 / 2.17'),
    ((*FORM, 'rectified'), False, 'activation0 is not rectified'),
    ((*FORM, 'modulus'), 15, 'field of 15 elements'),
    ((*FORM, 'sign_bits'), 60, 'selects 60 bits'),
    ((*FORM, 'shift'), 1 << 40, 'fraction bits'),
    ((*FORM, 'value_fraction'), 120, 'leaves no room'),
  ],
)
def test_a_lying_description_is_one_line(path, value, message):
  with pytest.raises(ProtocolError, match=message) as caught:
    description.decode(changed(path, value))
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 400


def test_residuals_in_residuals_have_an_end():
  block = layers.Residual((layers.Conv(2),))
  for _ in range(20):
    block = layers.Residual((block,))
  raw = record_codec.encode(
    with_model(described(), layers=(block, layers.Flatten())), description._RECORDS
  )
  with pytest.raises(ProtocolError, match='16 deep'):
    description.decode(raw)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=8), st.integers(0, 1000))
def test_fuzzed_descriptions_are_a_protocol_error_or_make_sense(noise, position):
  raw = bytearray(description.encode(described()))
  raw[position : position + len(noise)] = noise
  try:
    found = description.decode(bytes(raw))
  except ProtocolError as error:
    assert '\n' not in str(error)
  else:
    layers.shapes(found.model.layers, found.model.input_shape)
    assert description.decode(description.encode(found)) == found


@pytest.mark.parametrize(
  'raw',
  [
    b'',
    b'\xc1',
    b'\x91' * 10_000,
    b'\xdd\xff\xff\xff\xff',
    b'x' * 99,
  ],
)
def test_what_is_no_description_is_a_protocol_error(raw):
  with pytest.raises(ProtocolError):
    description.decode(raw)


def test_a_record_with_an_array_is_not_encoded():
  with pytest.raises(ValueError, match='ndarray in a record'):
    record_codec.encode(with_model(described(), mean=np.ones(2)), description._RECORDS)


def test_only_whitelisted_records_are_made():
  allowed = [kind for kind in description._RECORDS if kind is not layers.Conv]
  with pytest.raises(ProtocolError, match='of class Conv, want Activation, AveragePool, Concat'):
    record_codec.decode(description.encode(described()), description.Description, allowed)


@pytest.mark.parametrize('change', [layers.AveragePool(4), layers.MaxPool(2), None])
def test_an_activation_pools_as_the_pool_behind_it(change):
  public = models.model().public
  (name, form), *_ = ((n, f) for n, f in public.activations.items() if f.pool)
  activations = public.activations | {name: dataclasses.replace(form, pool=change)}
  with pytest.raises(ValueError, match=f'{name} '):
    consistency.check(dataclasses.replace(public, activations=activations))

"""Channels of any scales: the function stays, and fixed point keeps its accuracy."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.fixed_point import products
from safenet_jax.fixed_point.formats import Precision
from safenet_jax.fixed_point.model import normalise
from safenet_jax.models import layers
from safenet_jax.models import network as networks
from safenet_jax.quantization import equalisation, folding, quantize
from safenet_jax.quantization.statistics import Statistics
from tests.support import networks as small

CONV = layers.Conv(6, batch_norm=False)
ACT = layers.Activation()
PLAIN = (
  CONV,
  ACT,
  layers.AveragePool(2),
  layers.Conv(5, batch_norm=False),
  ACT,
  layers.Flatten(),
  layers.Dense(4),
)
GROUPED = (
  CONV,
  layers.Activation(slope=0.1),
  layers.Conv(6, groups=6, batch_norm=False),
  ACT,
  layers.Conv(4, groups=2, batch_norm=False),
  ACT,
  layers.Flatten(),
  layers.Dense(4),
)
ALL = {'plain': PLAIN, 'grouped': GROUPED, 'vgg': small.VGG} | small.NETWORKS | small.OTHERS


def uneven(records, top, seed=0):
  """Variables whose every convolution makes channels of other scales, which differ by `top`."""
  net, variables = small.trained(records, seed)
  rng, params = np.random.default_rng(seed), {}
  for name, arrays in variables['params'].items():
    params[name] = dict(arrays)
    if name.startswith('conv'):
      last = 'bias' if 'bias' in arrays else 'kernel'
      scale = top ** rng.uniform(-0.5, 0.5, arrays[last].shape[-1]).astype(np.float32)
      params[name] = {kind: array * scale for kind, array in arrays.items()}
  return net, variables | {'params': params}


def undone(top):
  """The plain network, whose first channels have scales from 1 to `top`, undone in the next."""
  net, variables = small.trained(PLAIN)
  scale = np.geomspace(1, top, 6).astype(np.float32)
  params = {name: dict(arrays) for name, arrays in variables['params'].items()}
  params['conv0'] = {kind: array * scale for kind, array in params['conv0'].items()}
  params['conv1']['kernel'] = params['conv1']['kernel'] / scale[:, None]
  return net, variables | {'params': params}


def prepared(net, variables, ratio, monkeypatch):
  """A network before its channels are equalised, with polynomials of degrees 2 and 3."""
  count = len(networks.activation_channels(net))
  approximation = small.planned(net, variables, [ratio] * count, [2 + t % 2 for t in range(count)])
  with monkeypatch.context() as patch:
    patch.setattr(equalisation, 'equalised', lambda found, precision: found)
    return quantize.prepare(
      net, variables, approximation, Precision(), small.IMAGES, **small.STATISTICS
    )


NORMAL = normalise(small.IMAGES, **small.STATISTICS)


def logits(found):
  return layers.run(found.layers, Statistics(found.folded, found.splits), NORMAL)


@pytest.mark.parametrize('ratio', [0, 10])
@pytest.mark.parametrize('name', ALL)
def test_the_function_is_the_same_to_the_last_bit(name, ratio, monkeypatch):
  before = prepared(*uneven(ALL[name], 100.0), ratio, monkeypatch)
  after = equalisation.equalised(before, Precision())
  assert any((after.folded[layer][0] != before.folded[layer][0]).any() for layer in before.folded)
  np.testing.assert_array_equal(logits(after), logits(before))
  statistics = Statistics(after.folded, after.splits)
  statistics.add_images(after.layers, NORMAL)
  for value, largest in statistics.largest.items():
    np.testing.assert_array_equal(largest, after.statistics.largest[value], err_msg=value)


def test_even_channels_stay_as_they_are(monkeypatch):
  before = prepared(*small.trained(PLAIN), 0, monkeypatch)
  assert equalisation.equalised(before, Precision()) is before


def test_no_factor_passes_a_limit(monkeypatch):
  limited = tuple(dataclasses.replace(r, limit=6.0) if r == ACT else r for r in PLAIN)
  before = prepared(*uneven(limited, 100.0), 0, monkeypatch)
  assert equalisation.equalised(before, Precision()) is before


@pytest.mark.parametrize('top', [1.0, 100.0, 1e4])
def test_scales_that_are_undone_cost_no_accuracy(top, monkeypatch):
  net, variables = undone(top)
  wanted = np.asarray(small.floating(net)(variables, small.normal(small.IMAGES)))

  def error():
    model = quantize.quantize(net, variables, None, small.IMAGES, **small.STATISTICS)
    return np.sqrt(np.mean((model.logits(small.IMAGES) - wanted) ** 2)) / wanted.std()

  assert error() < 0.03
  monkeypatch.setattr(equalisation, 'equalised', lambda found, precision: found)
  assert top < 1e4 or error() > 0.06


def test_no_sign_test_gets_more_bits(monkeypatch):
  net, variables = undone(100.0)
  after = quantize.quantize(net, variables, None, small.IMAGES, **small.STATISTICS)
  monkeypatch.setattr(equalisation, 'equalised', lambda found, precision: found)
  before = quantize.quantize(net, variables, None, small.IMAGES, **small.STATISTICS)
  widths = [
    {name: form.sign_bits - form.input_fraction for name, form in model.public.activations.items()}
    for model in (before, after)
  ]
  assert all(widths[1][name] <= bits for name, bits in widths[0].items())
  assert sum(widths[1].values()) < sum(widths[0].values())


def test_the_report_names_layers_that_keep_few_bits(monkeypatch):
  net, variables = undone(1e4)

  def few():
    model = quantize.quantize(net, variables, None, small.IMAGES, **small.STATISTICS)
    report = quantize.quantization_report(
      model, net, variables, None, small.IMAGES, np.zeros(len(small.IMAGES), np.int32)
    )
    assert report.record()['significant'].keys() == {'conv0', 'conv1', 'dense0'}
    return [line for line in report.lines() if line.startswith('few significant bits')]

  assert not few()
  monkeypatch.setattr(equalisation, 'equalised', lambda found, precision: found)
  (line,) = few()
  assert 'conv1 ' in line and 'dense0' not in line


def test_batches_of_calibration_images_change_nothing(monkeypatch):
  net, variables = small.trained(PLAIN)
  done = []

  def model(**options):
    return quantize.quantize(net, variables, None, small.IMAGES, **small.STATISTICS, **options)

  whole = model()
  monkeypatch.setattr(products, '_MAP', 1)
  parts = model(progress=lambda count, total: done.append((count, total)))
  assert parts.public == whole.public
  np.testing.assert_array_equal(parts.run(small.IMAGES), whole.run(small.IMAGES))
  count = len(small.IMAGES)
  assert done == [(n + 1, count) for n in range(count)]


def test_a_larger_polynomial_is_the_same_one_of_smaller_inputs():
  net, variables = small.trained(PLAIN)
  (layer, _) = small.planned(net, variables, [10, 10], [3, 3])
  split = folding.Split(layer)
  factors = 2.0 ** np.arange(6)
  y = np.random.default_rng(0).normal(size=(9, 6))[:, split.order]
  scale = factors[split.order]
  found = split.larger(factors).evaluate(y * scale, ACT)
  np.testing.assert_array_equal(found, split.evaluate(y, ACT) * scale)

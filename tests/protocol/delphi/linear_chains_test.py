"""Linear layers in a row, convolutions of any form, and layers that a plan prunes whole.

The float network, the integer model, the simulator and both parties agree in every mode.
"""

import numpy as np
import pytest

from safenet_jax.crypto import randomness
from safenet_jax.models import layers
from safenet_jax.models import network as networks
from safenet_jax.models.layers import (
  AveragePool,
  Conv,
  Dense,
  Flatten,
  MaxPool,
  Residual,
)
from safenet_jax.protocol.estimate import estimate
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.protocol.service import bundle
from safenet_jax.protocol.simulation import simulator
from tests.support import networks as small
from tests.support import parties, reference, shares

MODES = 'delphi', 'gazelle', 'ot'
BLOCK = Residual((Conv(6), small.ACT, Conv(6)))
# Networks with plans that prune layers, and the linear layers that are left of them.
PRUNED = {
  'a branch': ((Conv(6), small.ACT, BLOCK, small.ACT, *small.END), [0, 20, 5], 2),
  'its end': (
    (Conv(6), small.ACT, Residual((*BLOCK.branch, small.ACT)), Conv(6), small.ACT, *small.END),
    [0, 0, 20, 0],
    3,
  ),
  'beside a projection': (
    (Conv(6), Residual((small.ACT, Conv(6)), (Conv(6, 1),)), small.ACT, *small.END),
    [20, 10],
    3,
  ),
  'all': ((Conv(6), small.ACT, MaxPool(), Conv(6), small.ACT, *small.END), [20, 4], 0),
}


def served(net, variables, ratio, degree, precision=None):
  count = len(networks.activation_channels(net))
  approximation = small.planned(net, variables, [ratio] * count, [degree] * count)
  return approximation, small.quantised(net, variables, approximation, precision)


def check_layers(model, values, logits, check=np.testing.assert_array_equal):
  """That every layer's values are those of the integer reference."""
  for n in range(len(logits)):
    follower = reference.Follower(model, values, n, check)
    x = np.round(small.normal(small.IMAGES[n]) * 2.0**model.public.input_fraction).astype(np.int64)
    np.testing.assert_array_equal(layers.run(model.public.layers, follower, x), logits[n])


def check_float(net, variables, approximation, model, most=0.02):
  found = model.logits(small.IMAGES)
  wanted = np.asarray(small.floating(net)(variables, small.normal(small.IMAGES), approximation))
  assert np.abs(found - wanted).max() < most * np.abs(wanted).max()


def check_parties(model, mode):
  """Also that bytes and rounds of the ledger are those of the estimate."""
  run = parties.run(model, small.IMAGES[:1], mode=mode)
  check_layers(model, run.trace(model), run.logits, reference.near)
  assert all(size == foreseen for size, foreseen in run.sizes)
  ledger = run.ledgers[0].record()
  found = estimate.inference(model.public, mode).record

  def rows(record):
    return sorted(
      (row['phase'], row['layer'], row['primitive'], row['party'], row['bytes'])
      for row in record['rows']
      if row['bytes']
    )

  assert rows(found) == rows(ledger)
  for phase, totals in found['phases'].items():
    assert totals['rounds'] == ledger['phases'][phase]['rounds']


@pytest.mark.parametrize('ratio, degree', [(0, 2), (10, 2), (10, 0)])
@pytest.mark.parametrize('name', small.CHAINS)
def test_the_integer_model_computes_what_the_float_network_does(name, ratio, degree):
  net, variables = small.trained(small.CHAINS[name])
  approximation, model = served(net, variables, ratio, degree, small.FINE)
  check_float(net, variables, approximation, model)


@pytest.mark.parametrize('name', small.CHAINS)
def test_every_layer_of_the_simulation_equals_the_integer_reference(name):
  _, model = served(*small.trained(small.CHAINS[name]), 10, 2)
  with shares.recorded() as held:
    logits = simulator.integers(model, small.IMAGES[:2], randomness.InsecureSeededRandomness(1))
  check_layers(model, held.values(model), logits)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', small.CHAINS)
def test_every_layer_of_both_parties_equals_the_integer_reference(name, mode):
  _, model = served(*small.trained(small.CHAINS[name]), 10, 2)
  check_parties(model, mode)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', PRUNED)
def test_a_layer_that_is_pruned_whole_is_a_constant(name, mode):
  records, ratios, left = PRUNED[name]
  net, variables = small.trained(records)
  approximation = small.planned(net, variables, ratios, [0] * len(ratios))
  model = small.quantised(net, variables, approximation)
  assert len(model.linear) == left
  check_float(net, variables, approximation, model)
  check_parties(model, mode)


def test_bits_are_dropped_between_linear_layers_only_where_a_narrow_ring_cannot_hold_them():
  net, variables = small.trained(small.CHAINS['stem'])

  def rings(ratio, precision=None):
    _, model = served(net, variables, ratio, 2, precision)
    found = layers.shapes(model.public.layers, model.public.input_shape)
    dropped = [s.layer.shift for s in found if isinstance(s.layer, layers.Truncate)]
    return dropped, Structure.of(model.public).rings.linear, model

  # A ReLU alone reads the second layer: 36 bits hold both layers' fraction bits, and more.
  dropped, found, model = rings(0)
  assert dropped == [] and found['conv0'] == found['conv1'] == 36
  assert model.public.truncation_failure == 0
  # Squares are in the widest ring anyway, and finer weights need it.
  for ratio, precision, shift in ((10, None, 8), (0, small.FINE, 11)):
    dropped, found, model = rings(ratio, precision)
    assert dropped == [shift] and found['conv0'] == 56
    assert 0 < model.public.truncation_failure < 2**-20
  assert found['conv1'] == 28


def test_who_reads_a_linear_layer_is_prepared_a_wave_later():
  _, model = served(*small.trained(small.CHAINS['bottleneck']), 0, 2)
  structure = Structure.of(model.public)
  assert structure.waves == (
    ('conv0', 'conv1', 'conv3', 'conv4', 'dense0'),
    ('conv2', 'conv5'),
  )
  assert not {'conv2', 'conv5'} & structure.drawn.keys()
  # Each wave is a round trip of the offline phase, and none of the online phase.
  _, plain = served(*small.trained(small.CHAINS['depthwise']), 0, 2)
  chained, alone = (
    estimate.inference(each.public, 'delphi').record['phases'] for each in (model, plain)
  )
  assert chained['offline']['rounds'] == alone['offline']['rounds'] + 1
  assert chained['online']['rounds'] == len(model.public.activations) + 1


def test_what_reads_a_batch_norm_or_is_read_by_one_is_fused_with_it():
  """A batch norm is served only where neither is possible."""
  records = (
    Conv(6, batch_norm=False),
    layers.BatchNorm(),
    small.ACT,
    layers.BatchNorm(),
    Conv(5, padding=layers.NO_PADDING),
    small.ACT,
    AveragePool(2),
    Flatten(),
    layers.BatchNorm(),
    Dense(5),
    layers.BatchNorm(),
    Dense(4),
  )
  net, variables = small.trained(records)
  approximation, model = served(net, variables, 10, 2, small.FINE)
  assert [w.kernel.shape for w in model.linear.values()] == [(3, 3, 2, 6), (3, 3, 6, 5), (45, 4)]
  check_float(net, variables, approximation, model)


def test_layers_in_a_row_become_one_where_it_has_fewer_products():
  for records, kernels in (
    # A separable convolution without an activation between.
    ((Conv(4, groups=2, stride=2), Conv(6, 1, stride=2)), [(3, 3, 2, 6)]),
    ((Conv(4, 1), Conv(6, 1), Conv(3, 1, batch_norm=False)), [(1, 1, 2, 3)]),
    # Through few channels two layers are cheaper.
    ((Conv(9), small.ACT, Conv(2, 1), Conv(9, 1)), [(3, 3, 2, 9), (1, 1, 9, 2), (1, 1, 2, 9)]),
  ):
    net, variables = small.trained((*records, small.ACT, *small.END))
    approximation, model = served(net, variables, 0, 2, small.FINE)
    assert [w.kernel.shape for w in model.linear.values()][:-1] == kernels
    check_float(net, variables, approximation, model)


def test_a_bundle_keeps_every_record(tmp_path):
  for records, ratios in (
    (small.CHAINS['pre-activation'], [10, 10, 10]),
    (small.CHAINS['grouped'], [10, 10, 10]),
    (PRUNED['beside a projection'][0], [20, 10]),
  ):
    net, variables = small.trained(records)
    model = small.quantised(
      net,
      variables,
      small.planned(net, variables, ratios, [0 if 20 in ratios else 2] * len(ratios)),
    )
    bundle.save(tmp_path / 'model', model)
    found = bundle.load(tmp_path / 'model')
    assert found.public == model.public
    np.testing.assert_array_equal(found.run(small.IMAGES), model.run(small.IMAGES))

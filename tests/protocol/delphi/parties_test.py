"""Two parties over a socket compute what the integer reference does, layer by layer."""

import itertools

import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.crypto import ring
from safenet_jax.models import layers
from safenet_jax.models import network as networks
from safenet_jax.transport import ledger as ledgers
from tests.protocol.simulation import simulator_test
from tests.support import networks as small
from tests.support import parties, reference, shares


@pytest.fixture(scope='module')
def images():
  return data.load('fashion_mnist')


def signed(c, s, bits):
  return ring.reconstruct(c, s, bits)


@pytest.mark.parametrize(
  'mode, name',
  [
    *itertools.product(['delphi', 'gazelle', 'ot'], simulator_test.ALL_PLANS),
    # Without circuits it is Delphi's code.
    ('minionn', 'all ReLU'),
    ('minionn', 'mixed'),
  ],
)
def test_every_layer_equals_the_integer_reference(images, name, mode):
  _, _, _, model = simulator_test.served(name)
  test = images.test.images[:2]
  run = parties.run(model, test, mode=mode)
  assert all(size == foreseen for size, foreseen in run.sizes)
  for n in range(len(test)):
    x = model.public.encode(test[n : n + 1])[0]
    for t in range(7):
      conv, act = f'conv{t}', f'activation{t}'
      weights, form = model.linear[conv], model.public.activations[act]
      conv_layer = reference.layer_of(model, f'conv{t}')
      y = reference.convolution(x, weights.kernel, conv_layer) + weights.bias
      found = shares.reconstruct(model, conv, run.c[n][conv][0], run.s[conv][n])
      reference.near(found, y)
      y = found
      exact, bound = reference.activation(y, form, model.polynomials.get(act, ()))
      after = f'conv{t + 1}' if t < 6 else 'dense0'
      mask = run.client[n].layers[act].mask[0]
      x = shares.reconstruct(model, act, mask, run.m[after][n].reshape(mask.shape))
      assert (np.abs(x - exact) <= bound).all(), (t, np.abs(x - exact).max())
    dense = model.linear['dense0']
    reference.near(run.logits[n], x.reshape(-1) @ dense.kernel + dense.bias)
  ours, theirs = (ledger.record() for ledger in run.ledgers)
  joined = ledgers.join(ours, theirs)
  # In Delphi the image goes up, every activation layer is a round trip, and the logits come
  # down. In Gazelle every linear layer is a round trip too. Transfers of a layer's sign tests,
  # or of its labels, take another one.
  garbled = sum(form.relu > 0 for form in model.public.activations.values())
  online = {'delphi': 8, 'gazelle': 15, 'ot': 8 + garbled, 'minionn': 8 + garbled}
  assert joined['phases']['online']['rounds'] == online[mode]
  # Delphi's five flights and the names of what was prepared; the fifth is for garbled channels,
  # and without them the third is for polynomials.
  polynomial = any(form.polynomial for form in model.public.activations.values())
  offline = {'delphi': 3 if garbled else 2, 'minionn': 2 if polynomial else 1}
  if mode in offline:
    assert ours['phases']['offline']['rounds'] == offline[mode]


@pytest.mark.parametrize('mode', ['delphi', 'ot'])
@pytest.mark.parametrize('name', ['padded', 'projected', 'pre-activation', 'VGG'])
def test_shortcuts_and_max_pools_are_served(name, mode):
  records = small.NETWORKS.get(name, small.VGG)
  net, variables = small.trained(records)
  count = len(networks.activation_channels(net))
  # No polynomials before max pools.
  degrees = [(0, 2, 3)[t % 3] for t in range(count)] if name != 'VGG' else [0, 2, 0, 3]
  ratios = [10] * count if name != 'VGG' else [0, 10, 10, 10]
  model = small.quantised(net, variables, small.planned(net, variables, ratios, degrees))
  run = parties.run(model, small.IMAGES[:2], mode=mode)
  assert all(size == foreseen for size, foreseen in run.sizes)
  trace = run.trace(model)
  for n in range(2):
    follower = reference.Follower(model, trace, n, reference.near)
    x = model.public.encode(small.IMAGES[n : n + 1])[0]
    np.testing.assert_array_equal(layers.run(model.public.layers, follower, x), run.logits[n])
  # Materials in files are the same.
  for material in run.client:
    again = type(material).from_arrays(material.identifier, material.arrays(), material.output)
    assert again.arrays().keys() == material.arrays().keys()
    for key, array in again.arrays().items():
      np.testing.assert_array_equal(array, material.arrays()[key])

"""Two parties serve what other people's networks have, in every mode."""

import itertools

import numpy as np
import pytest

from safenet_jax.models import layers
from safenet_jax.models import network as networks
from safenet_jax.protocol.service import bundle, sessions
from tests.support import networks as small
from tests.support import parties, reference


def served(name, ratio):
  """A network's model under a plan that replaces so many twentieths of every layer."""
  net, variables = small.trained(small.OTHERS[name])
  count = len(networks.activation_channels(net))
  degrees = [(2, 3, 0)[t % 3] for t in range(count)]
  approximation = small.planned(net, variables, [ratio] * count, degrees)
  return net, variables, approximation, small.quantised(net, variables, approximation, small.FINE)


@pytest.mark.parametrize('name', small.OTHERS)
@pytest.mark.parametrize('ratio', [0, 10])
def test_the_integer_model_is_near_the_float_network(name, ratio):
  net, variables, approximation, model = served(name, ratio)
  wanted = np.asarray(small.floating(net)(variables, small.normal(small.IMAGES), approximation))
  found = model.logits(small.IMAGES)
  error = np.abs(found - wanted).max(-1) / np.abs(wanted).max()
  # Behind polynomials a few images leave the formats.
  assert np.median(error) < 0.002 and error.max() < 0.05


def test_a_branch_of_a_concatenation_may_be_pruned_whole():
  net, variables = small.trained(small.OTHERS['fire'])
  approximation = small.planned(net, variables, [0, 0, 20, 10, 0], [2, 2, 0, 2, 2])
  model = small.quantised(net, variables, approximation, small.FINE)
  # Its convolution is gone, too.
  assert len(model.linear) == 4
  wanted = np.asarray(small.floating(net)(variables, small.normal(small.IMAGES), approximation))
  error = np.abs(model.logits(small.IMAGES) - wanted).max(-1) / np.abs(wanted).max()
  assert np.median(error) < 0.01 and error.max() < 0.05
  run = parties.run(model, small.IMAGES[:1], mode='ot')
  follower = reference.Follower(model, run.trace(model), 0, reference.near)
  x = model.public.encode(small.IMAGES[:1])[0]
  np.testing.assert_array_equal(layers.run(model.public.layers, follower, x), run.logits[0])


@pytest.mark.parametrize('name', small.OTHERS)
def test_a_bundle_brings_the_model_back(name, tmp_path):
  *_, model = served(name, 10)
  bundle.save(tmp_path / 'model', model)
  again = bundle.load(tmp_path / 'model')
  assert again.public == model.public
  np.testing.assert_array_equal(again.run(small.IMAGES[:2]), model.run(small.IMAGES[:2]))


@pytest.mark.parametrize(
  'name, mode',
  [
    *itertools.product(small.OTHERS, [mode for mode in sessions.MODES if mode != 'minionn']),
    # Its circuits are Delphi's: of limits, and of max pools alone.
    ('limits', 'minionn'),
    ('inception', 'minionn'),
  ],
)
def test_both_parties_follow_the_integer_reference(name, mode):
  *_, model = served(name, 0 if mode == 'ot' else 10)
  run = parties.run(model, small.IMAGES[:2], mode=mode)
  assert all(size == foreseen for size, foreseen in run.sizes)
  trace = run.trace(model)
  for n in range(2):
    follower = reference.Follower(model, trace, n, reference.near)
    x = model.public.encode(small.IMAGES[n : n + 1])[0]
    np.testing.assert_array_equal(layers.run(model.public.layers, follower, x), run.logits[n])
  if mode != 'gazelle':
    for material in run.client:
      again = type(material).from_arrays(material.identifier, material.arrays(), material.output)
      for key, array in again.arrays().items():
        np.testing.assert_array_equal(array, material.arrays()[key])

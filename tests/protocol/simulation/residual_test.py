"""Additions: the simulated protocol, the integer model and the float network agree."""

import numpy as np
import pytest

from safenet_jax.crypto import randomness
from safenet_jax.models import layers
from safenet_jax.models import network as networks
from safenet_jax.protocol.simulation import simulator
from tests.support import networks as small
from tests.support import reference, shares


def plan(net, seed):
  """Random ratios below 1, and degrees 0, 2 and 3 in turn."""
  count = len(networks.activation_channels(net))
  rng = np.random.default_rng(seed)
  degrees = [(0, 2, 3)[(t + seed) % 3] for t in range(count)]
  return rng.integers(4, 17, count).tolist(), degrees


@pytest.mark.parametrize('name', small.NETWORKS)
def test_the_integer_model_computes_what_the_float_network_does(name):
  """A channel in a wrong place, or a scale missed, would be an error of order one."""
  net, variables = small.trained(small.NETWORKS[name])
  count = len(networks.activation_channels(net))
  plans = [plan(net, seed) for seed in range(3)]
  plans += [([0] * count, [2] * count), ([10] * count, [2] * count)]
  general = 0
  for ratios, degrees in plans:
    approximation = small.planned(net, variables, ratios, degrees)
    model = small.quantised(net, variables, approximation, small.FINE)
    found = model.logits(small.IMAGES)
    wanted = np.asarray(small.floating(net)(variables, small.normal(small.IMAGES), approximation))
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert error < 0.02, (ratios, degrees, error)
    for t, form in enumerate(model.public.activations.values()):
      masked = int(approximation[t].mask.sum())
      assert form.relu == approximation[t].mask.size - masked
      assert form.polynomial == (masked if degrees[t] else 0)
      general += form.general
  assert general > 0


@pytest.mark.parametrize('name, seed', list(zip(small.NETWORKS, (0, 1, 2, 1))))
def test_every_layer_of_the_protocol_equals_the_integer_reference(name, seed):
  net, variables = small.trained(small.NETWORKS[name])
  approximation = small.planned(net, variables, *plan(net, seed))
  model = small.quantised(net, variables, approximation)
  images = small.IMAGES[:2]
  with shares.recorded() as held:
    logits = simulator.integers(model, images, randomness.InsecureSeededRandomness(1))
  values = held.values(model)
  errors, bounds = [], []
  for n in range(len(images)):
    follower = reference.Follower(model, values, n)
    x = np.round(small.normal(images[n]) * 2.0**model.public.input_fraction).astype(np.int64)
    np.testing.assert_array_equal(layers.run(model.public.layers, follower, x), logits[n])
    for error, bound in follower.errors.values():
      errors.append(error.ravel())
      bounds.append(bound.ravel())
  assert abs(np.concatenate(errors).mean()) < 0.1 * np.concatenate(bounds).mean()


def test_a_square_is_folded_where_one_layer_alone_makes_its_input():
  net, variables = small.trained(small.NETWORKS['pre-activation'])
  count = len(networks.activation_channels(net))
  approximation = small.planned(net, variables, [10] * count, [2] * count)
  model = small.quantised(net, variables, approximation)
  # The first convolution and the first sum go on in the shortcuts as well.
  general = {'activation0', 'activation2', 'activation4'}
  for name, form in model.public.activations.items():
    assert form.general == (name in general) and form.monic != form.general
    leading = model.polynomials[name][2]
    assert (leading == 1).all() == form.monic


def test_pruned_channels_of_a_sum_are_not_made_and_not_read():
  net, variables = small.trained(small.NETWORKS['padded'])
  approximation = small.planned(net, variables, [0, 0, 10, 0, 10], [0] * 5)
  model = small.quantised(net, variables, approximation)
  # The sum before the third activation keeps 3 of 6 channels, the last one 4 of 9.
  assert [w.kernel.shape[-2:] for w in model.linear.values()] == [
    (2, 6),
    (6, 6),
    (6, 3),
    (3, 9),
    (9, 4),
    (4, 4),
  ]
  block = model.public.layers[2]
  assert block.branch[-1] == layers.Conv(3, batch_norm=False)
  (shortcut,) = block.shortcut
  order = np.flatnonzero(~np.asarray(approximation[2].mask))
  assert shortcut.channels == tuple(order.tolist())
  # The pads are zeros, and the kept channels come from where they are now.
  *_, pads = model.public.layers[4].shortcut
  kept = np.flatnonzero(~np.asarray(approximation[4].mask))
  sources = order.tolist()
  assert pads.channels == tuple(
    sources.index(c - 1) if c - 1 in sources else -1 for c in kept.tolist()
  )


def test_shares_of_sums_and_of_general_squares_are_uniform():
  """Both shares of every layer's output and of every sum, for one image many times."""
  net, variables = small.trained(small.NETWORKS['projected'])
  count = len(networks.activation_channels(net))
  approximation = small.planned(net, variables, [10] * count, [2] * count)
  model = small.quantised(net, variables, approximation)
  images = np.repeat(small.IMAGES[:1], 32, axis=0)
  with shares.recorded() as held:
    simulator.infer(model, images, randomness.InsecureSeededRandomness(3))
  assert model.public.activations.keys() | {'add0', 'add1'} < held.server.keys()
  for party in held:
    for name, share in party.items():
      for low in (0, 10, 20):  # the narrowest ring has 28 bits
        octets = (share.ravel() >> np.uint64(low)) & np.uint64(255)
        counts = np.bincount(octets.astype(np.int64), minlength=256)
        expected = octets.size / 256
        # 255 degrees of freedom: mean 255, deviation 23.
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * 23, (name, low)

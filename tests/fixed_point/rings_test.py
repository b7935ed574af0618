"""Which ring each linear layer gets."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import encrypted_convolution
from safenet_jax.fixed_point import consistency, rings
from safenet_jax.models import layers
from safenet_jax.models import network as networks
from tests.support import models
from tests.support import networks as small


def any_weights(name, bits):
  del name, bits
  return True


def with_rings(model, **found):
  return dataclasses.replace(model.public, rings=found)


def test_only_what_becomes_a_polynomial_needs_the_widest_ring():
  public = models.calibrated().public
  assert public.activations['activation0'].polynomial
  assert not public.activations['activation1'].polynomial
  assert public.logit_bits <= 28
  assert public.rings == {'conv1': 28, 'dense0': 28}
  found = rings.of(public)
  assert found.linear == {'conv0': 56, 'conv1': 28, 'dense0': 28}
  assert found.values == {'input': 56, 'activation0': 28, 'activation1': 28}
  assert found.logits == 28


def test_without_a_bound_of_the_logits_their_ring_is_the_widest():
  model = models.model()
  assert model.public.logit_bits is None
  assert rings.narrowest(model.public, any_weights) == {'conv1': 28}


def test_a_wider_selection_takes_a_wider_ring():
  model = models.model()
  form = model.public.activations['activation1']
  for bits, wanted in ((28, 28), (29, 36), (36, 36), (37, None)):
    forms = model.public.activations | {'activation1': dataclasses.replace(form, select_bits=bits)}
    public = dataclasses.replace(model.public, activations=forms)
    assert rings.narrowest(public, any_weights).get('conv1') == wanted


def test_an_output_without_a_shift_takes_one_bit_more():
  """Its truncation has a carry of 28 bits, of which the ring is to keep one."""
  model = models.model()
  form = dataclasses.replace(
    model.public.activations['activation1'], input_fraction=7, output_fraction=7
  )
  forms = model.public.activations | {'activation1': form}
  public = dataclasses.replace(
    model.public, activations=forms, logit_bits=20, rings={'conv1': 28, 'dense0': 28}
  )
  consistency.check(public)
  assert form.relu_shift == 0
  assert rings.of(public).values['activation1'] == 29
  assert form.rescales(29)[0].wrap_bits == 1


def test_weights_decide_too():
  """A norm of 2^15 rounds wrongly in the narrow rings, and not in the widest."""
  model = models.model()
  kernel = np.full((3, 3, 6, 4), 1 << 13)
  found = rings.narrowest(model.public, lambda name, bits: encrypted_convolution.fits(kernel, bits))
  assert encrypted_convolution.fits(kernel, 56) and found == {}


@pytest.mark.parametrize('name', small.NETWORKS)
def test_what_is_added_is_in_the_ring_of_the_sums_reader(name):
  net, variables = small.trained(small.NETWORKS[name])
  count = len(networks.activation_channels(net))
  for ratio in (0, 10):
    ratios = [0] * (count - 1) + [ratio]
    model = small.quantised(net, variables, small.planned(net, variables, ratios, [2] * count))
    found = rings.of(model.public)
    # The last activation reads a sum in all of these networks but one.
    last = list(model.public.activations)[-1]
    assert bool(model.public.activations[last].polynomial) == bool(ratio)
    wide = {layer for layer, bits in found.linear.items() if bits == 56}
    assert bool(wide) == bool(ratio)
    assert set(found.linear.values()) <= {28, 36, 56}
    if ratio and name == 'padded':
      # Its sum is of the last convolution and of the activation before, which others read too.
      before = list(model.public.activations)[-3]
      assert found.values[before] == 56 and len(wide) == 1


@pytest.mark.parametrize(
  'found, message',
  [
    ({'conv0': 28}, 'conv0 in a ring of 28 bits, want at least 56'),
    ({'conv1': 27}, 'conv1 in a ring of 27 bits'),
    ({'conv1': 30}, 'conv1 in a ring of 30 bits'),
    ({'conv1': 64}, 'conv1 in a ring of 64 bits'),
    ({'conv9': 28}, 'layers that do not exist: conv9'),
    ({'activation1': 28}, 'layers that do not exist: activation1'),
  ],
)
def test_rings_that_do_not_fit_are_refused(found, message):
  public = with_rings(models.calibrated(), **found)
  with pytest.raises(ValueError, match=message):
    rings.of(public)
  with pytest.raises(ValueError, match=message):
    consistency.check(public)


def test_a_linear_layer_behind_another_one_needs_its_ring():
  public = dataclasses.replace(
    models.calibrated().public, layers=(layers.Flatten(), layers.Dense(5), layers.Dense(3))
  )
  public = dataclasses.replace(public, activations={}, rings={'dense1': 28})
  assert rings.of(public).linear == {'dense0': 56, 'dense1': 28}
  with pytest.raises(ValueError, match='want at least 56'):
    rings.of(dataclasses.replace(public, rings={'dense0': 28}))

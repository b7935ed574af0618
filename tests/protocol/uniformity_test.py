"""What a party sees is uniform, whatever the image and the weights are."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto import ring
from safenet_jax.crypto import word_transfer
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.protocol import description
from safenet_jax.protocol import formats
from safenet_jax.protocol import structure as structures
from safenet_jax.protocol import wire
from safenet_jax.protocol.frames import ProtocolError
from tests.protocol import marginals
from tests.protocol import models
from tests.protocol import parties
from tests.protocol import views

# One in 10^9, for each of about 50 names.
LIMIT = 6.0


def zeroed(model):
  """The same formats, and no weights, biases or coefficients."""
  return dataclasses.replace(
      model,
      linear={
          name: dataclasses.replace(w, kernel=0 * w.kernel, bias=0 * w.bias)
          for name, w in model.linear.items()
      },
      polynomials={name: 0 * c for name, c in model.polynomials.items()},
  )


MODELS = {'zero': zeroed(models.model()), 'random': models.model(), 'other': models.model(1)}
IMAGES = {
    'black': np.zeros((4, 8, 8, 2), np.uint8),
    'random': np.random.default_rng(0).integers(0, 256, (4, 8, 8, 2), np.uint8),
}
CASES = [
    ('zero', 'black'), ('zero', 'random'), ('random', 'black'), ('random', 'random'),
    ('other', 'random'),
]


@pytest.fixture(scope='module')
def sessions():
  return {case: views.run(MODELS[case[0]], IMAGES[case[1]]) for case in CASES}


@pytest.mark.parametrize('case', CASES)
def test_every_message_and_what_is_made_of_it_is_uniform(sessions, case):
  found, short = marginals.surprises(sessions[case])
  assert max(found.values()) < LIMIT, {n: s for n, s in found.items() if s >= LIMIT}
  assert short == {'client: points 2'}  # the session's nonce


class InsecureZeroMasks(SystemRandomness):
  def ring(self, bits, shape):
    return np.zeros(shape, np.uint64)

  def residues(self, modulus, shape):
    return np.zeros(shape, np.uint64)


def test_without_masks_the_messages_are_not_uniform(monkeypatch):
  """So the test above fails without its defences: r, u, rho_j, beta_j and K."""
  monkeypatch.setattr(
      word_transfer, 'random_words', lambda pads, bits: np.zeros_like(pads.words)
  )
  bare = views.run(
      MODELS['zero'], IMAGES['black'], client=InsecureZeroMasks(), server=InsecureZeroMasks()
  )
  found, _ = marginals.surprises(bare)
  failing = {name for name, value in found.items() if value >= LIMIT}
  assert failing >= {
      'server: input 56', 'server: masked 38', 'server: m', 'server: u', 'server: K',
      'client: c', "client: c'", 'client: alpha', 'client: share of logits', 'client: logits 56',
      'client: activation field',
  }


def bytes_by_row(found):
  return [
      {
          (row['phase'], row['layer'], row['primitive'], row['party']):
              (row['bytes'], row['messages'], row['flights'])
          for row in ledger.record()['rows'] if row['messages']
      }
      for ledger in found.ledgers
  ]


def test_lengths_and_ledger_do_not_depend_on_weights_coefficients_or_images(sessions):
  first, *others = sessions.values()
  for other in others:
    assert other.lengths() == first.lengths()
    assert bytes_by_row(other) == bytes_by_row(first)


def test_a_server_that_leaves_zero_kernels_out_is_noticed(monkeypatch):
  """So the test above fails for a server that saves itself the work."""
  class Saving(parties.Linear):
    def reply(self, keys, name, upload, tag):
      message, u = super().reply(keys, name, upload, tag)
      return message[: len(message) // 2], u

  monkeypatch.setattr(parties, 'Linear', Saving)
  with pytest.raises(ProtocolError, match="message 'linear' has"):
    views.run(MODELS['zero'], IMAGES['black'])


def without_weights(public):
  """The public formats with zeros for all that they leave out."""
  linear = {}
  for name, layer in structures.structure(public).linear.items():
    shape = layer.kernel_shape if name.startswith('conv') else layer.kernel_shape[2:]
    zeros = np.zeros(shape, np.int64)
    bias = np.zeros(shape[-1], np.int64)
    linear[name] = formats.LinearWeights(zeros, bias, layer.stride, limb=16)
  polynomials = {
      name: np.zeros((form.degree + 1, form.polynomial), np.int64)
      for name, form in public.activations.items() if form.polynomial
  }
  return dataclasses.replace(public, linear=linear, polynomials=polynomials)


def simulate(public, images, logits):
  """The client's view, from the architecture, the client's coins and its logits alone.

  The simulator is a server without weights that corrects the last message: with
  c the client's share, of which it knows the coins, s = logits - c.
  """
  model = without_weights(public)
  found = views.Views()

  def correct(party, tag, values):
    if tag != 'logits':
      return values
    bits = model.precision.ring
    ours = np.concatenate([material.share for material in found.client])
    share = ring.reduce(ring.from_signed(logits, bits) - ours, bits)
    return (wire.Words(share.shape, bits).pack(share),)

  return views.run(model, images, lie=correct, views=found)


def test_a_simulator_without_the_weights_gives_the_same_view_to_the_client(sessions):
  case = 'random', 'random'
  real, images = sessions[case], IMAGES[case[1]]
  public = description.describe(MODELS[case[0]], SystemRandomness()).client_model()
  simulated = simulate(public, images, real.logits)
  assert simulated.lengths() == real.lengths()
  np.testing.assert_array_equal(simulated.logits, real.logits)
  found, _ = marginals.surprises(simulated)
  assert found.keys() == marginals.surprises(real)[0].keys()
  assert max(found.values()) < LIMIT


def test_without_masks_the_view_tells_the_weights_and_the_simulated_one_does_not(sessions):
  """c is W r of the client's own r, which no simulator without W can give."""
  model, images = MODELS['random'], IMAGES['random']
  bare = views.run(model, images, server=InsecureZeroMasks())
  simulated = simulate(
      description.describe(model, SystemRandomness()).client_model(), images, bare.logits
  )
  kernel = model.linear['dense0'].kernel.astype(np.uint64)
  told = [
      [
          np.array_equal(
              m.share, ring.reduce(m.layers['activation1'].mask.reshape(1, -1) @ kernel, 56)
          ) for m in view.client
      ] for view in (bare, sessions['random', 'random'], simulated)
  ]
  assert told == [[True] * 4, [False] * 4, [False] * 4]

"""What a party sees is uniform, whatever the image and the weights are."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto import ring
from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.fixed_point import rings
from safenet_jax.fixed_point.model import FixedPointModel, LinearWeights
from safenet_jax.protocol.delphi import linear_replies
from safenet_jax.protocol.gazelle import offline
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.transport import packed_words
from safenet_jax.transport.frames import ProtocolError
from tests.support import bare as bare_
from tests.support import marginals, models, views

# One in 10^9, for each of about 50 names.
LIMIT = 6.0


# How layers are served: by a mode, with a model of weights from a seed.
KINDS = {
  'delphi': ('delphi', models.model),
  'gazelle': ('gazelle', models.model),
  'minionn': ('minionn', models.model),
  'ot': ('ot', models.model),
  'max pools': ('delphi', models.pooled),
  'max pools by transfers': ('ot', models.pooled),
  'limits, and max pools alone, by transfers': ('ot', models.others),
  'chain': ('delphi', models.chained),
  'limits, and max pools alone': ('gazelle', models.others),
}
WEIGHTS = {
  'zero': lambda make: models.zeroed(make()),
  'random': lambda make: make(),
  'other': lambda make: make(1),
}
IMAGES = {
  'black': np.zeros((4, 8, 8, 2), np.uint8),
  'random': np.random.default_rng(0).integers(0, 256, (4, 8, 8, 2), np.uint8),
}
CASES = [
  (kind, weights, images)
  for kind in KINDS
  for weights in ('zero', 'random')
  for images in ('black', 'random')
] + [('delphi', 'other', 'random')]


def run(kind, weights, images, **options):
  mode, make = KINDS[kind]
  return views.run(WEIGHTS[weights](make), IMAGES[images], mode=mode, **options)


@pytest.fixture(scope='module')
def sessions():
  return {case: run(*case) for case in CASES}


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


BOTH = {'server: masked 56', 'server: m', 'server: K', 'client: c', 'client: logits 56'}
DELPHI = BOTH | {
  'server: input 56',
  'server: u',
  "client: c'",
  'client: alpha',
  'client: share of logits',
  'client: activation field',
  'server: shares 28',
}
BARE = {
  'delphi': DELPHI,
  'chain': DELPHI,
  'minionn': DELPHI,
  'ot': DELPHI,
  'gazelle': BOTH
  | {
    'server: differences 0',
    'server: differences 28',
    'server: differences field',
    "client: c'",
    'client: alpha',
    'client: activation field',
  },
  'limits, and max pools alone': BOTH
  | {
    'server: differences 0',
    'server: differences 28',
    'server: M',
  },
  'max pools by transfers': BOTH,
  'limits, and max pools alone, by transfers': BOTH,
  'max pools': BOTH
  | {
    'server: input 56',
    'server: u',
    'server: M',
    'client: v',
    'client: share of logits',
    'server: shares 28',
  },
}


@pytest.mark.parametrize('kind', KINDS)
def test_without_masks_the_messages_are_not_uniform(kind, monkeypatch):
  """So the test above fails without its defences: r, u, rho_j, beta_j, K, M, and Gazelle's pads."""

  def no_pads(labels, delta, keys):
    found = sender_pads(labels, delta, keys)
    return dataclasses.replace(found, words=np.zeros_like(found.words))

  sender_pads = word_transfer.sender_pads
  monkeypatch.setattr(word_transfer, 'random_words', lambda pads, bits: np.zeros_like(pads.words))
  monkeypatch.setattr(word_transfer, 'sender_pads', no_pads)
  monkeypatch.setattr(offline._Image, '_label_choices', no_choices)
  bare_.replies_without_masks(monkeypatch)
  bare_.masks_from_the_party(monkeypatch)
  bare = run(kind, 'zero', 'black', client=InsecureZeroMasks(), server=InsecureZeroMasks())
  found, _ = marginals.surprises(bare)
  failing = {name for name, value in found.items() if value >= LIMIT}
  assert failing >= BARE[kind]


def no_choices(image):
  """Gazelle's rho, all zero."""
  image.choices = np.zeros(image.transfers // 8, np.uint8)
  return image.choices


def bytes_by_row(found):
  return [
    {
      (row['phase'], row['layer'], row['primitive'], row['party']): (
        row['bytes'],
        row['messages'],
        row['flights'],
      )
      for row in ledger.record()['rows']
      if row['messages']
    }
    for ledger in found.ledgers
  ]


@pytest.mark.parametrize('kind', KINDS)
def test_lengths_and_ledger_do_not_depend_on_weights_coefficients_or_images(sessions, kind):
  first, *others = (found for case, found in sessions.items() if case[0] == kind)
  for other in others:
    assert other.lengths() == first.lengths()
    assert bytes_by_row(other) == bytes_by_row(first)


def test_a_server_that_leaves_zero_kernels_out_is_noticed(monkeypatch):
  """So the test above fails for a server that saves itself the work."""

  class Saving(linear_replies.InSession):
    def reply(self, keys, name, upload, tag, *, drawn):
      message, u = super().reply(keys, name, upload, tag, drawn=drawn)
      return message[: len(message) // 2], u

  monkeypatch.setattr(linear_replies, 'InSession', Saving)
  with pytest.raises(ProtocolError, match="message 'linear' has"):
    run('delphi', 'zero', 'black')


def without_weights(public):
  """The public formats with zeros for all that they leave out."""
  linear = {}
  for name, layer in Structure.of(public).linear.items():
    shape = layer.kernel_shape if name.startswith('conv') else layer.kernel_shape[2:]
    zeros = np.zeros(shape, np.int64)
    bias = np.zeros(shape[-1], np.int64)
    linear[name] = LinearWeights(zeros, bias, limb=16)
  polynomials = {
    name: np.zeros((form.degree + 1, form.polynomial), np.int64)
    for name, form in public.activations.items()
    if form.polynomial
  }
  return FixedPointModel(public, linear, polynomials)


def simulate(kind, public, images, logits):
  """The client's view, from the architecture and its logits alone.

  The simulator is a server without weights that corrects the last message: where
  nothing is multiplied, its share is the client's share c up to the sign, whatever
  the client's coins are, and s = logits - c makes that one the client's logits.
  """
  model = without_weights(public)
  found, bits = views.Views(), rings.of(model.public).logits

  def correct(party, tag, values):
    if (party, tag) != ('server', 'logits'):
      return values
    words = packed_words.Words(logits.shape, bits)
    share = words.unpack(values[0]) + ring.from_signed(logits, bits)
    return (words.pack(ring.reduce(share, bits)),)

  return views.run(model, images, mode=KINDS[kind][0], lie=correct, views=found)


def public_model(kind):
  _, make = KINDS[kind]
  return make().public


@pytest.mark.parametrize('kind', KINDS)
def test_a_simulator_without_the_weights_gives_the_same_view_to_the_client(sessions, kind):
  real = sessions[kind, 'random', 'random']
  simulated = simulate(kind, public_model(kind), IMAGES['random'], real.logits)
  assert simulated.lengths() == real.lengths()
  # Encryption rounds by one now and then.
  np.testing.assert_allclose(simulated.logits, real.logits, rtol=0, atol=1)
  found, _ = marginals.surprises(simulated)
  assert found.keys() == marginals.surprises(real)[0].keys()
  assert max(found.values()) < LIMIT


def test_without_masks_the_view_tells_the_weights_and_the_simulated_one_does_not(sessions):
  """c is W r of the client's own r, which no simulator without W can give."""
  with pytest.MonkeyPatch.context() as patch:
    bare_.replies_without_masks(patch)
    bare = run('delphi', 'random', 'random')
  simulated = simulate('delphi', public_model('delphi'), IMAGES['random'], bare.logits)
  kernel = models.model().linear['dense0'].kernel.astype(np.uint64)
  told = [
    [
      # Encryption rounds by one now and then.
      ring.reduce(
        m.share - m.layers['activation1'].mask.reshape(1, -1) @ kernel + np.uint64(1), 56
      ).max()
      <= 2
      for m in view.client
    ]
    for view in (bare, sessions['delphi', 'random', 'random'], simulated)
  ]
  assert told == [[True] * 4, [False] * 4, [False] * 4]

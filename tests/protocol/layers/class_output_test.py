"""The class alone leaves the protocol: it is right, and it is all that the client learns."""

import contextlib
import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto import ring
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.fixed_point import formats
from safenet_jax.fixed_point.model import OUT_OF_RANGE
from safenet_jax.models import layers
from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.gazelle import offline
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.protocol.service import description
from safenet_jax.transport.channel import Channel
from tests.protocol.delphi import privacy_test, uniformity_test
from tests.protocol.gazelle import gazelle_test
from tests.support import marginals, models, parties, views

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 2), np.uint8)


def linear(biases, kernel=0, logit_bits=None):
  """A network of one dense layer, whose logits are its biases where `kernel` is 0."""
  model = models.model()
  shape = 128, len(biases)
  dense = dataclasses.replace(
    model.linear['dense0'],
    bias=np.array(biases),
    limb=16,
    kernel=kernel * np.random.default_rng(1).integers(-99, 99, shape),
  )
  return models.altered(
    dataclasses.replace(model, linear={'dense0': dense}, polynomials={}),
    layers=(layers.Flatten(), layers.Dense(len(biases))),
    activations={},
    absorbed=frozenset(),
    logit_bits=logit_bits,
  )


def logits(run, model):
  """What both parties' shares stand for, int64 [B, classes]."""
  c = np.concatenate([found['dense0'].reshape(1, -1) for found in run.c])
  return ring.reconstruct(c, run.s['dense0'], model.public.precision.ring)


@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'minionn', 'ot'])
def test_it_is_the_class_of_the_integer_model(mode):
  model = models.calibrated()
  assert model.public.logit_bits < model.public.precision.ring
  run = parties.run(model, IMAGES, mode=mode, output='class')
  assert run.logits.dtype == np.int64
  np.testing.assert_array_equal(run.logits, logits(run, model).argmax(-1))
  assert all(size == foreseen for size, foreseen in run.sizes)
  # Roundings at random move a logit by less than 0.05.
  plain = model.logits(IMAGES)
  top = np.sort(plain)[:, -2:]
  clear = top[:, 1] - top[:, 0] > 0.1
  assert clear.any()
  np.testing.assert_array_equal(run.logits[clear], plain.argmax(-1)[clear])


@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'ot'])
@pytest.mark.parametrize('biases', [[5, 9, 9], [-7, -3, -3, -5, -3], [0] * 10])
def test_ties_go_to_the_first_class(biases, mode):
  run = parties.run(linear(biases), IMAGES[:1], mode=mode, output='class')
  assert run.logits == [np.argmax(biases)]


def test_a_hundred_classes_are_compared_mod_two_to_the_k():
  model = linear(np.arange(100) % 7, kernel=50, logit_bits=27)
  report = formats.RangeReport()
  expected = model.run(IMAGES, report)
  assert report.exceeded['logits'] == 0 and (expected < 0).any()
  found = views.run(model, IMAGES, output='class')
  np.testing.assert_array_equal(found.logits, expected.argmax(-1))
  form = found.structure.comparison_for('class')
  assert (form.count, form.tournament.bits, form.size) == (100, 27, 128)


@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'ot'])
def test_a_checked_class_is_none_where_a_logit_is_out_of_range(mode):
  """k of 5 bits: -16 to 15. The client's logits tell the same."""
  for biases, wanted in (
    ([-16, 15, 3], 1),
    ([-17, 15, 3], OUT_OF_RANGE),
    ([4, 3, 16], OUT_OF_RANGE),
    ([1 << 20, 3, -4], OUT_OF_RANGE),
  ):
    model = linear(biases, logit_bits=5)
    run = parties.run(model, IMAGES[:2], mode=mode, output='checked_class')
    assert run.logits.tolist() == [wanted] * 2
    assert all(size == foreseen for size, foreseen in run.sizes)
    assert model.public.classes(model.logits(IMAGES[:2])).tolist() == [wanted] * 2


def test_only_logits_that_do_not_fill_their_ring_can_be_checked():
  wide = models.model().public.precision.ring
  for bits in (None, wide):
    structure = Structure.of(linear([1, 2, 3], logit_bits=bits).public)
    with pytest.raises(ValueError, match='without a range'):
      structure.comparison_for('checked_class')
    assert structure.comparison_for('class').tournament.bits == wide


def test_the_report_counts_logits_that_do_not_fit():
  report = formats.RangeReport()
  linear([3, -4, 4], logit_bits=3).run(IMAGES, report)
  assert report.exceeded['logits'] == 2 * len(IMAGES)


def test_calibrated_bits_hold_the_logits_and_the_margin():
  model = models.calibrated()
  images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 2), np.uint8)
  largest = np.abs(model.run(images)).max()
  margin = model.public.precision.margin
  assert 0.99 * margin * largest < 1 << model.public.logit_bits - 1 < 2.02 * margin * largest


MODELS = {'zero': models.zeroed(models.model()), 'random': models.model()}
CASES = [('zero', 'black'), ('random', 'random')]


@pytest.fixture(scope='module')
def sessions():
  return {
    case: views.run(MODELS[case[0]], uniformity_test.IMAGES[case[1]], output='class')
    for case in CASES
  }


@pytest.mark.parametrize('case', CASES)
def test_every_message_is_uniform(sessions, case):
  found, short = marginals.surprises(sessions[case])
  limit = uniformity_test.LIMIT
  assert max(found.values()) < limit, {n: s for n, s in found.items() if s >= limit}
  assert found.keys() >= {
    'client: class labels 0',
    'client: labels of logits',
    'client: class tables 2',
  }
  assert short == {'client: points 2', 'client: decoding bit'}  # a nonce, two bits an image


def test_lengths_do_not_depend_on_weights_or_images(sessions):
  first, second = sessions.values()
  assert first.lengths() == second.lengths()
  assert uniformity_test.bytes_by_row(first) == uniformity_test.bytes_by_row(second)


def shares_sent(found):
  """Of how many images the server's share of the logits is in its messages, packed or not."""
  raw = [
    value if isinstance(value, bytes) else value.tobytes()
    for party, _, values in found.sent
    if party == 'server'
    for value in values
  ]
  # Packed words have their low halves together.
  return sum(
    any(row.astype('<u4').tobytes() in part or row[0].tobytes() in part for part in raw)
    for row in found.s['dense0']
  )


def test_the_share_of_the_logits_is_never_sent_nor_kept(sessions):
  found = sessions['random', 'random']
  assert not found.messages('server', 'logits')
  assert shares_sent(found) == 0
  state = privacy_test.client_state(found, models.model().public)
  assert not state & set(found.s['dense0'].reshape(-1).tolist())
  assert not any(material.share.size for material in found.client)


def test_the_share_would_be_found_if_it_were_sent():
  """So the test above fails for a server that answers as for logits."""
  assert shares_sent(views.run(models.model(), IMAGES[:2])) == 2


def test_the_client_has_one_label_of_every_wire(sessions):
  found = sessions['random', 'random']
  delta, classes = found.server_keys.delta, found.structure.comparison_for('class')
  ((labels,),) = found.messages('server', 'class labels')
  held = privacy_test.rows(
    labels,
    *(m.argmax.labels[:, : classes.count] for m in found.client),
    *(m.argmax.garbled.tables for m in found.client),
  )
  assert len(held) > 2 * len(found.client) * classes.tournament.bits * classes.count
  assert privacy_test.pairs(held, delta) == 0 and delta.tobytes() not in held


def test_a_simulator_with_the_class_alone_gives_the_same_view():
  """A server without weights, whose logits are 1 at the class and 0 elsewhere."""
  real = views.run(models.model(), IMAGES[:1], output='class')
  model = uniformity_test.without_weights(models.model().public)
  bias = np.eye(3, dtype=np.int64)[real.logits[0]]
  dense = dataclasses.replace(model.linear['dense0'], bias=bias)
  blind = dataclasses.replace(model, linear=model.linear | {'dense0': dense})
  simulated = views.run(blind, IMAGES[:1], output='class')
  assert simulated.logits == real.logits
  assert simulated.lengths() == real.lengths()
  found, _ = marginals.surprises(simulated)
  assert max(found.values()) < uniformity_test.LIMIT
  assert found.keys() == marginals.surprises(real)[0].keys()


def corrected(monkeypatch, zero=False):
  """Gazelle's session for equal logits: the client's pads, and labels sent and had."""
  sent, send = {}, Channel.send

  def record(self, tag, *values):
    sent[tag] = values
    send(self, tag, *values)

  monkeypatch.setattr(Channel, 'send', record)
  if zero:
    monkeypatch.setattr(
      offline._Image,
      '_label_choices',
      lambda self: (
        setattr(self, 'choices', np.zeros(self.transfers // 8, np.uint8)) or self.choices
      ),
    )
  model = linear([0] * 100)
  run = parties.run(model, IMAGES, mode='gazelle', output='class')
  (d,), (theirs, _) = sent['class choices'], sent['class labels']
  form = Structure.of(model.public).comparison_for('class')
  bits = np.stack([form.entering(c['dense0'].reshape(-1)) for c in run.c])
  own = np.stack([m.argmax.labels[:, : form.count] for m in run.client])
  return d ^ bits, theirs, own, run.server[0].argmax.encoding._select_delta[1, :2]


def test_corrections_in_gazelles_mode_show_nothing(monkeypatch):
  pads, sent, own, delta = corrected(monkeypatch)
  for values in (pads, sent, own, sent ^ own):
    assert gazelle_test.chi_square(values) < gazelle_test.BOUND
  # Neither a label itself, nor two of one wire.
  assert not (sent == own).all(-1).any()
  assert not (sent[1:] ^ sent[:-1] == delta).all(-1).any()


def test_without_random_choices_the_server_sees_the_share(monkeypatch):
  """So the test above fails without its defence."""
  pads, *_ = corrected(monkeypatch, zero=True)
  assert not pads.any()


class Silent:
  """A channel on which nothing may be sent."""

  def scope(self, **_):
    return contextlib.nullcontext()


@pytest.mark.parametrize('made, wanted', [('logits', 'class'), ('class', 'logits')])
def test_a_preparation_for_another_output_is_refused_by_both_parties(made, wanted):
  model = linear([1, 2, 3])
  found = views.run(model, None, prepares=[1], output=made)
  set_up = Silent(), model, *parties.set_up(model)
  text = f'a preparation for {made}, want one for {wanted}'
  with pytest.raises(ValueError, match=text):
    online.ClientOnline(parties.client_party(*set_up), wanted, found.client).run(IMAGES[:1])
  with pytest.raises(ValueError, match=text):
    online.ServerOnline(parties.server_party(*set_up), wanted, found.server).run()
  assert not found.client[0].used and not found.server[0].used


@pytest.mark.parametrize('classes', [1, (1 << 14) + 1])
def test_a_network_whose_logits_cannot_be_compared_has_no_class(classes):
  model = linear([0])
  model = models.altered(model, layers=(layers.Flatten(), layers.Dense(classes)))
  assert description.describe(model, SystemRandomness()).outputs == ('logits',)
  with pytest.raises(ValueError, match=f'a class of {classes} logits, want 2 to 16384'):
    Structure.of(model.public).comparison_for('class')


def test_unknown_outputs_are_refused():
  with pytest.raises(ValueError, match="output 'top5', want one of logits, class"):
    Structure.of(models.model().public).comparison_for('top5')
  for bad in ((), ('class', 'class'), ('top5',)):
    with pytest.raises(ValueError, match='want some of logits, class'):
      description.describe(models.model(), SystemRandomness(), outputs=bad)

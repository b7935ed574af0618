"""The mode of Gazelle: its messages, what is used once, and what it costs beside Delphi.

That both modes compute what the integer reference does is in `parties_test`.
"""

import numpy as np
import pytest

from safenet_jax.crypto import ring
from safenet_jax.crypto.homomorphic import encrypted_convolution
from safenet_jax.protocol.gazelle import correlations, offline, online
from safenet_jax.protocol.layers import polynomial, relu
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from tests.support import models, parties, views

# Deviations above the mean of chi-square with 255 degrees of freedom: six of them.
BOUND = 255 + 6 * np.sqrt(2 * 255)


def some_images(count, value=None):
  """The same image again and again where there is a value."""
  rng = np.random.default_rng(count)
  images = rng.integers(0, 256, (count, 8, 8, 2)).astype(np.uint8)
  return images if value is None else np.full_like(images, value)


@pytest.fixture
def sent(monkeypatch):
  """By tag, the values of every message, of both parties."""
  found, send = {}, Channel.send

  def record(self, tag, *values):
    found.setdefault(tag, []).append(
      [value.copy() if isinstance(value, np.ndarray) else value for value in values]
    )
    send(self, tag, *values)

  monkeypatch.setattr(Channel, 'send', record)
  return found


def chi_square(values):
  """Of their bytes against the uniform distribution."""
  counts = np.bincount(np.frombuffer(np.ascontiguousarray(values), np.uint8), minlength=256)
  expected = counts.sum() / 256
  return ((counts - expected) ** 2).sum() / expected


def pads(model, run, sent):
  """What hides the client's shares of the first layer: rho, w_0 - w_1 and a_j of all images."""
  layer = Structure.of(model.public).activations[0]
  form, found = layer.form, []
  corrections = sent['differences'][: len(run.client)]
  for c, (d, _, packed, differences) in zip(run.c, corrections, strict=True):
    flat = c['conv0'][..., : form.relu].reshape(-1)
    bits = [
      relu.entering(flat[block.first : block.end], form, block.size).reshape(-1)
      for block in layer.blocks
    ]
    e = correlations.product_words(layer).unpack(packed)
    ring_bits = model.public.precision.ring
    powers = polynomial.offline_client(np, c['conv0'][..., form.relu :], form, ring_bits)
    g = correlations.power_words(layer).unpack(differences)
    p = np.uint64(form.modulus)
    found.append(
      (
        d ^ np.concatenate(bits),
        ring.reduce(e - flat, form.select_bits),
        (powers[: layer.powers] + p - g) % p,
      )
    )
  return [np.stack(parts) for parts in zip(*found)]


def test_pads_of_the_clients_shares_are_uniform(sent):
  model = models.model()
  run = parties.run(model, some_images(16, value=255), mode='gazelle')
  rho, offsets, a = pads(model, run, sent)
  assert chi_square(rho) < BOUND
  # Whole bytes only: those below 28 bits, and those in which p's being no power of 2 is not seen.
  assert chi_square(offsets.astype(np.uint32).view(np.uint8).reshape(-1, 4)[:, :3]) < BOUND
  assert chi_square(a.astype(np.uint32)) < BOUND
  # No image meets another's pads.
  for values in (rho, offsets, a):
    assert len(np.unique(values.reshape(16, -1), axis=0)) == 16


@pytest.mark.parametrize('method, position', [('_label_choices', 0), ('_factors', 2)])
def test_without_random_choices_the_pads_are_not_uniform(sent, monkeypatch, method, position):
  """The defence removed: the choices or factors that are prepared are all zero."""
  original = getattr(offline._Image, method)

  def zeros(self, *args):
    values = original(self, *args)
    if position == 0:
      self.choices = np.zeros_like(values)
      return self.choices
    self.pads[args[0].name] = np.zeros_like(values)
    return self.pads[args[0].name]

  monkeypatch.setattr(offline._Image, method, zeros)
  model = models.model()
  run = parties.run(model, some_images(2, value=255), mode='gazelle')
  values = pads(model, run, sent)[position]
  assert chi_square(values.astype(np.uint8 if position == 0 else np.uint32)) > BOUND


def test_the_client_gets_one_uniform_label_of_each_bit(sent):
  model = models.model()
  run = parties.run(model, some_images(4, value=0), mode='gazelle')
  form = Structure.of(model.public).activations[0]
  for n, material in enumerate(run.client):
    labels = material.layers[form.name].blocks[0].labels
    assert chi_square(labels) < BOUND
    # What was sent is uniform, and is not the label: the client needs its transfer too.
    message = sent['client labels'][n][0]
    assert chi_square(message) < BOUND
    assert not (message == labels.reshape(-1, 2)).all(1).any()
  # Nothing of delta in the labels of two bits of one message.
  delta = run.server[0].delta
  assert not (message[1:] ^ message[:-1] == delta).all(1).any()


def test_pads_of_powers_are_independent(sent):
  """With pads a, a^2, a^3 the differences of c'^j would be equations in c'."""
  cubic = models.cubic()
  run = parties.run(cubic, some_images(1), mode='gazelle')
  _, _, a = pads(cubic, run, sent)
  first, second, third = np.moveaxis(a, 1, 0)
  squares = ring.multiply_mod(np, first, first, ring.PRIME_50)
  assert (second != squares).all()
  assert (third != ring.multiply_mod(np, squares, first, ring.PRIME_50)).all()
  # Nor may they be one pad, or differ by what is public: the differences of the c'^j would show.
  for one, other in ((second, first), (third, first), (third, second)):
    differences = (one + np.uint64(ring.PRIME_50) - other) % np.uint64(ring.PRIME_50)
    assert differences.all()
    assert len(np.unique(differences)) > differences.size - 2  # two that meet: under 2^-70


def lengths(run):
  record = ledgers.join(*(ledger.record() for ledger in run.ledgers))
  keys = 'phase', 'layer', 'primitive', 'party', 'bytes', 'messages', 'flights'
  return sorted(tuple(row[key] for key in keys) for row in record['rows'])


def test_lengths_depend_on_neither_weights_nor_images():
  runs = [
    parties.run(models.model(seed), some_images(2, value), mode='gazelle')
    for seed, value in ((0, None), (1, None), (0, 0))
  ]
  assert lengths(runs[0]) == lengths(runs[1]) == lengths(runs[2])


def total(run, phase):
  record = ledgers.join(*(ledger.record() for ledger in run.ledgers))
  return record['phases'][phase]['bytes']


def test_more_goes_online_than_in_delphi_and_less_offline():
  runs = {
    mode: parties.run(models.model(), some_images(2), mode=mode) for mode in ('delphi', 'gazelle')
  }
  assert total(runs['gazelle'], 'online') > 2 * total(runs['delphi'], 'online')
  assert total(runs['gazelle'], 'offline') < total(runs['delphi'], 'offline')
  found = {
    (layer, primitive): size
    for phase, layer, primitive, _, size, *_ in lengths(runs['gazelle'])
    if phase == 'online'
  }
  # Every linear layer's ciphertexts, and a label for each of the client's bits.
  assert all(found[name, 'linear'] > 10_000 for name in ('conv0', 'conv1', 'dense0'))
  form = Structure.of(models.model().public).activations[0]
  assert found[form.name, 'client labels'] - 2 * 16 * form.transfers in range(2 * 100)


class Silent:
  """A channel on which nothing may be sent."""


def test_material_serves_once_and_is_refused_before_the_first_byte():
  model, images = models.model(), some_images(2)
  run = parties.run(model, images, mode='gazelle')
  set_up = Silent(), model, *parties.set_up(model)
  with pytest.raises(ValueError, match='used before'):
    online.ClientOnline(parties.client_party(*set_up), 'logits', run.client).run(images)
  with pytest.raises(ValueError, match='used before'):
    online.ServerOnline(parties.server_party(*set_up), 'logits', run.server).run()
  assert not any(material.correlations for material in (*run.client, *run.server))


def test_a_wrong_number_of_images_is_refused_and_spends_nothing():
  model = models.model()
  material = correlations.ClientMaterial(b'', np.empty(0), np.empty(0), {}, {})
  party = parties.client_party(Silent(), model, *parties.set_up(model))
  client = online.ClientOnline(party, 'logits', [material])
  with pytest.raises(ValueError, match='2 images for 1 materials'):
    client.run(some_images(2))
  assert not material.used


def test_corrections_of_another_transfer_are_refused(monkeypatch):
  send = Channel.send

  def alter(self, tag, *values):
    if tag == 'differences':
      d, identifier, *rest = values
      values = d, bytes(byte ^ 1 for byte in identifier), *rest
    send(self, tag, *values)

  monkeypatch.setattr(Channel, 'send', alter)
  with pytest.raises(ProtocolError, match='products|an error|gone|closed'):
    parties.run(models.model(), some_images(1), mode='gazelle')


def test_a_tag_names_the_session_the_preparation_and_the_layer(monkeypatch):
  tags, encrypt_map = [], encrypted_convolution.encrypt_map

  def record(secret, layer, values, randomness, tag):
    tags.append(tag)
    return encrypt_map(secret, layer, values, randomness, tag)

  monkeypatch.setattr(encrypted_convolution, 'encrypt_map', record)
  run = views.run(models.model(), some_images(2), mode='gazelle')
  layers = ('conv0', 'conv1', 'dense0')
  named = [(material.identifier, name) for name in layers for material in run.client]
  assert len(set(tags)) == 6
  for tag, (identifier, name) in zip(tags, named, strict=True):
    assert tag == run.client_keys.nonce + b'online' + identifier + name.encode()

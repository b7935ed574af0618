"""Correlated transfers: the correlation, and what each message shows."""

import hashlib

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from safenet_jax.crypto.oblivious_transfer import base_transfer
from tests.support import transfers

BYTES_PER_TRANSFER = {'iknp': 16, 'softspoken': 4}
GOLDEN = {
  'iknp': ('a51d8e73f65e2e3456fe78957480419561a4c6ba0f324a80545fa06751a321e7'),
  'softspoken': ('934fa703e6996d3d57cefc4adc6a424cdd0374639fe82c728c298f301ead6c75'),
}


@pytest.fixture(scope='module', params=transfers.EXTENSIONS)
def session(request):
  """A session shared by tests, with a counter for fresh tags."""
  sender, receiver, _ = transfers.make_session(request.param)
  return request.param, sender, receiver, iter(range(10**6))


@hypothesis.given(count=strategies.integers(1, 700), seed=strategies.integers(0))
@hypothesis.settings(
  max_examples=30,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_labels_differ_by_delta_where_chosen(session, count, seed):
  extension, sender, receiver, tags = session
  tag = b'%d' % next(tags)
  choices = transfers.random_choices(count, seed % 2**32)
  message, t = receiver.extend(tag, choices, count)
  q = sender.extend(tag, message, count)
  assert t.shape == q.shape == (count, 2)
  assert t.dtype == q.dtype == np.uint64
  assert transfers.correlated(q, t, choices).all()
  padded = -(-count // 128) * 128
  assert message.nbytes == 16 + padded * BYTES_PER_TRANSFER[extension]


@pytest.mark.parametrize('count', [128, 1 << 16, (1 << 17) + 3 * 128 + 77])
def test_labels_differ_by_delta_over_several_chunks(session, count):
  _, sender, receiver, tags = session
  tag = b'%d' % next(tags)
  choices = transfers.random_choices(count)
  message, t = receiver.extend(tag, choices, count)
  assert transfers.correlated(sender.extend(tag, message, count), t, choices).all()


@pytest.mark.parametrize('extension', transfers.EXTENSIONS)
@pytest.mark.parametrize(
  'delta',
  [[1, 0], [2**64 - 1, 2**64 - 1], [0x8888888888888881, 0x7777777777777777]],
)
def test_any_delta_is_the_callers_choice(extension, delta):
  delta = np.array(delta, np.uint64)
  sender, receiver, _ = transfers.make_session(extension, delta=delta)
  choices = transfers.random_choices(256)
  message, t = receiver.extend(b'', choices, 256)
  assert transfers.correlated(sender.extend(b'', message, 256), t, choices, delta).all()


def test_messages_look_uniform_whatever_is_chosen(session):
  # 128 KiB or more of bytes: chi-square with 255 degrees of freedom.
  _, _, receiver, tags = session
  count = 1 << 15
  for octet in (0, 255, 0x55):
    choices = np.full(count // 8, octet, np.uint8)
    message, t = receiver.extend(b'%d' % next(tags), choices, count)
    for words in (message.words, t):
      counts = np.bincount(words.reshape(-1).view(np.uint8), minlength=256)
      expected = counts.sum() / 256
      assert ((counts - expected) ** 2 / expected).sum() < 350


def test_receiver_labels_do_not_depend_on_its_choices():
  _, first, _ = transfers.make_session('softspoken')
  _, second, _ = transfers.make_session('softspoken')
  _, t = first.extend(b'tag', np.zeros(16, np.uint8), 128)
  _, other = second.extend(b'tag', np.full(16, 255, np.uint8), 128)
  np.testing.assert_array_equal(t, other)


def test_sender_lacks_the_streams_under_its_delta(monkeypatch):
  # Its message is u xor r: with the missing leaves it would read the choices.
  grown = {}
  for name in ('grow_trees', 'grow_punctured_trees'):
    original = getattr(base_transfer, name)

    def spy(*args, name=name, original=original):
      grown[name] = original(*args)
      return grown[name]

    monkeypatch.setattr(base_transfer, name, spy)
  transfers.make_session('softspoken')
  leaves, _ = grown['grow_trees']
  differs = (leaves != grown['grow_punctured_trees']).any(-1)
  octets = transfers.DELTA.view(np.uint8)
  nibbles = np.stack([octets & 15, octets >> 4], axis=1).reshape(-1)
  np.testing.assert_array_equal(differs, np.arange(16) == nibbles[:, None])


@pytest.mark.parametrize('extension', transfers.EXTENSIONS)
def test_transcripts_are_golden(extension):
  sender, receiver, base = transfers.make_session(extension, seed=2021)
  digest = hashlib.sha256()
  for message in base:
    digest.update(bytes(message))
  for count in (128, 1000):
    message, t = receiver.extend(b'%d' % count, transfers.random_choices(count, 9), count)
    q = sender.extend(b'%d' % count, message, count)
    digest.update(message.identifier)
    for words in (message.words, t, q):
      digest.update(words.tobytes())
  assert digest.hexdigest() == GOLDEN[extension]

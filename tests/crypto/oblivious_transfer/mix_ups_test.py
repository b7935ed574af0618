"""Correlated transfers: tags used twice, and messages of another session, step or shape."""

import numpy as np
import pytest

from safenet_jax.crypto import messages, randomness
from safenet_jax.crypto.oblivious_transfer import correlated_transfer
from tests.support import transfers


@pytest.fixture(scope='module', params=transfers.EXTENSIONS)
def session(request):
  """A session shared by tests, with a counter for fresh tags."""
  sender, receiver, _ = transfers.make_session(request.param)
  return request.param, sender, receiver, iter(range(10**6))


@pytest.mark.parametrize('extension', transfers.EXTENSIONS)
def test_one_tag_for_two_messages_would_reveal_the_choices(extension):
  # Two sessions of one seed stand for one whose tags are not checked.
  count = 256
  choices = [transfers.random_choices(count, seed) for seed in (1, 2)]
  want = np.bitwise_xor(*choices).view(np.uint64)

  def revealed(tags):
    sent = [
      transfers.make_session(extension)[1].extend(tag, chosen, count)[0].words
      for tag, chosen in zip(tags, choices)
    ]
    return (np.bitwise_xor(*sent) == want).mean()

  assert revealed([b'tag', b'tag']) == 1
  assert revealed([b'tag', b'gat']) == 0


def test_each_side_takes_a_tag_once(session):
  _, sender, receiver, tags = session
  tag = b'%d' % next(tags)
  choices = transfers.random_choices(128)
  message, _ = receiver.extend(tag, choices, 128)
  sender.extend(tag, message, 128)
  with pytest.raises(ValueError, match='used before'):
    receiver.extend(tag, choices, 128)
  with pytest.raises(ValueError, match='used before'):
    sender.extend(tag, message, 128)


def test_messages_of_another_tag_count_or_session_are_refused_and_keep_the_tag(session):
  extension, sender, receiver, tags = session
  first, second = b'%d' % next(tags), b'%d' % next(tags)
  choices = transfers.random_choices(512)
  message, t = receiver.extend(first, choices, 512)
  swapped, other = receiver.extend(second, choices, 512)
  stranger, _ = transfers.make_session(extension, seed=1)[1].extend(first, choices, 512)
  for wrong, count in ((swapped, 512), (stranger, 512), (message, 511)):
    with pytest.raises(ValueError, match='of another session, key or step'):
      sender.extend(first, wrong, count)
  assert transfers.correlated(sender.extend(first, message, 512), t, choices).all()
  assert transfers.correlated(sender.extend(second, swapped, 512), other, choices).all()


def test_without_the_check_messages_of_another_tag_would_not_correlate(session, monkeypatch):
  _, sender, receiver, tags = session
  monkeypatch.setattr(messages, 'check', lambda *unused: None)
  choices = transfers.random_choices(512)
  message, t = receiver.extend(b'%d' % next(tags), choices, 512)
  q = sender.extend(b'%d' % next(tags), message, 512)
  assert not transfers.correlated(q, t, choices).any()


@pytest.mark.parametrize('step', ['points', 'corrections'])
def test_base_messages_of_another_session_show_in_the_first_extension(step):
  source = randomness.InsecureSeededRandomness(3)
  senders = [correlated_transfer.CorrelatedSender(transfers.DELTA) for _ in range(2)]
  receivers = [correlated_transfer.CorrelatedReceiver(source) for _ in range(2)]
  points = [s.choose(r.announcement, source) for s, r in zip(senders, receivers)]
  if step == 'points':
    points.reverse()
  corrections = [r.correct(p) for r, p in zip(receivers, points)]
  if step == 'corrections':
    corrections.reverse()
  for sender, correction in zip(senders, corrections):
    sender.finish(correction)
  message, _ = receivers[0].extend(b'tag', transfers.random_choices(128), 128)
  with pytest.raises(ValueError, match='of another session, key or step'):
    senders[0].extend(b'tag', message, 128)


def test_messages_of_the_wrong_shape_are_refused_and_keep_the_tag(session):
  _, sender, receiver, tags = session
  tag = b'%d' % next(tags)
  choices = transfers.random_choices(256)
  message, t = receiver.extend(tag, choices, 256)
  words = message.words
  for wrong in (
    words[:, :-1],
    words[:-1],
    np.hstack([words, words]),
    words.reshape(-1),
    words.view(np.int64),
    words.view(np.uint8),
  ):
    with pytest.raises(ValueError, match='want uint64'):
      sender.extend(tag, message._replace(words=wrong), 256)
  assert transfers.correlated(sender.extend(tag, message, 256), t, choices).all()


def test_words_shuffled_within_a_message_spoil_the_correlation(session):
  # Its identifier does not cover them: the transport does.
  _, sender, receiver, tags = session
  choices = transfers.random_choices(512)
  for axis in (0, 1):
    tag = b'%d' % next(tags)
    message, t = receiver.extend(tag, choices, 512)
    shuffled = message._replace(words=np.roll(message.words, 1, axis))
    q = sender.extend(tag, shuffled, 512)
    assert not transfers.correlated(q, t, choices).any()

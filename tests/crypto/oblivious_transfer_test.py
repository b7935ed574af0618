"""Correlated transfers: the correlation, what each message shows, misuse."""

import hashlib
import os
import threading
import time

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from safenet_jax.crypto import base_transfer
from safenet_jax.crypto import bit_planes
from safenet_jax.crypto import messages
from safenet_jax.crypto import oblivious_transfer
from safenet_jax.crypto import randomness
from tests.crypto import fresh

EXTENSIONS = ('iknp', 'softspoken')
BYTES_PER_TRANSFER = {'iknp': 16, 'softspoken': 4}
GOLDEN = {
    'iknp': (
        'a51d8e73f65e2e3456fe78957480419561a4c6ba0f324a80545fa06751a321e7'
    ),
    'softspoken': (
        '934fa703e6996d3d57cefc4adc6a424cdd0374639fe82c728c298f301ead6c75'
    ),
}

DELTA = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], np.uint64)


def make_session(extension, seed=0, delta=DELTA):
  """Both ends of a session after the base transfers, and their messages."""
  source = randomness.InsecureSeededRandomness(seed)
  sender = oblivious_transfer.CorrelatedSender(delta, extension=extension)
  receiver = oblivious_transfer.CorrelatedReceiver(source, extension=extension)
  points = sender.choose(receiver.announcement, source)
  corrections = receiver.correct(points)
  sender.finish(corrections)
  return sender, receiver, (receiver.announcement, points, corrections)


@pytest.fixture(scope='module', params=EXTENSIONS)
def session(request):
  """A session shared by tests, with a counter for fresh tags."""
  sender, receiver, _ = make_session(request.param)
  return request.param, sender, receiver, iter(range(10**6))


def random_choices(count, seed=0):
  size = (count + 7) // 8
  return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def unpack(choices, count):
  return np.unpackbits(choices, count=count, bitorder='little')


def correlated(q, t, choices, delta=DELTA):
  """Whether each transfer holds, bool [n]."""
  flags = unpack(choices, len(q)).astype(np.uint64)
  return (t == q ^ flags[:, None] * delta).all(1)


@hypothesis.given(count=strategies.integers(1, 700), seed=strategies.integers(0))
@hypothesis.settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_labels_differ_by_delta_where_chosen(session, count, seed):
  extension, sender, receiver, tags = session
  tag = b'%d' % next(tags)
  choices = random_choices(count, seed % 2**32)
  message, t = receiver.extend(tag, choices, count)
  q = sender.extend(tag, message, count)
  assert t.shape == q.shape == (count, 2)
  assert t.dtype == q.dtype == np.uint64
  assert correlated(q, t, choices).all()
  padded = -(-count // 128) * 128
  assert message.nbytes == 16 + padded * BYTES_PER_TRANSFER[extension]


@pytest.mark.parametrize('count', [128, 1 << 16, (1 << 17) + 3 * 128 + 77])
def test_labels_differ_by_delta_over_several_chunks(session, count):
  _, sender, receiver, tags = session
  tag = b'%d' % next(tags)
  choices = random_choices(count)
  message, t = receiver.extend(tag, choices, count)
  assert correlated(sender.extend(tag, message, count), t, choices).all()


@pytest.mark.parametrize('extension', EXTENSIONS)
@pytest.mark.parametrize(
    'delta',
    [[1, 0], [2**64 - 1, 2**64 - 1], [0x8888888888888881, 0x7777777777777777]],
)
def test_any_delta_is_the_callers_choice(extension, delta):
  delta = np.array(delta, np.uint64)
  sender, receiver, _ = make_session(extension, delta=delta)
  choices = random_choices(256)
  message, t = receiver.extend(b'', choices, 256)
  assert correlated(sender.extend(b'', message, 256), t, choices, delta).all()


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
  _, first, _ = make_session('softspoken')
  _, second, _ = make_session('softspoken')
  _, t = first.extend(b'tag', np.zeros(16, np.uint8), 128)
  _, other = second.extend(b'tag', np.full(16, 255, np.uint8), 128)
  np.testing.assert_array_equal(t, other)


@pytest.mark.parametrize('extension', EXTENSIONS)
def test_one_tag_for_two_messages_would_reveal_the_choices(extension):
  # Two sessions of one seed stand for one whose tags are not checked.
  count = 256
  choices = [random_choices(count, seed) for seed in (1, 2)]
  want = np.bitwise_xor(*choices).view(np.uint64)

  def revealed(tags):
    sent = [
        make_session(extension)[1].extend(tag, chosen, count)[0].words
        for tag, chosen in zip(tags, choices)
    ]
    return (np.bitwise_xor(*sent) == want).mean()

  assert revealed([b'tag', b'tag']) == 1
  assert revealed([b'tag', b'gat']) == 0


def test_each_side_takes_a_tag_once(session):
  _, sender, receiver, tags = session
  tag = b'%d' % next(tags)
  choices = random_choices(128)
  message, _ = receiver.extend(tag, choices, 128)
  sender.extend(tag, message, 128)
  with pytest.raises(ValueError, match='used before'):
    receiver.extend(tag, choices, 128)
  with pytest.raises(ValueError, match='used before'):
    sender.extend(tag, message, 128)


def test_messages_of_another_tag_count_or_session_are_refused_and_keep_the_tag(session):
  extension, sender, receiver, tags = session
  first, second = b'%d' % next(tags), b'%d' % next(tags)
  choices = random_choices(512)
  message, t = receiver.extend(first, choices, 512)
  swapped, other = receiver.extend(second, choices, 512)
  stranger, _ = make_session(extension, seed=1)[1].extend(first, choices, 512)
  for wrong, count in ((swapped, 512), (stranger, 512), (message, 511)):
    with pytest.raises(ValueError, match='of another session, key or step'):
      sender.extend(first, wrong, count)
  assert correlated(sender.extend(first, message, 512), t, choices).all()
  assert correlated(sender.extend(second, swapped, 512), other, choices).all()


def test_without_the_check_messages_of_another_tag_would_not_correlate(session, monkeypatch):
  _, sender, receiver, tags = session
  monkeypatch.setattr(messages, 'check', lambda *unused: None)
  choices = random_choices(512)
  message, t = receiver.extend(b'%d' % next(tags), choices, 512)
  q = sender.extend(b'%d' % next(tags), message, 512)
  assert not correlated(q, t, choices).any()


@pytest.mark.parametrize('step', ['points', 'corrections'])
def test_base_messages_of_another_session_show_in_the_first_extension(step):
  source = randomness.InsecureSeededRandomness(3)
  senders = [oblivious_transfer.CorrelatedSender(DELTA) for _ in range(2)]
  receivers = [oblivious_transfer.CorrelatedReceiver(source) for _ in range(2)]
  points = [s.choose(r.announcement, source) for s, r in zip(senders, receivers)]
  if step == 'points':
    points.reverse()
  corrections = [r.correct(p) for r, p in zip(receivers, points)]
  if step == 'corrections':
    corrections.reverse()
  for sender, correction in zip(senders, corrections):
    sender.finish(correction)
  message, _ = receivers[0].extend(b'tag', random_choices(128), 128)
  with pytest.raises(ValueError, match='of another session, key or step'):
    senders[0].extend(b'tag', message, 128)


def test_threads_take_turns_in_a_session(monkeypatch):
  sender, receiver, _ = make_session('softspoken')
  labels, inside, most, results = bit_planes.Streams.labels, [], [], {}

  def watched(*arguments):
    inside.append(None)
    # Time for the other threads to come in, had they not to wait.
    time.sleep(0.05)
    most.append(len(inside))
    found = labels(*arguments)
    inside.pop()
    return found

  def extend(tag):
    message, t = receiver.extend(tag, choices, 1000)
    results[tag] = sender.extend(tag, message, 1000), t

  choices = random_choices(1000)
  # The parties take turns too, or the sender would be counted with the receiver.
  monkeypatch.setattr(bit_planes.Streams, 'labels', watched)
  monkeypatch.setattr(sender, '_lock', receiver._lock)
  threads = [threading.Thread(target=extend, args=(b'%d' % k,)) for k in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert most == [1] * 8
  assert len(results) == 4
  for q, t in results.values():
    assert correlated(q, t, choices).all()


def test_messages_of_the_wrong_shape_are_refused_and_keep_the_tag(session):
  _, sender, receiver, tags = session
  tag = b'%d' % next(tags)
  choices = random_choices(256)
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
  assert correlated(sender.extend(tag, message, 256), t, choices).all()


def test_words_shuffled_within_a_message_spoil_the_correlation(session):
  # Its identifier does not cover them: the transport does.
  _, sender, receiver, tags = session
  choices = random_choices(512)
  for axis in (0, 1):
    tag = b'%d' % next(tags)
    message, t = receiver.extend(tag, choices, 512)
    shuffled = message._replace(words=np.roll(message.words, 1, axis))
    q = sender.extend(tag, shuffled, 512)
    assert not correlated(q, t, choices).any()


def test_sender_lacks_the_streams_under_its_delta(monkeypatch):
  # Its message is u xor r: with the missing leaves it would read the choices.
  grown = {}
  for name in ('grow_trees', 'grow_punctured_trees'):
    original = getattr(base_transfer, name)

    def spy(*args, name=name, original=original):
      grown[name] = original(*args)
      return grown[name]

    monkeypatch.setattr(base_transfer, name, spy)
  make_session('softspoken')
  leaves, _ = grown['grow_trees']
  differs = (leaves != grown['grow_punctured_trees']).any(-1)
  octets = DELTA.view(np.uint8)
  nibbles = np.stack([octets & 15, octets >> 4], axis=1).reshape(-1)
  np.testing.assert_array_equal(differs, np.arange(16) == nibbles[:, None])


@pytest.mark.parametrize('extension', EXTENSIONS)
def test_transcripts_are_golden(extension):
  sender, receiver, base = make_session(extension, seed=2021)
  digest = hashlib.sha256()
  for message in base:
    digest.update(bytes(message))
  for count in (128, 1000):
    message, t = receiver.extend(b'%d' % count, random_choices(count, 9), count)
    q = sender.extend(b'%d' % count, message, count)
    digest.update(message.identifier)
    for words in (message.words, t, q):
      digest.update(words.tobytes())
  assert digest.hexdigest() == GOLDEN[extension]


def test_a_session_forked_before_it_is_finished_is_refused_in_the_child():
  fresh.run(check_unfinished_fork)


def check_unfinished_fork():
  source = randomness.SystemRandomness()
  receiver = oblivious_transfer.CorrelatedReceiver(source)
  sender = oblivious_transfer.CorrelatedSender(np.array([1, 2], np.uint64))
  points = sender.choose(receiver.announcement, source)
  child = os.fork()
  if child == 0:
    refusals = 0
    for step in (lambda: receiver.correct(points), lambda: sender.finish(np.zeros(0, np.uint8))):
      try:
        step()
      except ValueError as error:
        refusals += 'fork' in str(error)
    os._exit(refusals)
  assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
  sender.finish(receiver.correct(points))


def test_fork_gives_other_secrets_and_ends_the_session():
  fresh.run(check_fork)


def check_fork():
  source = randomness.SystemRandomness()
  # Both processes would continue this key stream, were it not for the fork rule.
  source.bytes(1)
  old = make_session('softspoken')[1]
  reading, writing = os.pipe()
  child = os.fork()
  if child == 0:
    try:
      oblivious_transfer.CorrelatedReceiver(source)
      try:
        old.extend(b'tag', np.zeros(16, np.uint8), 128)
        refused = b'used'
      except ValueError as error:
        refused = b'refused' if 'fork' in str(error) else b'other'
      fresh = oblivious_transfer.CorrelatedReceiver(source)
      os.write(writing, refused + b' ' + fresh.announcement.hex().encode())
    finally:
      os._exit(0)
  os.close(writing)
  with os.fdopen(reading, 'rb') as pipe:
    refused, announcement = pipe.read().split()
  os.waitpid(child, 0)
  parent = [
      oblivious_transfer.CorrelatedReceiver(source).announcement.hex().encode()
      for _ in range(3)
  ]
  assert refused == b'refused'
  assert announcement not in parent
  old.extend(b'tag', np.zeros(16, np.uint8), 128)

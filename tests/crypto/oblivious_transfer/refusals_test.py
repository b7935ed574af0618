"""What the ends of a session refuse: sizes, types and steps out of order."""

import numpy as np
import pytest

from safenet_jax.crypto import messages, randomness
from safenet_jax.crypto.oblivious_transfer import correlated_transfer

DELTA = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], np.uint64)


@pytest.mark.parametrize(
  'choices, count',
  [
    (np.zeros(15, np.uint8), 128),
    (np.zeros(17, np.uint8), 128),
    (np.zeros(16, np.int8), 128),
    (np.zeros((1, 16), np.uint8), 128),
    (np.zeros(0, np.uint8), 0),
    (np.zeros(16, np.uint8), -5),
    (np.zeros(16, np.uint8), (1 << 32) + 1),
  ],
)
def test_wrong_choices_and_counts_are_refused(choices, count):
  source = randomness.InsecureSeededRandomness(0)
  sender = correlated_transfer.CorrelatedSender(DELTA)
  receiver = correlated_transfer.CorrelatedReceiver(source)
  receiver.correct(sender.choose(receiver.announcement, source))
  with pytest.raises(ValueError, match='want'):
    receiver.extend(b'tag', choices, count)


@pytest.mark.parametrize('words', [[2, 1], [1], [[1, 2]], [1.0, 2.0]])
def test_wrong_deltas_are_refused(words):
  delta = np.array(words)
  if delta.dtype != np.float64:
    delta = delta.astype(np.uint64)
  with pytest.raises(ValueError, match='want uint64'):
    correlated_transfer.CorrelatedSender(delta)


def test_unknown_extensions_are_refused():
  source = randomness.InsecureSeededRandomness(0)
  with pytest.raises(ValueError, match='softspoken'):
    correlated_transfer.CorrelatedSender(DELTA, extension='silent')
  with pytest.raises(ValueError, match='softspoken'):
    correlated_transfer.CorrelatedReceiver(source, extension='silent')


def test_steps_out_of_order_and_repeated_are_refused():
  source = randomness.InsecureSeededRandomness(0)
  sender = correlated_transfer.CorrelatedSender(DELTA)
  receiver = correlated_transfer.CorrelatedReceiver(source)
  corrections = np.zeros((32, 3, 2, 16), np.uint8)
  with pytest.raises(ValueError, match='finish before choose'):
    sender.finish(corrections)
  with pytest.raises(ValueError, match='extend before finish'):
    sender.extend(b'', messages.Words(bytes(16), np.zeros((32, 2), np.uint64)), 128)
  with pytest.raises(ValueError, match='extend before correct'):
    receiver.extend(b'', np.zeros(16, np.uint8), 128)
  points = sender.choose(receiver.announcement, source)
  sender.finish(receiver.correct(points))
  for step in (
    lambda: sender.choose(receiver.announcement, source),
    lambda: sender.finish(corrections),
    lambda: receiver.correct(points),
  ):
    with pytest.raises(ValueError, match='once per session'):
      step()


def test_base_messages_of_the_wrong_size_are_refused():
  source = randomness.InsecureSeededRandomness(0)
  sender = correlated_transfer.CorrelatedSender(DELTA, extension='softspoken')
  receiver = correlated_transfer.CorrelatedReceiver(source, extension='iknp')
  points = sender.choose(receiver.announcement, source)
  for wrong in (b'', points[:-1], points + b'x', points + points):
    with pytest.raises(ValueError, match='want 4096'):
      receiver.correct(wrong)
  corrections = receiver.correct(points)
  assert corrections.size == 0
  with pytest.raises(ValueError, match='want uint8'):
    sender.finish(corrections)

"""Random words and products, from labels made by hand."""

import collections
import hashlib
import itertools

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from safenet_jax.crypto import hashing, messages, randomness
from safenet_jax.crypto.oblivious_transfer import correlated_transfer, word_transfer

DELTA = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], np.uint64)
GOLDEN = '6201a0a5b9f9c8fd899544b0821fa3a47772ebe7f5262085b4d1fee6e303d1b9'


def make_pads(count, seed=0):
  """Packed choices, the receiver's pads and the sender's."""
  source = randomness.InsecureSeededRandomness(seed)
  q = source.words((count, 2))
  choices = np.frombuffer(source.bytes((count + 7) // 8), np.uint8)
  t = q ^ unpack(choices, count)[:, None] * DELTA
  keys = word_transfer.hash_keys(count, source)
  return (
    choices,
    word_transfer.receiver_pads(t, keys),
    word_transfer.sender_pads(q, DELTA, keys),
  )


def pads_of(words):
  return word_transfer.Pads(np.array(words, np.uint64), bytes(16))


def unpack(choices, count):
  flags = np.unpackbits(choices, count=count, bitorder='little')
  return flags.astype(np.uint64)


@pytest.mark.parametrize('count', [1, 100, hashing.MAX_ROWS + 1])
def test_receiver_has_the_chosen_pad_and_not_the_other(count):
  choices, pads, pairs = make_pads(count)
  flags = unpack(choices, count).astype(int)
  index = np.arange(count)
  np.testing.assert_array_equal(pairs.words[flags, index], pads.words)
  assert not (pairs.words[1 - flags, index] == pads.words).any()


def test_every_block_of_labels_has_its_own_key():
  count = 2 * hashing.MAX_ROWS + 1
  labels = np.zeros((count, 2), np.uint64)
  keys = word_transfer.hash_keys(count, randomness.InsecureSeededRandomness(1))
  assert keys.shape == (3, 32)
  # Equal labels: the pads show which key and row made them.
  pads = word_transfer.receiver_pads(labels, keys).words
  assert len(np.unique(pads)) == count
  for block, key in enumerate(keys):
    rows = slice(block * hashing.MAX_ROWS, (block + 1) * hashing.MAX_ROWS)
    np.testing.assert_array_equal(pads[rows], hashing.hash_labels(labels[rows], key.tobytes()))


@hypothesis.given(
  bits=strategies.integers(1, 64),
  count=strategies.integers(1, 300),
  seed=strategies.integers(0, 2**32),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_product_shares_add_up(bits, count, seed):
  choices, pads, pairs = make_pads(count, seed)
  factors = randomness.InsecureSeededRandomness(seed + 1).ring(bits, count)
  message, minus = word_transfer.send_products(factors, pairs, bits=bits)
  share = word_transfer.receive_products(message, choices, pads, bits=bits)
  limit = np.uint64((1 << bits) - 1)
  assert (minus <= limit).all()
  assert (share <= limit).all()
  np.testing.assert_array_equal((minus + share) & limit, unpack(choices, count) * factors)


@pytest.mark.parametrize('choice', [0, 1])
def test_product_message_is_uniform_given_what_the_receiver_knows(choice):
  # All pads of a 2-bit ring: fix the factor and the receiver's pad.
  views = collections.Counter()
  for factor, first, second in itertools.product(range(4), repeat=3):
    pairs = pads_of([[first], [second]])
    message, _ = word_transfer.send_products(np.array([factor], np.uint64), pairs, bits=2)
    views[factor, int(pairs.words[choice, 0]), int(message.words[0])] += 1
  assert set(views.values()) == {1}
  assert len(views) == 64


def test_messages_of_the_wrong_shape_or_range_are_refused():
  choices, pads, pairs = make_pads(10)
  factors = np.zeros(10, np.uint64)
  message, _ = word_transfer.send_products(factors, make_pads(10)[2], bits=4)
  for wrong in (np.zeros((2, 10), np.uint64), factors[:9], factors.view(np.int64), factors + 16):
    with pytest.raises(ValueError, match='want'):
      word_transfer.receive_products(message._replace(words=wrong), choices, pads, bits=4)
    with pytest.raises(ValueError, match='want'):
      word_transfer.send_products(wrong, pairs, bits=4)
  for wrong in (choices[:1], np.zeros(3, np.uint8), choices.view(np.int8)):
    with pytest.raises(ValueError, match='choices'):
      word_transfer.receive_products(message, wrong, pads, bits=4)
  # What was refused did not use the pads up.
  word_transfer.receive_products(message, choices, pads, bits=4)
  word_transfer.send_products(factors, pairs, bits=4)


def test_pads_serve_once():
  factors = np.zeros(10, np.uint64)
  choices, pads, pairs = make_pads(10)
  message, _ = word_transfer.send_products(factors, pairs, bits=4)
  word_transfer.receive_products(message, choices, pads, bits=4)
  # Either of the two would now show how the factors differ.
  for second in (
    lambda: word_transfer.send_products(factors, pairs, bits=4),
    lambda: word_transfer.random_words(pairs, bits=4),
    lambda: word_transfer.receive_products(message, choices, pads, bits=4),
    lambda: word_transfer.random_words(pads, bits=4),
  ):
    with pytest.raises(ValueError, match='used before'):
      second()


def test_one_pad_for_two_messages_would_show_how_the_factors_differ():
  factors = randomness.InsecureSeededRandomness(1).words((2, 10))
  sent = [word_transfer.send_products(f, make_pads(10)[2], bits=64)[0].words for f in factors]
  np.testing.assert_array_equal(sent[0] - sent[1], factors[0] - factors[1])


def test_messages_for_other_pads_and_widths_are_refused():
  choices, pads, pairs = make_pads(10)
  _, other, _ = make_pads(10, seed=1)
  message, _ = word_transfer.send_products(np.zeros(10, np.uint64), pairs, bits=4)
  for own, bits in ((other, 4), (pads, 5)):
    with pytest.raises(ValueError, match='of another session, key or step'):
      word_transfer.receive_products(message, choices, own, bits=bits)
  word_transfer.receive_products(message, choices, pads, bits=4)


@pytest.mark.parametrize('bits', [0, 65])
def test_widths_outside_1_to_64_are_refused(bits):
  choices, pads, pairs = make_pads(8)
  with pytest.raises(ValueError, match='want 1 to 64'):
    word_transfer.send_products(np.zeros(8, np.uint64), pairs, bits=bits)
  with pytest.raises(ValueError, match='want 1 to 64'):
    message = messages.Words(bytes(16), np.zeros(8, np.uint64))
    word_transfer.receive_products(message, choices, pads, bits=bits)


@pytest.mark.parametrize(
  'keys',
  [
    np.zeros((2, 32), np.uint8),
    np.zeros((0, 32), np.uint8),
    np.zeros((1, 16), np.uint8),
    np.zeros((1, 32), np.int8),
  ],
)
def test_keys_that_do_not_fit_the_labels_are_refused(keys):
  labels = np.zeros((hashing.MAX_ROWS, 2), np.uint64)
  with pytest.raises(ValueError, match='want uint8'):
    word_transfer.receiver_pads(labels, keys)
  with pytest.raises(ValueError, match='want uint8'):
    word_transfer.sender_pads(labels, DELTA, keys)


def test_products_over_a_whole_session_are_golden():
  count = 300
  source = randomness.InsecureSeededRandomness(2021)
  sender = correlated_transfer.CorrelatedSender(DELTA)
  receiver = correlated_transfer.CorrelatedReceiver(source)
  points = sender.choose(receiver.announcement, source)
  sender.finish(receiver.correct(points))
  choices = np.frombuffer(source.bytes((count + 7) // 8), np.uint8)
  factors = source.ring(28, count)

  correction, t = receiver.extend(b'products', choices, count)
  keys = word_transfer.hash_keys(count, source)
  q = sender.extend(b'products', correction, count)
  message, minus = word_transfer.send_products(
    factors, word_transfer.sender_pads(q, DELTA, keys), bits=28
  )
  share = word_transfer.receive_products(
    message, choices, word_transfer.receiver_pads(t, keys), bits=28
  )

  np.testing.assert_array_equal((minus + share) % 2**28, unpack(choices, count) * factors)
  transcript = (
    correction.identifier
    + message.identifier
    + b''.join(part.tobytes() for part in (correction.words, keys, message.words, minus, share))
  )
  assert hashlib.sha256(transcript).hexdigest() == GOLDEN

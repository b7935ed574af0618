"""Both ends of correlated transfers after the base transfers, and what tests ask of them."""

import numpy as np

from safenet_jax.crypto import randomness
from safenet_jax.crypto.oblivious_transfer import correlated_transfer

EXTENSIONS = ('iknp', 'softspoken')
DELTA = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], np.uint64)


def make_session(extension, seed=0, delta=DELTA):
  """Both ends of a session after the base transfers, and their messages."""
  source = randomness.InsecureSeededRandomness(seed)
  sender = correlated_transfer.CorrelatedSender(delta, extension=extension)
  receiver = correlated_transfer.CorrelatedReceiver(source, extension=extension)
  points = sender.choose(receiver.announcement, source)
  corrections = receiver.correct(points)
  sender.finish(corrections)
  return sender, receiver, (receiver.announcement, points, corrections)


def random_choices(count, seed=0):
  size = (count + 7) // 8
  return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def unpack(choices, count):
  return np.unpackbits(choices, count=count, bitorder='little')


def correlated(q, t, choices, delta=DELTA):
  """Whether each transfer holds, bool [n]."""
  flags = unpack(choices, len(q)).astype(np.uint64)
  return (t == q ^ flags[:, None] * delta).all(1)

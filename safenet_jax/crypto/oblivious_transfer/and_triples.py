"""Shares of the products of random bits, from correlated transfers without a message.

A triple are shares of bits x, y and x y: each is the XOR of a bit of the one party and a bit
of the other. With it the parties get shares of the AND of two bits that they share (Beaver,
CRYPTO 1991). Two transfers make a triple. Their receiver chose with its shares x_r and y_r,
and so has labels t = q xor x_r delta and t' = q' xor y_r delta (`correlated_transfer`). H
is the lowest bit of a keyed hash of labels (`hashing`).

    sender      y_s = H(q) xor H(q xor delta)       x_s = H(q') xor H(q' xor delta)
                z_s = x_s y_s xor H(q) xor H(q')
    receiver    z_r = x_r y_r xor H(t) xor H(t')

H(q) xor H(t) = x_r y_s and H(q') xor H(t') = y_r x_s, so that z_s xor z_r = x y.

x_r and y_r are the receiver's choices, of which the transfers tell the sender nothing. Each
of x_s and y_s has a hash of a label that the receiver has not. To AND bits a and b, of which
the parties have shares, both tell each other their shares of d = a xor x and e = b xor y.
These are under the one-time pads x and y: a triple serves once.

    share of a b    z xor d y xor e x, and for one of the parties xor d e

All bits are packed, uint8 [n / 8], the lowest bit of a byte first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing


class Triple(NamedTuple):
  """One party's shares of x, y and x y; for n instances, uint8 [n / 8] each."""

  x: np.ndarray
  y: np.ndarray
  product: np.ndarray

  def opened(self, a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """This party's shares of d and e, which the other one is told."""
    return [a ^ self.x, b ^ self.y]

  def share(self, d: np.ndarray, e: np.ndarray) -> np.ndarray:
    """This party's share of a b; one of the two adds `d & e` to it."""
    return self.product ^ d & self.y ^ e & self.x


def of_sender(labels: np.ndarray, delta: np.ndarray, keys: Sequence[bytes]) -> Triple:
  """The sender's shares.

  Args:
    labels: q and q', uint64 [2, n, 2].
    delta: the sender's, uint64 [2].
    keys: of both hashes; public, and used for nothing else.
  """
  zeros, others = [], []
  for row, key in zip(labels, keys, strict=True):
    zeros.append(_bits(row, key))
    others.append(_bits(row ^ delta, key) ^ zeros[-1])
  y, x = others
  return Triple(x, y, x & y ^ zeros[0] ^ zeros[1])


def of_receiver(labels: np.ndarray, choices: np.ndarray, keys: Sequence[bytes]) -> Triple:
  """The receiver's shares.

  Args:
    labels: t and t', uint64 [2, n, 2].
    choices: x and y, uint8 [2, n / 8].
    keys: as the sender's.
  """
  first, second = (_bits(row, key) for row, key in zip(labels, keys, strict=True))
  x, y = choices
  return Triple(x, y, x & y ^ first ^ second)


def _bits(labels: np.ndarray, key: bytes) -> np.ndarray:
  """The lowest bits of the hashes, packed."""
  low = hashing.hash_labels(labels, key).astype(np.uint8) & np.uint8(1)
  return np.packbits(low, bitorder='little')

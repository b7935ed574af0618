"""Correlated oblivious transfer beside the AES and the memory traffic that it needs.

The floor is what neither party can do without: every block of its streams has to be
encrypted, here in cache, and for the transposition each party copies 16 bytes once.
"""

from collections.abc import Callable, Iterator
import os
import time

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np

from experiments import benchmarks
from experiments.benchmarks import Row
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.oblivious_transfer import correlated_transfer
from safenet_jax.crypto.randomness import Randomness, SystemRandomness

# The bytes of a stream that are encrypted in one call: a part of the cache.
_BUFFER = 1 << 16


def rows() -> Iterator[Row]:
  count = 1 << (12 if benchmarks.QUICK.value else 20)
  for name, extension in (('iknp_cot', 'iknp'), ('softspoken_cot', 'softspoken')):
    bits = correlated_transfer.GROUP_BITS[extension]
    # 2^bits streams a group give the receiver a block each; the sender lacks one.
    received, sent = 2**bits / bits, (2**bits - 1) / bits
    found = benchmarks.best(
      {
        'extend': _extension(extension, count),
        'cipher': _cipher(int((received + sent) * count * 16)),
        'copy': _copies(count),
      },
      repetitions=20,
      clock=time.process_time,
    )
    setting = (
      f'{count:,} transfers, both parties, {128 // bits // 8} bytes each on the wire; floor: '
      f'{received + sent:.4g} blocks of AES-CTR in cache and 2 copies of 16 bytes'
    )
    floor = found['cipher'] + found['copy']
    yield Row('ot', name, setting, 1e9 * found['extend'] / count, 'ns/OT', 1e9 * floor / count)


def session(
  delta: np.ndarray, randomness: Randomness, extension: str = 'softspoken'
) -> tuple[correlated_transfer.CorrelatedSender, correlated_transfer.CorrelatedReceiver]:
  """Both ends of correlated transfers after their base transfers."""
  sender = correlated_transfer.CorrelatedSender(delta, extension=extension)
  receiver = correlated_transfer.CorrelatedReceiver(randomness, extension=extension)
  sender.finish(receiver.correct(sender.choose(receiver.announcement, randomness)))
  return sender, receiver


def _extension(extension: str, count: int) -> Callable[[], None]:
  """Extends by `count` transfers after the base transfers, which are not timed."""
  randomness = SystemRandomness()
  sender, receiver = session(garbling.fresh_delta(randomness), randomness, extension)
  choices = randomness.words(-(-count // 64)).view(np.uint8)

  def extend() -> None:
    tag = os.urandom(16)
    message, _ = receiver.extend(tag, choices, count)
    sender.extend(tag, message, count)

  return extend


def _cipher(size: int) -> Callable[[], None]:
  update = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(bytes(16))).encryptor().update_into
  data, out = np.zeros(_BUFFER, np.uint8), np.empty(_BUFFER + 15, np.uint8)

  def run() -> None:
    for start in range(0, size, _BUFFER):
      part = min(_BUFFER, size - start)
      update(data[:part].data, out[: part + 15].data)

  return run


def _copies(count: int) -> Callable[[], None]:
  planes = np.zeros((2, count, 2), np.uint64)
  labels = np.zeros_like(planes)
  return lambda: np.copyto(labels, planes)

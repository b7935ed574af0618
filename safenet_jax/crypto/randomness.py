"""Where secrets come from: AES-128 in counter mode, keyed by the system.

Every secret of this package (shares, masks, labels, keys) is drawn through a
`Randomness` argument, but for the keys and the noise of BFV: SEAL draws those from
the system itself. `jax.random` and `numpy.random` never make a secret.
"""

import abc
import math
import os
import threading

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np

# One call's worth of zeros to encrypt; larger requests are streamed through it.
_CHUNK = 1 << 16


class Randomness(abc.ABC):
  """A stream of uniform bytes, read as bits, words or residues."""

  @abc.abstractmethod
  def fill(self, out: np.ndarray) -> None:
    """Overwrites a C-contiguous array with uniform bytes."""

  def bytes(self, size: int) -> bytes:
    """`size` uniform bytes."""
    out = np.empty(size, np.uint8)
    self.fill(out)
    return out.tobytes()

  def words(self, shape: int | tuple[int, ...]) -> np.ndarray:
    """Uniform uint64 words of the given shape."""
    out = np.empty(shape, np.uint64)
    self.fill(out)
    return out

  def bits(self, shape: int | tuple[int, ...]) -> np.ndarray:
    """Uniform bits, uint8 in {0, 1}, of the given shape."""
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    packed = np.empty((count + 7) // 8, np.uint8)
    self.fill(packed)
    return np.unpackbits(packed, count=count).reshape(shape)

  def ring(self, bits: int, shape: int | tuple[int, ...]) -> np.ndarray:
    """Uniform elements of Z_2^bits as uint64; ValueError unless 1 <= bits <= 64."""
    if not 1 <= bits <= 64:
      raise ValueError(f'ring of {bits} bits, want 1 to 64')
    words = self.words(shape)
    words &= np.uint64((1 << bits) - 1)
    return words

  def residues(self, modulus: int, shape: int | tuple[int, ...]) -> np.ndarray:
    """Exactly uniform residues as uint64, by rejection; ValueError unless 2 <= modulus <= 2^64."""
    if not 2 <= modulus <= 1 << 64:
      raise ValueError(f'modulus {modulus}, want 2 to 2^64')
    bits = (modulus - 1).bit_length()
    if modulus == 1 << bits:
      return self.ring(bits, shape)
    out = self.ring(bits, shape).reshape(-1)
    rejected = np.flatnonzero(out >= np.uint64(modulus))
    while rejected.size:
      out[rejected] = self.ring(bits, rejected.size)
      rejected = rejected[out[rejected] >= np.uint64(modulus)]
    return out.reshape(shape)


class _CounterMode(Randomness):
  """AES-128-CTR from a 16-byte key; counter blocks are never repeated."""

  def __init__(self, key: bytes):
    self._start(key)
    self._zeros = np.zeros(_CHUNK, np.uint8)
    self._scratch = np.empty(_CHUNK + 15, np.uint8)
    # Two threads in one scratch would both get the same bytes.
    self._lock = threading.Lock()

  def _start(self, key: bytes) -> None:
    if len(key) != 16:
      raise ValueError(f'key of {len(key)} bytes, want 16')
    self._update = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update_into

  def fill(self, out: np.ndarray) -> None:
    if not out.flags.c_contiguous:
      raise ValueError('fill wants a C-contiguous array')
    target = out.reshape(-1).view(np.uint8)
    with self._lock:
      for start in range(0, target.size, _CHUNK):
        size = min(_CHUNK, target.size - start)
        self._update(self._zeros[:size].data, self._scratch[: size + 15].data)
        target[start : start + size] = self._scratch[:size]


class SystemRandomness(_CounterMode):
  """The secure source: a fresh key from os.urandom, and again after a fork.

  A forked child that kept its parent's key would repeat the parent's stream
  and reveal both parties' masks, so the process id is checked on every call.
  """

  def __init__(self) -> None:
    super().__init__(os.urandom(16))
    self._process = os.getpid()

  def fill(self, out: np.ndarray) -> None:
    if os.getpid() != self._process:
      self._start(os.urandom(16))
      # Another thread of the parent may have held the lock at the fork.
      self._lock = threading.Lock()
      self._process = os.getpid()
    super().fill(out)


class InsecureSeededRandomness(_CounterMode):
  """A repeatable stream from an integer seed: for tests and golden values."""

  def __init__(self, seed: int):
    if seed < 0:
      raise ValueError(f'seed {seed}, want a natural number')
    super().__init__((seed % (1 << 128)).to_bytes(16, 'little'))

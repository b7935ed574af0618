"""Words of any width as parts of a message: packed to their bits, checked when read."""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from safenet_jax.crypto import bit_packing
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError


@dataclasses.dataclass(frozen=True)
class Words:
  """A part of a message: uint64 words, each packed to `bits` bits.

  shape: of the words.
  bits: that a word takes.
  modulus: if given, words are below it, else below 2^bits.
  """

  shape: tuple[int, ...]
  bits: int
  modulus: int | None = None

  @property
  def size(self) -> int:
    """Bytes on the wire."""
    return bit_packing.size(math.prod(self.shape), self.bits)

  def pack(self, words: np.ndarray) -> np.ndarray:
    """The words as bytes, uint8; ValueError if they have another shape."""
    if words.shape != self.shape:
      raise ValueError(f'words of shape {words.shape}, want {self.shape}')
    return np.frombuffer(bit_packing.pack(words, self.bits), np.uint8)

  def unpack(self, data: np.ndarray) -> np.ndarray:
    """The peer's words; ProtocolError if one is not below the modulus."""
    words = bit_packing.unpack(data.tobytes(), math.prod(self.shape), self.bits)
    if self.modulus is not None and words.size and words.max() >= self.modulus:
      raise ProtocolError(f'a word of {words.max()}, want below {self.modulus}')
    return words.reshape(self.shape)


def field(shape: tuple[int, ...], modulus: int) -> Words:
  """Elements of F_p, the integers modulo the prime p = `modulus`."""
  return Words(shape, modulus.bit_length(), modulus)


def send(channel: Channel, tag: str, parts: Sequence[Words], values: Sequence[np.ndarray]) -> None:
  """Sends the values of all parts in one message."""
  packed = [part.pack(np.asarray(value)) for part, value in zip(parts, values, strict=True)]
  channel.send(tag, *packed)


def receive(channel: Channel, tag: str, parts: Sequence[Words]) -> list[np.ndarray]:
  """Receives the values of all parts."""
  packed = channel.receive(tag, [(np.uint8, (part.size,)) for part in parts])
  return [part.unpack(data) for part, data in zip(parts, packed)]

"""Identifiers that messages carry, so that a mix-up raises and gives no garbage.

Both parties compute a message's identifier from what makes it the one that is
due: the session or key, the step, and the caller's tag (attempt, layer, block).
It is checked before anything of the message is used, and shows nothing but those
public things.

This finds messages that were swapped, or belong to another session, key or step.
It is no authentication: whoever can alter a message can alter its identifier, and
the parties are semi-honest.
"""

import hashlib
from typing import NamedTuple

import numpy as np

BYTES = 16


class Words(NamedTuple):
  """A message of words under its identifier."""

  identifier: bytes
  words: np.ndarray

  @property
  def nbytes(self) -> int:
    """The bytes to send."""
    return BYTES + self.words.nbytes


def identifier(*parts: bytes) -> bytes:
  """SHA-256 of the parts and their lengths, its first 16 bytes."""
  digest = hashlib.sha256()
  for part in parts:
    digest.update(len(part).to_bytes(8, 'little') + part)
  return digest.digest()[:BYTES]


def check(name: str, found: bytes, want: bytes) -> None:
  """Raises ValueError if a message is not the one that is due."""
  if found != want:
    raise ValueError(
      f'{name} {found.hex()}, want {want.hex()}: it is of another session, key or step'
    )


def read(name: str, message: bytes, want: bytes) -> bytes:
  """What follows the identifier; ValueError if that is not the one that is due."""
  check(name, message[:BYTES], want)
  return message[BYTES:]

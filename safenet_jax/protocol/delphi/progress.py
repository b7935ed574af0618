"""How far the offline phase of an image is, so that it can go on in another session.

The offline phase of a large network takes minutes, and a connection may be lost in them. Then
both parties keep what they have of images that are not finished, and the client may come again:

           client                                       server
             --- names of images, how far each is -------->
             <-- how far both are -------------------------
             the rest of the offline phase, under the keys of the new session

An image is known by its tag in the session in which it began, and to its owner alone
(`service.store`). A step is one linear layer, or one stage (`message_shapes.stages`). Both go on
from the fewer steps. What either has beyond them it makes anew, with masks, labels, pads and keys
that are fresh. Of a step that was interrupted nothing is used.

What the parties see: a step that is kept was seen once, as in a session that is not interrupted.
Of a step that is made anew a party has seen two versions. Only the second is used online, and the
first is as that of another preparation which nobody uses: its ciphertexts and transfers are under
the keys of a session that has ended, and its masks u, labels, pads and the offset delta are the
server's, uniform and independent of those of the second. The client chooses labels by the same
bits of c in both; these are hidden by independent transfers. A mask r of the client is
encrypted again under the new key, or drawn anew where it is drawn with its ciphertext.

The preparation gets its identifier at its very end, so that there is one of it, and it is used
once. A server forgets its half as it goes on with it: no two sessions go on with the same.
Where the server does not know an image any more, the client throws away its own half, masks
included, and the image begins anew.
"""

import struct
from typing import NamedTuple

from safenet_jax.transport.frames import ProtocolError

_FORM = struct.Struct('!16sQII')
BYTES = _FORM.size
# In the place of both numbers of steps: the image begins anew.
_ANEW = 0xFFFFFFFF


class Progress(NamedTuple):
  """linear, stages: how many linear layers and stages of an image are done."""

  linear: int = 0
  stages: int = 0


class Begun(NamedTuple):
  """An image whose offline phase has begun.

  nonce, number: of its tag, in the session in which it began.
  progress: how far the party is that says it.
  anew: whether it begins anew, because the server does not know it.
  """

  nonce: bytes
  number: int
  progress: Progress = Progress()
  anew: bool = False

  @property
  def name(self) -> tuple[bytes, int]:
    """What both parties know the image by."""
    return self.nonce, self.number

  def encode(self) -> bytes:
    """`BYTES` bytes for the wire."""
    steps = (_ANEW, _ANEW) if self.anew else self.progress
    return _FORM.pack(self.nonce, self.number, *steps)

  @classmethod
  def decode(cls, raw: bytes) -> 'Begun':
    """The inverse of `encode`."""
    nonce, number, linear, stages = _FORM.unpack(raw)
    if linear == stages == _ANEW:
      return cls(nonce, number, anew=True)
    return cls(nonce, number, Progress(linear, stages))

  def least(self, other: 'Begun') -> 'Begun':
    """How far both parties are.

    Raises:
      ProtocolError: the other party's image is another one.
    """
    if other.name != self.name:
      raise ProtocolError('the peer goes on with another image')
    if self.anew or other.anew:
      return self._replace(progress=Progress(), anew=True)
    return self._replace(progress=Progress(*map(min, self.progress, other.progress)))

"""How many fraction bits a layer's weights get: enough to be exact, and none that cost a ring.

An output that is a sum of n weights times inputs is off by 2^-w sqrt(n / 12) times the inputs' root
mean square, where w are the fraction bits of the weights. The output itself is about as large as
the norm of its weights times that. So small weights and long sums need more bits.

These go on as fraction bits of the output. They make no sign test wider, as it leaves out the bits
that its output does not have. But the ring has to hold them, and the messages of the exact
truncation grow by a bit each.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto.homomorphic import encrypted_convolution

# The rounding of weights may be 2^-11 of the outputs. That of inputs with 7 fraction bits is about
# 2^-9, so that more bits would not be felt.
_SIGNIFICANT = 11
# Bits of a ring that values leave free: as for `select_bits` in `bit_widths`.
_FREE = 2
# Norms are compared before weights are rounded, which changes them a little.
_ROUNDING = 1.01


class Reader(NamedTuple):
  """What a linear layer's output becomes: the input of an activation, or logits.

  largest: the largest value that the ring has to hold.
  later: whether another linear layer makes it of the output. Its weights need as many bits again.
  """

  largest: float
  later: bool = False

  def room(self, fraction: float, ring: int) -> int:
    """How many fraction bits weights may have in a ring, if their input has so many."""
    whole = math.floor(ring - _FREE - fraction - math.log2(max(self.largest, 2.0**-fraction)))
    return whole // 2 if self.later else whole


def choose(
  kernel: np.ndarray, fraction: float, readers: Sequence[Reader], least: int, rings: Sequence[int]
) -> int:
  """The fraction bits of a kernel: more than `least` as far as they are felt and cost no ring.

  Args:
    kernel: float64 [..., I, O].
    fraction: fraction bits of the input.
    readers: everything that the output becomes.
    least: the fewest bits; no others where there are no readers.
    rings: widths in bits, ascending. What a reader makes stays in the first one that holds the
      fewest bits.
  """
  norms = np.sqrt(np.square(kernel).reshape(-1, kernel.shape[-1]).sum(0))
  if not readers or not norms.any():
    return least
  usual = math.sqrt(np.square(norms).mean())
  felt = _SIGNIFICANT + math.log2(math.sqrt(kernel[..., 0].size / 12) / usual)
  taken = []
  for reader in readers:
    rooms = ((ring, reader.room(fraction, ring)) for ring in rings)
    taken.append(next(((ring, room) for ring, room in rooms if room >= least), (0, least)))
  widest, room = max(ring for ring, _ in taken), min(room for _, room in taken)
  if not widest:
    return least
  limit = encrypted_convolution.norm_limit(widest) / (_ROUNDING * norms.max())
  return max(least, min(math.ceil(felt), math.floor(math.log2(limit)), room))

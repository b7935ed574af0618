"""Exact truncation of a shared value, and its way back to the linear ring.

After an activation the value z = v + rho mod M is shared in the ReLU's ring
(M = 2^k) or in F_p (M = p). With an offset it is in [0, M / 2), and then
v + rho wraps around M just when one of the shares is in the upper half:
w = hi(v) OR hi(rho). One random OT per value, prepared offline, shares w.

             client                                   server
  offline    K_0, K_1 uniform                         beta uniform, K_beta
  online       <------ d = hi(rho) xor beta ---------
             k_j = K_(j xor d)                        k_hi(rho) = K_beta
               -- E = 1 - hi(v) + k_0 - k_1 -------->
               -- B = (v >> f) + (k_0 - hi(v)) (M >> f) - offset - r -->
                                                      w' = k_hi(rho) + hi(rho) E
                                                      m = B - w' (M >> f) + (rho >> f)

w' - (k_0 - hi(v)) = w, so m = z / 2^f - r in Z_2^l, rounded at random to one of the
neighbours with a bias of 2^-f units. d is under the one-time pad beta, E under the K
that the server has not chosen, and B under r, the mask of the next linear layer.
"""

import dataclasses
from types import ModuleType

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.ring import Array


@dataclasses.dataclass(frozen=True)
class Rescale:
  """Public constants of one block's truncation.

  modulus: M.
  shift: f, bits to drop.
  bits: l, width of the linear ring.
  """

  modulus: int
  shift: int
  bits: int

  def __post_init__(self):
    if not 1 <= self.bits <= 64 or self.shift < 0 or self.offset == 0 or self.wrap_bits < 1:
      raise ValueError(f'{self} leaves no room, want a smaller shift or a larger ring')
    # A wrap is worth M / 2^f, of which `carry` is the floor.
    if self.modulus % 2 and (self.modulus - 1) % (1 << self.shift):
      raise ValueError(f'shift {self.shift} of {self.modulus}, want M = 1 mod 2^shift')

  @property
  def offset(self) -> int:
    """A multiple of 2^f near M / 4: what |z| has to stay below."""
    return (self.modulus // 4 >> self.shift) << self.shift

  @property
  def carry(self) -> int:
    """M >> f: what a wrap is worth after the shift."""
    return self.modulus >> self.shift

  @property
  def wrap_bits(self) -> int:
    """Width of E and K: the rest is lost in the product with `carry` mod 2^l."""
    zeros = (self.carry & -self.carry).bit_length() - 1
    return self.bits - zeros

  def upper(self, x: Array) -> Array:
    """1 where a share is in the upper half of [0, M), else 0."""
    return (x >= np.uint64((self.modulus + 1) // 2)).astype(np.uint64)

  def add_offset(self, v: Array) -> Array:
    """The client's share, moved so that the shared value is not negative."""
    return (v + np.uint64(self.offset)) % np.uint64(self.modulus)


def online_server(rho: Array, choice: Array, rescale: Rescale) -> Array:
  """The message d, bits as uint64."""
  return rescale.upper(rho) ^ choice


def online_client(
    xp: ModuleType, v: Array, keys: Array, d: Array, mask: Array, rescale: Rescale
) -> tuple[Array, Array]:
  """The messages E (wrap_bits wide) and B (l wide).

  Args:
    xp: array namespace.
    v: its share.
    keys: K_0, K_1, uint64 [2, ...].
    d: the server's message.
    mask: r of the next linear layer.
    rescale: the constants.
  """
  v = rescale.add_offset(v)
  high = rescale.upper(v)
  k0 = xp.where(d == 1, keys[1], keys[0])
  k1 = xp.where(d == 1, keys[0], keys[1])
  correction = ring.reduce(np.uint64(1) - high + k0 - k1, rescale.wrap_bits)
  # One less than the offset: the two floors lose half a unit each on average.
  offset = np.uint64((rescale.offset >> rescale.shift) - (rescale.shift > 0))
  word = (v >> np.uint64(rescale.shift)) + (k0 - high) * np.uint64(rescale.carry) - offset - mask
  return correction, ring.reduce(word, rescale.bits)


def finish_server(
    rho: Array, chosen: Array, correction: Array, word: Array, rescale: Rescale
) -> Array:
  """The server's input m of the next linear layer, from K_beta and the messages E, B."""
  wrap = chosen + rescale.upper(rho) * correction
  m = word - wrap * np.uint64(rescale.carry) + (rho >> np.uint64(rescale.shift))
  return ring.reduce(m, rescale.bits)

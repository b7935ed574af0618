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

from types import ModuleType

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.ring import Array
from safenet_jax.fixed_point.formats import Rescale


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

"""Exact truncation of a shared value, and its way back to the linear ring.

After an activation the client has a share v and the server a share rho of its output z:
z = v + rho mod M. M is 2^l2, the size of the ring in which a ReLU selects, or the prime p
of a polynomial. The next layer needs z / 2^f, without the f low bits, in the linear ring
Z_2^l. The client has a mask r of that layer's input, so the server is to get
m = z / 2^f - r.

As integers, v + rho is z or z + M: it may wrap around M, and w is 1 where it does. The
client first adds a public offset to v, with which z is in [0, M / 2). Then the sum wraps
just when one of the shares is in the upper half of [0, M). hi(x) is 1 if x is in the
upper half, else 0, so w = hi(v) OR hi(rho).

One random oblivious transfer per value, prepared offline, makes shares of w. In it the
client has two random keys K_0 and K_1, and the server gets the one that its random bit
beta chooses. x >> f drops the f low bits of x.

             client                                   server
  offline    K_0, K_1 uniform                         beta uniform, K_beta
  online       <------ d = hi(rho) xor beta ---------
             k_j = K_(j xor d)                        k_hi(rho) = K_beta
               -- E = 1 - hi(v) + k_0 - k_1 -------->
               -- B = (v >> f) + (k_0 - hi(v)) (M >> f) - offset - r -->
                                                      w' = k_hi(rho) + hi(rho) E
                                                      m = B - w' (M >> f) + (rho >> f)

k_0 and k_1 are the keys in the order that d gives. In this diagram v has the offset
already, and the offset in B is the same in the units of z / 2^f.

w' - (k_0 - hi(v)) = w, so M >> f is subtracted just where the sum wrapped. So
m = z / 2^f - r in Z_2^l, rounded at random to one of the neighbours, with a bias of 2^-f
units.

The client sees d, under the one-time pad beta. The server sees E, under the K that it has
not chosen, and B, under r, the mask of the next linear layer.
"""

from types import ModuleType

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.ring import Array
from safenet_jax.fixed_point.formats import Rescale


def online_server(rho: Array, choice: Array, rescale: Rescale) -> Array:
  """The message d, bits as uint64; `choice` is beta."""
  return rescale.upper(rho) ^ choice


def online_client(
  xp: ModuleType, v: Array, keys: Array, d: Array, mask: Array, rescale: Rescale
) -> tuple[Array, Array]:
  """The messages E, of `rescale.wrap_bits` bits a value, and B, of l bits.

  Args:
    xp: array namespace.
    v: the client's share, without the offset.
    keys: K_0, K_1, uint64 [2, ...].
    d: the server's message.
    mask: r of the next linear layer.
    rescale: the public constants M, f and l.
  """
  v = rescale.add_offset(v)
  high = rescale.upper(v)
  k0 = xp.where(d == 1, keys[1], keys[0])
  k1 = xp.where(d == 1, keys[0], keys[1])
  correction = ring.reduce(np.uint64(1) - high + k0 - k1, rescale.wrap_bits)
  # One less than the offset, because both parties round down, and each loses half a unit
  # on average.
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

"""A convolution or dense layer on shares (Delphi, eprint 2020/050, section 4).

             client                                   server
  offline    r uniform in Z_2^l
               ------------------ Enc(r) ------------------>
                                                      u uniform in Z_2^l
               <------------- Enc(W r - u) -----------------
             c = W r - u
  online                                              m = x - r
                                                      s = W m + u + b

c + s = W x + b. The server sees r only encrypted and x only under the one-time
pad r; c is uniform because u is.
"""

from types import ModuleType

from safenet_jax.crypto import ring
from safenet_jax.crypto.ring import Array


def product(
  xp: ModuleType, x: Array, kernel: Array, *, stride: int, limb: int | None, bits: int
) -> Array:
  """W x mod 2^bits: x [B, H, W, I] with [k, k, I, O], or [B, I] with [I, O]."""
  if kernel.ndim == 4:
    return ring.convolve(xp, x, kernel, stride, bits, limb)
  return ring.multiply(xp, x, kernel, bits, limb)


def online_server(
  xp: ModuleType,
  m: Array,
  u: Array,
  kernel: Array,
  bias: Array,
  *,
  stride: int,
  limb: int | None,
  bits: int,
) -> Array:
  """The server's share s of the layer's output, from its masked input m."""
  y = product(xp, m, kernel, stride=stride, limb=limb, bits=bits)
  return ring.reduce(y + u + ring.from_signed(bias, bits), bits)

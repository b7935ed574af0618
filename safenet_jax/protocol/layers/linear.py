"""A convolution or dense layer on shares (Delphi, eprint 2020/050, section 4).

The server's layer is y = W x + b, with weights W, bias b and an input x. All numbers are
in Z_2^l, the integers modulo 2^l. Enc is encryption under the client's key. r and u are
masks: uniform, and used once.

             client                                   server
  offline    r uniform in Z_2^l
               ------------------ Enc(r) ------------------>
                                                      u uniform in Z_2^l
               <------------- Enc(W r - u) -----------------
             c = W r - u
  online                                              m = x - r
                                                      s = W m + u + b

c and s are the parties' shares of the output: c + s = W x + b = y.

The server sees r only encrypted, and x only under the one-time pad r. The client sees c,
which is uniform because u is.

A second linear layer may read y, or a sum of such outputs, with no activation between. Then both
parties have shares of its input already, and c takes the place of r:

             client                                   server
  offline    c = W r - u, as above
               ------------------ Enc(c) ------------------>
                                                      u' uniform in Z_2^l
               <------------ Enc(W' c - u') ----------------
             c' = W' c - u'
  online                                              s, as above
                                                      s' = W' s + u' + b'

So c' + s' = W' y + b', and nothing is sent online. What is new to the server is Enc(c), and to
the client c', which is uniform because u' is. The layer has to wait for c, which takes one more
round trip offline for all layers that wait (`share_walks.Waves`).

Where y has too many fraction bits (`models.layers.Truncate`), each party first drops the low
bits of its own share, and what is left of c is encrypted. Neither learns more by that. As c is
uniform, the sum is wrong with probability |y| / 2^l (`ring.truncate`).

c was decrypted with the key under which it is encrypted here. A server that follows the protocol
knows it but for u and a rounding. Against one that deviates, c may be any rounded linear function
of the key, so that BFV has to be secure for messages that depend on its key, as it is taken to be
for its own relinearisation keys.
"""

from types import ModuleType

from safenet_jax.crypto import ring
from safenet_jax.crypto.ring import Array
from safenet_jax.models import layers as records


def product(
  xp: ModuleType,
  x: Array,
  kernel: Array,
  layer: records.Conv | records.Dense,
  *,
  limb: int | None,
  bits: int,
) -> Array:
  """W x mod 2^bits: [B, H, W, I] with a kernel [k, k, I / groups, O], or [B, I] with [I, O]."""
  if isinstance(layer, records.Conv):
    return ring.convolve(xp, x, kernel, layer, bits, limb)
  return ring.multiply(xp, x, kernel, bits, limb)


def online_server(
  xp: ModuleType,
  m: Array,
  u: Array,
  kernel: Array,
  bias: Array,
  layer: records.Conv | records.Dense,
  *,
  limb: int | None,
  bits: int,
) -> Array:
  """The server's share s of the layer's output, from its masked input m."""
  y = product(xp, m, kernel, layer, limb=limb, bits=bits)
  return ring.reduce(y + u + ring.from_signed(bias, bits), bits)

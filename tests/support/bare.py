"""Sessions without the masks that keep them private: what tests of uniformity have to notice."""

import numpy as np

from safenet_jax.crypto.homomorphic import replies
from safenet_jax.protocol.layers import share_walks


def replies_without_masks(patch):
  """Homomorphic replies hand over the result: the server's share is zero, the client's is all."""
  mask, drawn, first_halves = replies.mask, replies._drawn, {}

  def bare_mask(context, ciphertexts, places, randomness):
    message, v = mask(context, ciphertexts, places, randomness)
    seed = message[:16]
    first_halves[seed] = (v + drawn(context, seed, places)) % context.moduli[:, None]
    return message, np.zeros_like(v)

  def bare_drawn(context, seed, places):
    return first_halves[seed] if seed in first_halves else drawn(context, seed, places)

  patch.setattr(replies, 'mask', bare_mask)
  patch.setattr(replies, '_drawn', bare_drawn)


def masks_from_the_party(patch):
  """The client's masks come from its randomness, and none with its ciphertext."""
  patch.setattr(share_walks.Drawn, 'conv', lambda *unused: (frozenset(), False))
  patch.setattr(share_walks.Drawn, 'dense', share_walks.Drawn.conv)

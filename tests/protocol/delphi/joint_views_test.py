"""What a party sees is uniform given what else it holds, not by itself alone.

Coins are fixed, so that nothing here fails by chance.
"""

import numpy as np
import pytest

from safenet_jax.crypto import ring
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from safenet_jax.protocol.layers import truncation
from tests.support import marginals, models, views

IMAGES = np.zeros((4, 8, 8, 2), np.uint8)
# Deviations of the normal distribution. What leaks is tens of them off.
LIMIT = 6.0


class InsecureAlternatingBits(InsecureSeededRandomness):
  """Bits that anyone foresees, 0 and 1 in turn; all else is as it should be."""

  def bits(self, shape):
    return (np.arange(np.prod(shape)) & 1).astype(np.uint8).reshape(shape)


def wrap_bits(monkeypatch, mode, server):
  """d as the client gets it, and what it makes of it: d without the bit of rho that v tells.

  All values are zero here. So rho = -v mod M, and the client knows the half that rho is in:
  the other one than that of v.
  """
  sent, known, online_client = [], [], truncation.online_client

  def record(xp, v, keys, d, mask, rescale):
    sent.append(d.reshape(-1))
    known.append((d ^ rescale.upper(v) ^ np.uint64(1)).reshape(-1))
    return online_client(xp, v, keys, d, mask, rescale)

  with monkeypatch.context() as patch:
    patch.setattr(truncation, 'online_client', record)
    model = models.zeroed(models.cubic())
    views.run(model, IMAGES, mode=mode, client=InsecureSeededRandomness(1), server=server)
  return np.concatenate(sent), np.concatenate(known)


@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'minionn', 'ot'])
def test_wrap_bits_are_fair_to_a_client_that_knows_its_share_and_the_value(monkeypatch, mode):
  (_, first), (_, second) = (
    wrap_bits(monkeypatch, mode, InsecureSeededRandomness(seed)) for seed in (2, 3)
  )
  assert first.size == 4 * (4 * 4 * (4 + 2) + 2 * 2 * 4)
  assert marginals.unfair(first) < LIMIT
  # Another session's bits are others: whatever anyone foresees would be the same in both.
  assert marginals.unfair(first ^ second) < LIMIT
  # So are another image's: of the first layer, whose outputs come image by image.
  garbled, polynomial = first[: 4 * 64].reshape(4, 64), first[4 * 64 : 4 * 96].reshape(4, 32)
  one, *others = np.concatenate([garbled, polynomial], axis=1)
  assert all(marginals.unfair(one ^ other) < LIMIT for other in others)


def test_wrap_bits_that_are_foreseen_show_in_which_half_the_servers_share_is(monkeypatch):
  """So the test above fails without a secret beta, and one of d alone would not."""
  sent, known = wrap_bits(monkeypatch, 'delphi', InsecureAlternatingBits(2))
  assert marginals.unfair(sent) < LIMIT
  assert marginals.unfair(known) > 5 * LIMIT


@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'ot'])
def test_every_power_has_a_pad_of_its_own(mode):
  """With coefficients of zero the client sees -rho_j; their differences would be the q_j's."""
  found = views.run(
    models.zeroed(models.cubic()),
    IMAGES,
    mode=mode,
    client=InsecureSeededRandomness(1),
    server=InsecureSeededRandomness(2),
  )
  p = np.uint64(ring.PRIME_50)
  rows = np.concatenate([m.layers['activation0'].pads for m in found.server], axis=1)
  rows = rows.reshape(3, len(IMAGES), -1)
  for one, other in [(rows[1], rows[0]), (rows[2], rows[0]), (rows[2], rows[1])]:
    differences = (one + p - other) % p
    assert marginals.surprise(np.bincount(marginals.scaled(differences, p).astype(int))) < LIMIT
  # Nor does an image meet the pads of another.
  assert len(np.unique(rows)) == rows.size

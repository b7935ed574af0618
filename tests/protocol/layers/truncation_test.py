"""Exact truncation: its arithmetic and what each message says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.crypto import randomness, ring
from safenet_jax.fixed_point.formats import Rescale
from safenet_jax.protocol.layers import truncation

CASES = [
  Rescale(1 << 28, 8, 56),
  Rescale(1 << 28, 10, 56),
  Rescale(ring.PRIME_41, 13, 56),
  Rescale(ring.PRIME_41, 15, 56),
  Rescale(ring.PRIME_50, 27, 56),
]


def truncated(z, rescale, seed=0):
  """Shares z, runs the protocol, reconstructs the output; also the messages."""
  source = randomness.InsecureSeededRandomness(seed)
  rho = source.residues(rescale.modulus, z.shape)
  v = ((z - rho.astype(np.int64)) % rescale.modulus).astype(np.uint64)
  keys = source.ring(rescale.wrap_bits, (2, *z.shape))
  choice = source.bits(z.shape).astype(np.uint64)
  mask = source.ring(rescale.bits, z.shape)
  d = truncation.online_server(rho, choice, rescale)
  correction, word = truncation.online_client(np, v, keys, d, mask, rescale)
  chosen = np.where(choice == 1, keys[1], keys[0])
  m = truncation.finish_server(rho, chosen, correction, word, rescale)
  return ring.reconstruct(m, mask, rescale.bits), (d, correction, word, m)


@pytest.mark.parametrize('rescale', CASES)
def test_result_is_a_neighbour_of_the_quotient_and_unbiased(rescale):
  limit = min(rescale.offset, 1 << 40) - 1
  z = np.random.default_rng(0).integers(-limit, limit, 100_000)
  z[:6] = 0, 1, -1, limit, -limit, 1 << rescale.shift
  found, _ = truncated(z, rescale)
  error = found - (z >> rescale.shift)
  assert set(error.tolist()) <= {0, 1}
  assert abs(np.mean(found - z / 2.0**rescale.shift)) < 0.01


@pytest.mark.parametrize('rescale', CASES)
def test_jitted_and_numpy_messages_are_the_same(rescale):
  z = np.arange(-50, 50) * 12345
  source = randomness.InsecureSeededRandomness(1)
  rho = source.residues(rescale.modulus, z.shape)
  v = ((z - rho.astype(np.int64)) % rescale.modulus).astype(np.uint64)
  keys, mask = source.ring(rescale.wrap_bits, (2, 100)), source.ring(56, 100)
  d = source.bits(100).astype(np.uint64)
  expected = truncation.online_client(np, v, keys, d, mask, rescale)
  with jax.enable_x64(True):
    found = jax.jit(lambda *a: truncation.online_client(jnp, *a, rescale))(v, keys, d, mask)
  for ours, theirs in zip(found, expected):
    np.testing.assert_array_equal(ours, theirs)


def test_every_message_is_uniform_in_a_small_ring():
  """All coins of a ring of 16 values with one dropped bit, for two inputs."""
  rescale = Rescale(16, 1, 5)
  size = 1 << rescale.wrap_bits
  for z in (-3, 2):
    for rho in range(16):
      v = np.uint64((z - rho) % 16)
      seen = []
      for k0 in range(size):
        for k1 in range(size):
          for beta in range(2):
            d = truncation.online_server(np.uint64(rho), np.uint64(beta), rescale)
            for r in range(32):
              e, b = truncation.online_client(
                np, v, np.asarray([k0, k1], np.uint64), d, np.uint64(r), rescale
              )
              # The server's view: its choice, the key of it, and both messages.
              seen.append((beta, (k0, k1)[beta], int(e), int(b), int(d)))
      # d follows from rho and beta; the rest is uniform whatever z is.
      views, counts = np.unique([view[:4] for view in seen], axis=0, return_counts=True)
      assert len(views) == 2 * size * size * 32
      assert (counts == counts[0]).all()


def test_without_keys_or_mask_the_messages_show_the_clients_share():
  """So the test above fails without K and without r."""
  rescale = Rescale(16, 1, 5)
  v, zeros, d = np.arange(16, dtype=np.uint64), np.zeros(16, np.uint64), np.zeros(16, np.uint64)
  correction, word = truncation.online_client(np, v, np.stack([zeros] * 2), d, zeros, rescale)
  shifted = (v + np.uint64(rescale.offset)) % np.uint64(16)
  np.testing.assert_array_equal(correction, 1 - rescale.upper(shifted))
  assert len(set(zip(word.tolist(), correction.tolist()))) == 8  # all bits but the dropped one


def test_constants_that_leave_no_room_are_refused():
  with pytest.raises(ValueError, match='want M = 1 mod'):
    Rescale(ring.PRIME_50, 33, 56)
  for shift in (-1, 27, 40):
    with pytest.raises(ValueError, match='no room'):
      Rescale(1 << 28, shift, 56)


def test_nothing_is_added_where_nothing_is_dropped():
  z = np.arange(-100, 100)
  for modulus in (1 << 28, ring.PRIME_41):
    np.testing.assert_array_equal(truncated(z, Rescale(modulus, 0, 56))[0], z)

"""What the dealer gives to one party is uniform given what that party knows, and adds up."""

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from safenet_jax.fixed_point.formats import Rescale
from safenet_jax.protocol.layers import relu
from safenet_jax.protocol.simulation import dealer
from safenet_jax.transport.ledger import Ledger
from tests.support import marginals, models

# Coins are fixed, so that nothing here fails by chance.
LIMIT = 6.0


def deal():
  return dealer.InsecureDealer(InsecureSeededRandomness(0), Ledger())


def surprise(values, modulus):
  return marginals.surprise(np.bincount(marginals.scaled(values, modulus).astype(int)))


def test_choices_are_fair_and_the_keys_are_two():
  dealt, rescale = deal(), Rescale(1 << 28, 8, 56)
  first, second = (dealt.transfers('a', (512,), rescale) for _ in range(2))
  for bits in (first.choice, second.choice, first.choice ^ second.choice):
    assert marginals.unfair(bits) < LIMIT
  np.testing.assert_array_equal(first.chosen, np.where(first.choice, *first.keys[::-1]))
  zero, one = first.keys
  modulus = 1 << rescale.wrap_bits
  for keys in (zero, one, (zero - one) % np.uint64(modulus)):
    assert surprise(keys, modulus) < LIMIT


def test_each_power_has_its_own_pad_and_shares_are_not_the_pads():
  form, p = models.cubic().public.activations['activation0'], np.uint64(ring.PRIME_50)
  powers = InsecureSeededRandomness(1).residues(int(p), (3, 512))
  found = deal().products('a', powers, form)
  product = ring.multiply_mod(np, powers, found.pads, int(p))
  np.testing.assert_array_equal((found.alphas + found.betas) % p, product)
  alphas, betas, (one, two, three) = found
  for values in (alphas, betas, found.pads, alphas + p - found.pads, betas + p - found.pads):
    assert surprise(values % p, p) < LIMIT
  for values in (one + p - two, one + p - three, two + p - three):
    assert surprise(values % p, p) < LIMIT


def test_the_servers_shares_of_products_do_not_tell_the_clients():
  form = models.model().public.activations['activation0']
  share = np.full(512, 7, np.uint64)
  ((mine,), (theirs,)) = deal().relu('a', share, form)
  p = relu.colour_zero_bits(theirs.encoding)
  total = ring.reduce(mine.product_share + theirs.product_share, form.select_bits)
  np.testing.assert_array_equal(total, p * share)
  for values in (mine.product_share, theirs.product_share):
    assert surprise(values, 1 << form.select_bits) < LIMIT

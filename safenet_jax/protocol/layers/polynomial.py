"""Polynomial channels on shares, in F_p, the integers modulo a prime p.

The input is y = c + s, of which the client has the share c and the server the share s.
Each party first drops low bits of its own share: c' and s' are c and s truncated. The
server has a polynomial P(x) = sum_i C_i x^i. The result is P(c' + s').

             client                                   server
  offline    c' = c truncated, c'^j mod p             rho_j uniform in F_p
               ---- Enc(c'^j), one for each product ------->
               <--- Enc(c'^j rho_j - beta_j), masked -------
             alpha_j, with alpha_j + beta_j = c'^j rho_j
  online                                              s' = s truncated
               <------- delta_j = q_j(s') - rho_j ----------
             v = sum_j alpha_j + c'^j delta_j         rho = q_0(s') + sum_j beta_j

Enc is encryption under the client's key. alpha_j (client) and beta_j (server) are shares
of the product of the client's c'^j and the server's rho_j. q_j collects what stands
before c'^j in P(c' + s'), with binomial coefficients binom(i, j):

    P(c' + s') = sum_j c'^j q_j(s')
    q_j(s')    = sum_{i >= j} C_i binom(i, j) s'^(i - j)

So v (client) and rho (server) are shares of the result: v + rho = P(c' + s').

The client sees every delta_j under the one-time pad rho_j. It sees each alpha_j in a
homomorphic reply, whose mask beta_j hides the product (`crypto.homomorphic.ole`). Only the
sums of the alpha_j and of the beta_j are used, so one reply can carry the sum over j.

j runs over the powers 1 to the degree of P, with one product for each. P is monic where
its leading coefficient is 1. Then the leading q is 1 as well: that power needs no product,
and the client adds it by itself.
"""

import math
from types import ModuleType

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.ring import Array
from safenet_jax.fixed_point.formats import ActivationFormat


def products(form: ActivationFormat) -> int:
  """How many products of the two parties' secrets each value takes."""
  return form.degree - form.monic


def offline_client(xp: ModuleType, c: Array, form: ActivationFormat, bits: int) -> Array:
  """Powers c', ..., c'^degree mod p, uint64 [degree, ...], of a share c in Z_2^bits."""
  first = ring.to_residue(ring.truncate(c, bits, form.shift, server=False), form.modulus)
  return xp.stack(_powers(xp, first, form.degree, form.modulus))


def online_server(
  xp: ModuleType,
  s: Array,
  coefficients: Array,
  pads: Array,
  betas: Array,
  form: ActivationFormat,
  bits: int,
) -> tuple[Array, Array]:
  """The message delta [products, ...] and the server's share rho.

  Args:
    xp: array namespace.
    s: its share [..., C] in Z_2^bits of the input.
    coefficients: int64 [degree + 1, C], constant term first.
    pads, betas: uint64 [products, ..., C], rho_j and beta_j.
    form: of the layer.
    bits: width of the linear ring.
  """
  p = form.modulus
  reduced = ring.to_residue(ring.truncate(s, bits, form.shift, server=True), p)
  powers = [xp.ones_like(reduced), *_powers(xp, reduced, form.degree, p)]
  residues = ring.to_residue(coefficients, p)

  def q(j):
    total = xp.zeros_like(reduced)
    for i in range(j, form.degree + 1):
      scaled = residues[i] * np.uint64(math.comb(i, j)) % np.uint64(p)
      total = (total + _times(xp, powers[i - j], scaled, p)) % np.uint64(p)
    return total

  count = products(form)
  deltas = xp.stack(
    [(q(j) + np.uint64(p) - pads[j - 1]) % np.uint64(p) for j in range(1, count + 1)]
  )
  rho = (q(0) + betas.sum(0, dtype=np.uint64)) % np.uint64(p)
  return deltas, rho


def online_client(
  xp: ModuleType, powers: Array, alphas: Array, deltas: Array, form: ActivationFormat
) -> Array:
  """The client's share v, from its powers, alpha [products, ...] and the message delta."""
  p = form.modulus
  v = alphas.sum(0, dtype=np.uint64) % np.uint64(p)
  for power, delta in zip(powers[: products(form)], deltas, strict=True):
    v = (v + ring.multiply_mod(xp, power, delta, p)) % np.uint64(p)
  if form.monic:
    v = (v + powers[-1]) % np.uint64(p)
  return v


def _powers(xp, first, degree, modulus):
  powers = [first]
  while len(powers) < degree:
    powers.append(ring.multiply_mod(xp, powers[-1], first, modulus))
  return powers


def _times(xp, power, coefficient, modulus):
  return ring.multiply_mod(xp, power, xp.broadcast_to(coefficient, power.shape), modulus)

"""Residues modulo several primes as the integers that they stand for."""

import math

import numpy as np


def from_residues(values, moduli):
  """Residues [..., moduli, n] as integers nearest to zero, object [..., n]."""
  q = math.prod(int(m) for m in moduli)
  total = 0
  for k, m in enumerate(moduli):
    rest = q // int(m)
    total = total + values[..., k, :].astype(object) * (rest * pow(rest, -1, int(m)))
  total %= q
  return np.where(total > q // 2, total - q, total)

"""A served network in plain integers: the functionality of the protocol."""

from typing import TYPE_CHECKING

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.models import layers as records

if TYPE_CHECKING:
  from safenet_jax.protocol.formats import ActivationFormat, FixedPointModel, RangeReport

_LIMIT = 1 << (ring.FIXED_POINT_BITS - 1)


class Plain:
  """Operations on int64 values [B, ..., C]; see `FixedPointModel.run`."""

  def __init__(self, model: 'FixedPointModel', report: 'RangeReport'):
    self.model, self.report = model, report

  def conv(self, name, layer, x):
    del layer
    weights = self.model.linear[name]
    kernel = weights.kernel
    patches = ring.patches(np, _limb(x, weights.limb), kernel.shape[0], weights.stride)
    return _product(patches, kernel.reshape(-1, kernel.shape[-1]), weights.limb) + weights.bias

  def dense(self, name, layer, x):
    del layer
    weights = self.model.linear[name]
    return _product(_limb(x, weights.limb), weights.kernel, weights.limb) + weights.bias

  def activation(self, name, layer, y):
    del layer
    form = self.model.activations[name]
    garbled = y[..., : form.relu]
    outside = np.sum(np.abs(garbled) >= (1 << (form.sign_bits - 1)) - (1 << form.dropped))
    if form.maximum:
      x = _round(max_pool(np.maximum(garbled, 0), form.window), form.dropped)
    else:
      pooled = _sum(np.maximum(garbled, 0), form)
      outside += np.sum(pooled >= 1 << (form.select_bits - 2))
      x = _round(pooled, form.relu_shift)
    if form.polynomial:
      value, more = self._polynomial(name, y[..., form.relu :], form)
      x, outside = np.concatenate([x, value], axis=-1), outside + more
    saturated = np.sum((x < -_LIMIT) | (x >= _LIMIT))
    self.report.count(name, saturated=int(saturated), exceeded=int(outside))
    return x

  def _polynomial(self, name, y, form):
    bits = self.model.precision.ring
    magnitudes = np.abs(y)
    outside = np.sum(magnitudes >= 1 << (bits - 1))
    self.report.failures += ring.truncation_failure(float(magnitudes.sum()), bits)
    t = _round(y, form.shift)
    value = np.zeros_like(t)
    for coefficient in self.model.polynomials[name][::-1]:
      value = value * t + coefficient
    value = _sum(value, form)
    outside += np.sum(np.abs(value) >= form.rescales(bits)[-1].offset)
    return _round(value, form.polynomial_shift), outside

  def average_pool(self, name, layer, x):
    return x if name in self.model.absorbed else ring.sum_pool(
      x, records.window(layer, *x.shape[-3:-1])
    )

  def max_pool(self, name, layer, x):
    del name, layer  # always part of the activation
    return x

  def flatten(self, name, layer, x):
    del name, layer
    return x.reshape(x.shape[0], -1)

  def gather(self, name, layer, x):
    del name
    return ring.gather(np, x, layer.channels, layer.stride) << layer.shift

  def add(self, branch, shortcut):
    return branch + shortcut


def max_pool(x: np.ndarray, window: int) -> np.ndarray:
  """The largest of every window of [B, H, W, C]."""
  b, h, w, c = x.shape
  return x.reshape(b, h // window, window, w // window, window, c).max((2, 4))


def _limb(x: np.ndarray, bits: int) -> np.ndarray:
  """int64 as float64 where one exact limb of `ring.multiply` holds it, else as uint64."""
  small = x.size and max(int(x.max()), -int(x.min())) < 1 << bits
  return x.astype(np.float64 if small else np.uint64)


def _product(x: np.ndarray, kernel: np.ndarray, limb: int) -> np.ndarray:
  """int64 [..., O]."""
  if x.dtype == np.float64:
    return (x @ kernel.astype(np.float64)).astype(np.int64)
  return ring.to_signed(ring.multiply(np, x, kernel, 64, limb), 64)


def _round(x: np.ndarray, shift: int) -> np.ndarray:
  return (x + ((1 << shift) >> 1)) >> shift


def _sum(x: np.ndarray, form: 'ActivationFormat') -> np.ndarray:
  return ring.sum_pool(x, form.window) if form.window > 1 else x

"""Both parties of an inference in one process.

The online messages, their sizes and the arithmetic are those of the protocol. What the
offline phase would make comes from an `InsecureDealer`, which knows the secrets of both
parties. Linear and polynomial layers compute on both parties' shares in jitted functions.
ReLUs and max pools run through real garbled circuits.

The symbols are those of `protocol.layers`. r is the client's mask of a linear layer's input
and u the server's mask of its output. m is the masked input, that is the input less r, which
the server has. c (client) and s (server) are the shares of the output, v (client) and
rho (server) those of an activation's output.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax import ranges
from safenet_jax.crypto import ring
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point import model as models
from safenet_jax.fixed_point import pooling, rings
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import layers as records
from safenet_jax.protocol.layers import linear, max_pool, polynomial, relu, truncation
from safenet_jax.protocol.layers.share_walks import Local
from safenet_jax.protocol.simulation import dealer as dealers
from safenet_jax.transport.ledger import Ledger

# What as many images as `batch` says take at once. On a CPU, more of them are hardly faster.
_BATCH_BYTES = 1 << 29
# A garbled value takes an AND's table and two labels, one of each party, for each of its bits.
# A polynomial value takes shares, powers and products.
_BIT_BYTES, _WORD_BYTES = 32 + 2 * 16, 128


def batch(model: FixedPointModel) -> int:
  """How many images to infer at once, 1 or more.

  What is prepared for more than one image together stays below half a GiB.
  """
  size = sum(
    math.prod(form.map_shape)
    * (form.relu * (form.sign_bits - form.dropped) * _BIT_BYTES + form.polynomial * _WORD_BYTES)
    for form in model.public.activations.values()
  )
  return max(1, _BATCH_BYTES // max(1, size))


def infer(
  model: FixedPointModel,
  images: np.ndarray,
  randomness: Randomness,
  *,
  ledger: Ledger | None = None,
) -> np.ndarray:
  """Logits of a private inference of a batch of images, as `Client.infer` returns them.

  Args:
    model: the served network.
    images: uint8 [B, H, W, C].
    randomness: what both parties and the dealer draw their secrets from.
    ledger: gets every message, and the seconds of every step.

  Returns:
    float64 [B, classes].

  Raises:
    ValueError: no images, or some of another shape or type; no model, or no randomness.
  """
  models.check(model)
  return model.public.decode(integers(model, images, randomness, ledger=ledger))


def integers(
  model: FixedPointModel,
  images: np.ndarray,
  randomness: Randomness,
  *,
  ledger: Ledger | None = None,
) -> np.ndarray:
  """The logits as integers, put together from the two shares; arguments as of `infer`.

  Returns:
    int64 [B, classes], the logits times 2^`model.public.output_fraction`.

  Raises:
    ValueError: as `infer`.
  """
  ranges.check_type('randomness', randomness, Randomness)
  if not len(images):
    raise ValueError('no images, want at least one')
  ledger = ledger or Ledger()
  ledger.truncation_failure = model.public.truncation_failure
  widths = rings.of(model.public)
  bits = widths.values['input']
  with jax.enable_x64(True):
    x = model.public.encode(images)
    mask = randomness.ring(bits, x.shape)
    offline = _Offline(model, dealers.InsecureDealer(randomness, ledger), ledger)
    c = records.run(model.public.layers, offline, mask)

    with ledger.step('online', 'input', 'mask', 'client'):
      m = ring.reduce(ring.from_signed(x, bits) - mask, bits)
    ledger.send('online', 'input', 'masked input', 'client', m, bits)
    s = records.run(model.public.layers, _Online(model, offline, ledger), m)
    ledger.send('online', 'logits', 'share', 'server', s, widths.logits)
    return ring.reconstruct(np.asarray(c), np.asarray(s), widths.logits)


class _ActivationState(NamedTuple):
  """Offline state of one activation layer, of both parties.

  client, server: blocks of garbled channels; empty without any.
  powers: c', ..., c'^degree of polynomial channels (`polynomial`), else None.
  products: shares for the polynomial channels, else None.
  transfers: random OTs for the truncation of each block of channels.
  mask: r of what comes after the layer.
  """

  client: list[relu.ClientBlock] | list[max_pool.ClientBlock]
  server: list[relu.ServerBlock] | list[max_pool.ServerBlock]
  powers: Any
  products: dealers.Products | None
  transfers: list[dealers.Transfers]
  mask: np.ndarray


@functools.partial(jax.jit, static_argnames=('layer', 'limb', 'bits'))
def _linear_offline(r, u, kernel, *, layer, limb, bits):
  product = linear.product(jnp, r, kernel, layer, limb=limb, bits=bits)
  return ring.reduce(product - u, bits)


@functools.partial(jax.jit, static_argnames=('layer', 'limb', 'bits'))
def _linear_online(m, u, kernel, bias, *, layer, limb, bits):
  return linear.online_server(jnp, m, u, kernel, bias, layer, limb=limb, bits=bits)


@functools.partial(jax.jit, static_argnames=('form', 'bits'))
def _powers(c, *, form, bits):
  return polynomial.offline_client(jnp, c, form, bits)


@functools.partial(jax.jit, static_argnames=('form', 'bits'))
def _polynomial_online(powers, products, s, coefficients, *, form, bits):
  deltas, rho = polynomial.online_server(
    jnp, s, coefficients, products.pads, products.betas, form, bits
  )
  return deltas, polynomial.online_client(jnp, powers, products.alphas, deltas, form), rho


@functools.partial(jax.jit, static_argnames=('rescale', 'pool'))
def _truncate(v, rho, transfers, mask, *, rescale, pool):
  """Sums both shares over windows, and truncates and masks them with the protocol's messages."""
  modulus = np.uint64(rescale.modulus)
  if pool is not None:
    v, rho = (pooling.sums(jnp, share, pool) % modulus for share in (v, rho))
  d = truncation.online_server(rho, transfers.choice, rescale)
  correction, word = truncation.online_client(jnp, v, transfers.keys, d, mask, rescale)
  m = truncation.finish_server(rho, transfers.chosen, correction, word, rescale)
  return d, correction, word, m


class _Offline(Local):
  """Operations on the client's masks: r before a linear layer, c after it."""

  def __init__(self, model: FixedPointModel, dealer: dealers.InsecureDealer, ledger: Ledger):
    super().__init__(model.public, jnp)
    self.linear, self.rings = model.linear, rings.of(model.public)
    self.dealer, self.ledger = dealer, ledger
    self.u: dict[str, np.ndarray] = {}
    self.states: dict[str, _ActivationState] = {}

  def conv(self, name, layer, r):
    weights = self.linear[name]
    sides = (records.convolved(layer, axis, n) for axis, n in enumerate(r.shape[1:-1]))
    shape = (*sides, layer.features)
    bits = self.rings.linear[name]
    u = self.u[name] = self.dealer.randomness.ring(bits, (r.shape[0], *shape))
    with self.ledger.step('offline', name, 'linear', 'both'):
      c = _linear_offline(r, u, weights.kernel, layer=layer, limb=weights.limb, bits=bits)
      c.block_until_ready()
    self.ledger.send('offline', name, 'dealt linear', 'dealer', u, 2 * bits)
    return c

  dense = conv

  def activation(self, name, layer, c):
    del layer
    form = self.model.activations[name]
    shares = np.asarray(c)
    client: Any = []
    server: Any = []
    powers, products = None, None
    if form.relu:
      with self.ledger.step('offline', name, 'garbling', 'server'):
        if form.maximum:
          client, server = self.dealer.max_pool(name, shares, form)
        else:
          flat = relu.tested(shares[..., : form.relu], form, relu.tests(form), server=False)
          client, server = self.dealer.relu(name, flat, form)
    if form.polynomial:
      with self.ledger.step('offline', name, 'polynomial', 'both'):
        powers = _powers(c[..., form.relu :], form=form, bits=self.bits)
        products = self.dealer.products(name, np.asarray(powers), form)
    pooled = (shares.shape[0], *form.pooled_shape)
    widths = [width for width in (form.relu, form.polynomial) if width]
    with self.ledger.step('offline', name, 'truncation', 'both'):
      transfers = [
        self.dealer.transfers(name, (*pooled, width), rescale)
        for width, rescale in zip(widths, form.rescales(self.rings.values[name]))
      ]
      mask = self.dealer.randomness.ring(self.rings.values[name], (*pooled, sum(widths)))
    self.states[name] = _ActivationState(client, server, powers, products, transfers, mask)
    return mask


class _Online(Local):
  """Operations on the server's values: m before a linear layer, s after it."""

  server = True

  def __init__(self, model: FixedPointModel, offline: _Offline, ledger: Ledger):
    super().__init__(model.public, jnp)
    self.whole, self.linear, self.polynomials = model, model.linear, model.polynomials
    self.rings = rings.of(model.public)
    self.offline, self.ledger = offline, ledger

  def conv(self, name, layer, m):
    weights = self.linear[name]
    with self.ledger.step('online', name, 'linear', 'server'):
      s = _linear_online(
        m,
        self.offline.u.pop(name),
        weights.kernel,
        weights.bias,
        layer=layer,
        limb=weights.limb,
        bits=self.rings.linear[name],
      )
      s.block_until_ready()
    return s

  dense = conv

  def constant(self, name, layer, share):
    del layer
    return jnp.asarray(self._constant(self.whole, name, len(share)))

  def activation(self, name, layer, s):
    del layer
    form = self.model.activations[name]
    state = self.offline.states.pop(name)
    shares = []
    if form.relu:
      garbled = self._max_pool if form.maximum else self._relu
      shares.append(garbled(name, form, state, np.asarray(s[..., : form.relu])))
    if form.polynomial:
      with self.ledger.step('online', name, 'polynomial', 'both'):
        deltas, v, rho = _polynomial_online(
          state.powers,
          state.products,
          s[..., form.relu :],
          self.polynomials[name],
          form=form,
          bits=self.bits,
        )
        rho.block_until_ready()
      self.ledger.send('online', name, 'polynomial', 'server', deltas, form.modulus.bit_length())
      shares.append((v, rho))

    outputs, first = [], 0
    rescales = form.rescales(self.rings.values[name])
    for (v, rho), transfers, rescale in zip(shares, state.transfers, rescales):
      end = first + v.shape[-1]
      with self.ledger.step('online', name, 'truncation', 'both'):
        d, correction, word, m = _truncate(
          v, rho, transfers, state.mask[..., first:end], rescale=rescale, pool=form.summed
        )
        m.block_until_ready()
      outputs.append((d, correction, word, m, rescale))
      first = end
    # One message each way for both blocks of channels.
    for d, *_ in outputs:
      self.ledger.send('online', name, 'truncation', 'server', d, 1)
    for _, correction, word, _, rescale in outputs:
      self.ledger.send('online', name, 'truncation', 'client', correction, rescale.wrap_bits)
      self.ledger.send('online', name, 'truncation', 'client', word, rescale.bits)
    return jnp.concatenate([m for *_, m, _ in outputs], axis=-1)

  def _relu(self, name, form, state, share):
    circuit = relu.circuit(form)
    values, flat = [], relu.tested(share, form, relu.tests(form), server=True)
    evaluators: dict[int, garbling.Evaluator] = {}
    for block, client, server in zip(relu.cut(flat.size), state.client, state.server):
      with self.ledger.step('online', name, 'labels', 'server'):
        labels, words, rho = relu.online_server(
          server, flat[block.first : block.end], self.offline.dealer.delta, form
        )
      self.ledger.send('online', name, 'labels', 'server', labels)
      self.ledger.send('online', name, 'select words', 'server', words, form.select_bits)
      with self.ledger.step('online', name, 'evaluation', 'client'):
        if block.size not in evaluators:
          evaluators[block.size] = garbling.Evaluator(circuit, block.size)
        v = relu.online_client(client, evaluators[block.size], labels, words, form)
      values.append((v, rho))
    v, rho = zip(*values)
    known = [block.share for block in state.client]
    return tuple(
      relu.joined(part, own, form, relu.tests(form)).reshape(share.shape)
      for part, own in ((v, known), (rho, [flat]))
    )

  def _max_pool(self, name, form, state, share):
    circuit = max_pool.circuit(form)
    words = max_pool.windows(share, form, server=True)
    values = []
    evaluators: dict[int, garbling.Evaluator] = {}
    for block, client, server in zip(max_pool.cut(form, len(share)), state.client, state.server):
      with self.ledger.step('online', name, 'labels', 'server'):
        labels, rho = max_pool.online_server(server, words[:, block.first : block.end], form)
      self.ledger.send('online', name, 'labels', 'server', labels)
      with self.ledger.step('online', name, 'evaluation', 'client'):
        if block.size not in evaluators:
          evaluators[block.size] = garbling.Evaluator(circuit, block.size)
        v = max_pool.online_client(client, evaluators[block.size], labels, form, block.count)
      values.append((v, rho))
    return tuple(max_pool.joined(part, form) for part in zip(*values))

"""How uniform everything is that a party sees in a session, by name."""

import collections

import numpy as np

from safenet_jax.crypto import ring
from safenet_jax.crypto.homomorphic import residues
from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.gazelle import correlations
from safenet_jax.protocol.layers import max_pool
from safenet_jax.transport import packed_words
from tests.support import views as views_

# Fewer half bytes than this say nothing.
_LEAST = 64


def surprise(counts):
  """A chi-square of counts, as a deviation of the normal distribution (Wilson, Hilferty)."""
  freedom, want = counts.size - 1, counts.sum() / counts.size
  ratio = ((counts - want) ** 2 / want).sum() / freedom
  return (ratio ** (1 / 3) - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom))


def unfair(bits):
  """How far bits are from fair ones: alone, and as the sixteen patterns of four in a row."""
  balance = abs(bits.mean() - 0.5) * 2 * np.sqrt(bits.size)
  fours = bits[: bits.size // 4 * 4].reshape(-1, 4) @ (1 << np.arange(4, dtype=np.uint64))
  return max(balance, surprise(np.bincount(fours.astype(int), minlength=16)))


def halves(data):
  """Half bytes of bytes."""
  octets = np.frombuffer(bytes(data), np.uint8)
  return np.concatenate([octets >> 4, octets & 15])


def digits(values, bits):
  """Words of so many bits as digits of four, from the top."""
  flat = np.asarray(values, np.uint64).reshape(-1)
  if bits < 4:
    return flat * np.uint64(16 >> bits)
  shifts = range(bits - 4, -1, -4)
  return np.concatenate([flat >> np.uint64(shift) & np.uint64(15) for shift in shifts])


def scaled(values, modulus):
  """Residues as sixteenths of their modulus."""
  flat = np.asarray(values, np.uint64).reshape(-1)
  return flat * np.uint64(16) // np.uint64(modulus)


def of_words(part, values):
  """A part that was sent as `wire.Words`."""
  found = part.unpack(np.asarray(values))
  return digits(found, part.bits) if part.modulus is None else scaled(found, part.modulus)


def surprises(views: views_.Views) -> tuple[dict[str, float], set[str]]:
  """By party that sees it and by message or value; and names too short to say anything."""
  found = collections.defaultdict(list)
  for name, values in (*_messages(views), *_kept(views)):
    found[name].append(values)
  result, short = {}, set()
  for name, parts in found.items():
    joined = np.concatenate(parts).astype(np.int64)
    counts = np.bincount(joined, minlength=16)
    if 'bit' in name:
      counts = counts[[0, 8]]
    if joined.size < _LEAST:
      short.add(name)
    else:
      result[name] = surprise(counts)
  return result, short


def _messages(views):
  structure, keys, images = views.structure, views.client_keys, len(views.client)
  bits = structure.rings.values['input']
  layers = [online.Messages(layer, images) for layer in structure.activations]
  shares = [
    [None, packed_words.Words((layer.selected,), layer.form.select_bits)]
    for layer in structure.activations
    if layer.selected
  ]
  if any(layer.made_online for layer in structure.activations):
    shares = [part for part in shares for _ in range(images)]
  else:
    shares *= images
  corrections = [_corrections(layer) for layer in structure.activations for _ in range(images)]
  parts = {
    'activation': iter([layer.down for layer in layers]),
    'masked': iter([layer.up for layer in layers]),
    'input': iter([[packed_words.Words((images, *structure.input_shape), bits)]]),
    'logits': iter([[packed_words.Words((images, structure.logits), structure.rings.logits)]]),
    'shares': iter(shares),
    'differences': iter(corrections),
  }
  for party, tag, values in views.sent:
    seen = 'server' if party == 'client' else 'client'
    if tag == 'keys':
      for secret, value in zip(keys.secrets.values(), values):
        context = secret.context
        rows = residues.unpack(value, context.moduli, (context.degree,))
        for row, modulus in zip(rows, context.moduli):
          yield f'{seen}: public key', scaled(row, int(modulus))
      values = values[len(keys.secrets) :]
    if tag == 'class tables':
      *values, decoding = values
      yield f'{seen}: decoding bit', 8 * decoding
    for i, value in enumerate(values):
      if tag in parts and i == 0:
        wanted = next(parts[tag])
      if tag in parts and wanted[i] is not None:
        kind = 'bit' if wanted[i].bits == 1 else 'field' if wanted[i].modulus else wanted[i].bits
        yield f'{seen}: {tag} {kind}', of_words(wanted[i], value)
      else:
        yield f'{seen}: {tag} {i}', halves(value if isinstance(value, bytes) else value.tobytes())


def _corrections(layer):
  """What `gazelle.correct` gives: d and an identifier, which are bytes, e; and g."""
  parts = [None] if layer.blocks else []
  parts += [None, correlations.product_words(layer)] if layer.selected else []
  return parts + ([correlations.power_words(layer)] if layer.powers else [])


def _kept(views):
  """What a party computes from messages and keeps."""
  rings = views.structure.rings
  forms = {layer.name: layer.form for layer in views.structure.activations}
  outputs = {layer.name: layer.outputs for layer in views.structure.activations}
  for material in views.client:
    if material.argmax is not None:
      yield 'client: labels of logits', digits(material.argmax.labels, 64)
    elif material.share.size:  # in Gazelle's mode it is known online only
      yield 'client: share of logits', digits(material.share, rings.logits)
  for name, layer in views.ready['client']:
    for block in layer.blocks:
      yield 'client: labels', digits(block.labels, 64)
      if isinstance(block, max_pool.ClientBlock):
        yield 'client: labels of M', digits(block.mask_labels, 64)
        yield 'client: decoding', halves(block.decoding.tobytes())
      else:
        # What is read of c; the ring of the layer before may be wider.
        bits = forms[name].select_bits
        yield 'client: c', digits(ring.reduce(block.share, bits), bits)
        yield "client: v'", digits(block.product_share, forms[name].select_bits)
    if layer.alphas is not None:
      yield 'client: alpha', scaled(layer.alphas, forms[name].modulus)
      yield "client: c'", scaled(layer.powers[0], forms[name].modulus)
  for material in views.server:
    for name, u in material.u.items():
      yield 'server: u', digits(u, rings.linear[name])
  for name, layer in views.ready['server']:
    rescales = [rescale for _, rescale in outputs[name]]
    for block in layer.blocks:
      if isinstance(block, max_pool.ServerBlock):
        yield 'server: M', digits(block.mask, forms[name].select_bits)
      else:
        yield "server: u'", digits(block.product_share, forms[name].select_bits)
    for chosen, rescale in zip(layer.chosen, rescales):
      kind = ' bit' if rescale.wrap_bits == 1 else ''
      yield f'server: K{kind}', digits(chosen, rescale.wrap_bits)
    if layer.betas is not None:
      yield 'server: beta', scaled(layer.betas, forms[name].modulus)
  for name, v in views.v.items():
    yield 'client: v', digits(v, forms[name].select_bits)
  # In Gazelle's mode the server's share of the image is zero, which is no message.
  # What reads a linear layer has the server's own share of that, perhaps with fewer bits.
  for name, m in views.m.items():
    if m.any() and name in views.structure.waves[0]:
      yield 'server: m', digits(ring.reduce(m, rings.linear[name]), rings.linear[name])
  for name, s in views.s.items():
    yield 'server: s', digits(s, rings.linear[name])

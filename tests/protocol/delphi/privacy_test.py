"""What a client holds: one label of every wire, and nothing of the server's."""

import dataclasses
import functools
import types

import numpy as np
import pytest

from safenet_jax.crypto import ring
from safenet_jax.crypto.garbled_circuits import garbling
from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from safenet_jax.protocol.delphi import online
from safenet_jax.protocol.delphi.party import ClientParty
from safenet_jax.protocol.layers import max_pool
from tests.support import models, views

KINDS = [
  (models.model, 'delphi'),
  (models.model, 'gazelle'),
  (models.model, 'minionn'),
  (models.pooled, 'delphi'),
]
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 2), np.uint8)


@pytest.fixture
def evaluated(monkeypatch):
  """Output labels of all that is evaluated in the test."""
  found, evaluate = [], garbling.Evaluator.evaluate

  def record(self, garbled, labels):
    found.append(evaluate(self, garbled, labels))
    return found[-1]

  monkeypatch.setattr(garbling.Evaluator, 'evaluate', record)
  return found


def rows(*arrays):
  """Labels as a set of 128-bit numbers."""
  return {
    row.tobytes()
    for array in arrays
    for row in np.ascontiguousarray(array, np.uint64).reshape(-1, 2)
  }


def held(found, evaluated):
  """Every label that the client can have: transferred, received, evaluated, and tables' rows."""
  blocks = found.blocks('client')
  sent = [
    np.frombuffer(values[0].tobytes(), '<u8').reshape(-1, 2)
    for values in found.messages('server', 'activation')
  ]
  masks = [block.mask_labels for block in blocks if isinstance(block, max_pool.ClientBlock)]
  # In Gazelle's mode, by layer and then by image: what was sent, and what was transferred before.
  own = [block.labels.reshape(-1, 2) for block in blocks]
  corrected = [values[0] for values in found.messages('server', 'client labels')]
  corrected += [sent ^ labels for sent, labels in zip(corrected, own)]
  return rows(
    *(block.labels for block in blocks),
    *(block.garbled.tables for block in blocks),
    *sent,
    *masks,
    *corrected,
    *(outputs.labels for outputs in evaluated),
  )


def pairs(labels, delta):
  """How many labels are there together with the other one of their wire."""
  number = int.from_bytes(delta.tobytes(), 'little')
  return sum(
    (int.from_bytes(label, 'little') ^ number).to_bytes(16, 'little') in labels for label in labels
  )


@pytest.mark.parametrize('make, mode', KINDS)
def test_the_client_has_one_label_of_every_wire(evaluated, make, mode):
  found = views.run(make(), IMAGES, mode=mode)
  labels, delta = held(found, evaluated), found.server_keys.delta
  instances = sum(
    layer.width * 2 * block.size + block.size
    for layer in found.structure.activations
    for block in layer.blocks
  )
  assert len(labels) > len(IMAGES) * instances
  assert pairs(labels, delta) == 0
  assert delta.tobytes() not in labels
  # It does have one of each: the output labels are those of the garbler, by colour.
  outputs = iter(evaluated)
  for block in found.blocks('server'):
    out = next(outputs)
    colour = np.unpackbits(out.colours[0], bitorder='little').astype(np.uint64)
    zero = block.encoding.output_labels[0]
    np.testing.assert_array_equal(out.labels[0], zero ^ colour[:, None] * delta)
  assert next(outputs, None) is None


def test_a_second_encoding_would_give_both_labels_and_delta(evaluated, monkeypatch):
  """So the test above fails without the guard of `Encoding.labels`."""
  labels_of = garbling.Encoding.labels

  def unguarded(self, name, bits):
    kept = self._inputs[name]
    try:
      return labels_of(self, name, bits)
    finally:
      self._inputs[name] = kept

  monkeypatch.setattr(garbling.Encoding, 'labels', unguarded)
  found = views.run(models.model(), IMAGES[:1])
  labels, delta = held(found, evaluated), found.server_keys.delta
  assert pairs(labels, delta) == 0
  encoding = found.server[0].layers['activation0'].blocks[0].encoding
  width, size = found.structure.activations[0].width, encoding.output_labels.shape[1]
  for bits in (0, 255):
    labels |= rows(encoding.labels('server', np.full((width, size // 8), bits, np.uint8)))
  assert pairs(labels, delta) >= width * size


@pytest.mark.parametrize('make, mode', [*KINDS, (models.model, 'ot')])
def test_the_clients_logits_are_all_that_is_ever_put_together(make, mode, monkeypatch):
  """Neither party checks itself by a value that the protocol keeps in shares."""
  found, reconstruct = [], ring.reconstruct

  def record(one, other, bits):
    found.append(np.shape(one))
    return reconstruct(one, other, bits)

  monkeypatch.setattr(ring, 'reconstruct', record)
  seen = views.run(make(), IMAGES, mode=mode)
  (shape,) = found
  assert shape == seen.logits.shape == (2, 3)


def numbers(thing, seen):
  """Adds every integer in an object, its parts and its arrays, and what they are a part of."""
  stack, known = [thing], {}
  while stack:
    node = stack.pop()
    if id(node) in known or isinstance(node, (str, bytes, type, types.ModuleType)):
      continue
    known[id(node)] = node
    if isinstance(node, np.ndarray):
      if node.dtype.kind in 'ui' and node.dtype.itemsize == 8:
        seen |= set(node.astype(np.uint64).reshape(-1).tolist())
      stack.append(node.base)
    elif isinstance(node, (int, np.integer)):
      seen.add(int(node) % (1 << 64))
    elif isinstance(node, dict):
      stack += [*node.keys(), *node.values()]
    elif isinstance(node, (list, tuple, set, frozenset)):
      stack += node
    else:
      stack += getattr(node, '__dict__', {}).values()
  return seen


def secrets(model):
  """Coefficients and biases as they are and in their rings; those too small to tell apart not."""
  found = set()
  for name, coefficients in model.polynomials.items():
    values = coefficients.reshape(-1).tolist()
    modulus = model.public.activations[name].modulus
    found |= {v % (1 << 64) for v in values} | {v % modulus for v in values}
  for weights in model.linear.values():
    values = weights.bias.reshape(-1).tolist()
    found |= {v % (1 << 64) for v in values} | {v % (1 << 56) for v in values}
  return {value for value in found if value > 1 << 20}


def client_state(found, public):
  party = ClientParty(None, found.structure, {}, None, model=public)
  walk = online.ClientOnline(party, 'logits', found.client)
  return numbers([public, found.structure, found.client, found.client_keys, walk], set())


@pytest.mark.parametrize('mode', ['delphi', 'ot'])
def test_no_coefficient_is_in_anything_that_the_client_has(mode):
  model = models.model()
  found = views.run(model, IMAGES[:1], mode=mode)
  assert len(secrets(model)) > 20
  assert not client_state(found, model.public) & secrets(model)
  # With the server's model in its place, all of them would be found.
  assert numbers(model, client_state(found, model.public)) >= {
    v % (1 << 64) for c in model.polynomials.values() for v in c.reshape(-1).tolist()
  } & secrets(model)


def prepared(model, mode):
  """What a client prepares with fixed coins of both parties, and keys that SEAL draws once."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(bfv, 'SecretKey', _secret_key)
    found = views.run(
      model,
      None,
      mode=mode,
      prepares=[1],
      client=InsecureSeededRandomness(1),
      server=InsecureSeededRandomness(2),
    )
  return found.client[0].arrays()


_secret_key = functools.cache(bfv.SecretKey)


def same(one, other):
  return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize('mode', ['delphi', 'ot'])
def test_what_a_client_prepares_does_not_depend_on_coefficients_or_biases(mode):
  """With the same coins it is the same, bit for bit."""
  model, other = models.model(0), models.model(1)
  biased = {
    name: dataclasses.replace(w, bias=other.linear[name].bias) for name, w in model.linear.items()
  }
  first = prepared(model, mode)
  changed = dataclasses.replace(model, polynomials=other.polynomials, linear=biased)
  assert same(first, prepared(changed, mode))
  # Kernels do enter, under the mask u: with the same u, c is another.
  assert not same(first, prepared(dataclasses.replace(model, linear=other.linear), mode))

"""Garbling against plain evaluation."""

import hashlib
import tracemalloc

from hypothesis import given, settings
import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import circuits, garbling, half_gates, wires
from safenet_jax.crypto.oblivious_transfer import word_transfer
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from tests.support import garbled_run, plain_circuits, random_circuits


def _two_words(build, width=6):
  builder = circuits.Builder()
  x, y = builder.input('x', width), builder.input('y', width)
  return builder.build(build(builder, x, y))


LIBRARY = {
  'add': _two_words(circuits.add),
  'carry': _two_words(lambda b, x, y: [circuits.carry(b, x, y, True)]),
  'greater_equal': _two_words(lambda b, x, y: [circuits.greater_equal(b, x, y)]),
  'sum_sign': _two_words(lambda b, x, y: [circuits.sum_sign(b, x, y)]),
  'select': _two_words(lambda b, x, y: circuits.select(b, x[0], x, y)),
  'maximum': _two_words(circuits.maximum),
}


@pytest.mark.parametrize('name', sorted(LIBRARY))
def test_garbled_is_plain_on_every_pair_of_words(name):
  words = np.arange(64 * 64, dtype=np.uint64)
  bits = {'x': wires.pack(words >> np.uint64(6), 6), 'y': wires.pack(words, 6)}
  garbled_run.assert_agrees(LIBRARY[name], words.size, bits, transferred=('x',))


@pytest.mark.parametrize(
  'circuit',
  [
    circuits.relu_sign(41, 12),
    plain_circuits.masked_relu(20),
    plain_circuits.masked_relu(20, 5),
  ],
  ids=['sign', 'ring', 'ring truncated'],
)
@pytest.mark.parametrize('transferred', [(), ('client',), ('client', 'server')])
def test_garbled_relu_is_plain_whoever_has_labels_from_transfer(circuit, transferred):
  bits = garbled_run.random_bits(circuit, 192, InsecureSeededRandomness(1))
  garbled_run.assert_agrees(circuit, 192, bits, transferred)


@pytest.mark.parametrize(
  'block',
  [
    64,
    half_gates.TILE - 64,
    half_gates.TILE,
    half_gates.TILE + 64,
    half_gates.MAX_BLOCK,
  ],
)
def test_garbled_is_plain_however_a_block_is_cut_into_tiles(block):
  circuit = plain_circuits.masked_relu(5, 1)
  bits = garbled_run.random_bits(circuit, block, InsecureSeededRandomness(2))
  garbled_run.assert_agrees(circuit, block, bits, transferred=('client',))


@settings(deadline=None)
@given(random_circuits.cases())
def test_garbled_is_plain_for_random_circuits(case):
  bits = {name: np.packbits(rows, axis=1, bitorder='little') for name, rows in case.inputs.items()}
  garbled_run.assert_agrees(case.circuit, random_circuits.INSTANCES, bits, transferred=('y',))


def _signs(values, bits, dropped):
  """The garbled sign test of shared int64 values, one sign bit for each."""
  randomness = InsecureSeededRandomness(3)
  shift = np.uint64(dropped)
  server = randomness.ring(bits, values.size)
  client = (values.astype(np.uint64) - server) & np.uint64((1 << bits) - 1)
  circuit = circuits.relu_sign(bits, dropped)
  delta = randomness.words(2) | np.array([1, 0], np.uint64)
  signs, evaluator = [], None

  for span, garbled, encoding in garbling.garble_many(circuit, values.size, randomness, delta):
    if evaluator is None or evaluator.block != garbled.block:
      evaluator = garbling.Evaluator(circuit, garbled.block)
    labels = {
      name: encoding.labels(name, wires.pack(share[span] >> shift, bits - dropped))
      for name, share in (('client', client), ('server', server))
    }
    outputs = evaluator.evaluate(garbled, labels)
    signs.append(wires.unpack(wires.decode(outputs.colours, encoding.decoding)))
  return np.concatenate(signs)


def test_a_million_random_values_have_the_right_truncated_relu():
  limit = (1 << 40) - (1 << 12)
  values = np.random.default_rng(4).integers(1 - limit, limit, 1_000_000)
  values[::2] >>= 20
  relu = np.where(_signs(values, 41, 12) == 1, values, 0)
  np.testing.assert_array_equal(relu >> 12, np.maximum(values, 0) >> 12)


@pytest.mark.parametrize('bits, dropped', [(41, 12), (41, 0), (8, 3), (64, 0)])
def test_boundary_values_have_the_right_truncated_relu(bits, dropped):
  step, half = 1 << dropped, 1 << (bits - 1)
  edges = [0, 1, step - 1, step, step + 1, half - step - 1, half - step, half - 1]
  edges = [v for edge in edges for v in (edge, -edge) if dropped == 0 or edge < half - step]
  values = np.resize(np.array(edges), 6400)
  signs = _signs(values, bits, dropped)
  np.testing.assert_array_equal(
    np.where(signs == 1, values, 0) >> dropped, np.maximum(values, 0) >> dropped
  )
  if dropped == 0:
    np.testing.assert_array_equal(signs, values >= 0)


def test_boundary_values_come_out_of_the_ring_relu_truncated_and_masked_again():
  bits, dropped = 41, 12
  modulus, step = 1 << bits, 1 << dropped
  values = [0, 1, step - 1, step, step + 1, modulus // 2 - step, modulus // 2 - 1]
  values = np.array([v for edge in values for v in (edge, -edge)] + [-modulus // 2])
  edges = np.array([0, 1, modulus // 2 - 1, modulus // 2, modulus - 1])
  triples = np.stack(np.meshgrid(values, edges, edges), -1).reshape(-1, 3)
  value, server, mask = np.resize(triples, (-(-len(triples) // 64) * 64, 3)).T
  words = {'client': (value - server) % modulus, 'server': server, 'mask': mask}
  packed = {name: wires.pack(word.astype(np.uint64), bits) for name, word in words.items()}
  run = garbled_run.garble(plain_circuits.masked_relu(bits, dropped), len(value), packed)
  found = wires.unpack(wires.decode(run.evaluate().colours, run.encoding.decoding))
  np.testing.assert_array_equal(found, ((np.maximum(value, 0) >> dropped) + mask) % modulus)


def test_products_with_output_labels_are_of_the_colour_and_not_of_the_other():
  circuit, block = circuits.relu_sign(8), 128
  run = garbled_run.garble(circuit, block, seed=20)
  randomness = InsecureSeededRandomness(21)
  factors = randomness.words(block)
  keys = word_transfer.hash_keys(block, randomness)
  pads = word_transfer.sender_pads(run.encoding.output_labels[0], run.garbler.delta, keys)
  message, minus = word_transfer.send_products(factors, pads, bits=64)

  outputs = run.evaluate()
  colours = np.unpackbits(outputs.colours[0], bitorder='little')
  for choices, right in ((outputs.colours[0], True), (~outputs.colours[0], False)):
    own = word_transfer.receiver_pads(outputs.labels[0], keys)
    share = word_transfer.receive_products(message, choices, own, bits=64)
    chosen = colours if right else 1 - colours
    assert (
      (minus + share == chosen * factors).all()
      if right
      else (not (minus + share == chosen * factors).any())
    )


def test_garbling_many_asks_for_each_blocks_zero_labels():
  circuit, randomness = circuits.relu_sign(3), InsecureSeededRandomness(6)
  instances = half_gates.MAX_BLOCK + 128
  zeros = randomness.words((3, instances, 2))
  bits = garbled_run.random_bits(circuit, instances, randomness)
  delta = np.array([3, 4], np.uint64)
  active = zeros ^ garbled_run.spread(bits['client'], delta)
  end = 0
  for span, garbled, encoding in garbling.garble_many(
    circuit,
    instances,
    randomness,
    delta,
    lambda span: {'client': np.ascontiguousarray(zeros[:, span])},
  ):
    assert span.start == end
    end, octets = span.stop, slice(span.start // 8, span.stop // 8)
    outputs = garbling.Evaluator(circuit, garbled.block).evaluate(
      garbled,
      {'client': active[:, span], 'server': encoding.labels('server', bits['server'][:, octets])},
    )
    plain = plain_circuits.evaluate(
      circuit,
      {
        name: np.unpackbits(rows[:, octets], axis=1, bitorder='little')
        for name, rows in bits.items()
      },
    )
    values = wires.decode(outputs.colours, encoding.decoding)
    np.testing.assert_array_equal(np.unpackbits(values, axis=1, bitorder='little'), plain)
  assert end == instances


def test_garbling_many_keeps_the_delta_that_it_draws():
  circuit, deltas = circuits.relu_sign(3), set()
  instances = half_gates.MAX_BLOCK + 64
  for _, garbled, encoding in garbling.garble_many(
    circuit, instances, InsecureSeededRandomness(19)
  ):
    bits = np.zeros((3, garbled.block // 8), np.uint8)
    labels = {name: encoding.labels(name, bits) for name, _ in circuit.inputs}
    outputs = garbling.Evaluator(circuit, garbled.block).evaluate(garbled, labels)
    # The label of colour 1 is that of colour 0 plus delta.
    coloured = np.unpackbits(outputs.colours[0], bitorder='little') == 1
    differences = (outputs.labels ^ encoding.output_labels)[0, coloured]
    deltas |= {difference.tobytes() for difference in differences}
  assert len(deltas) == 1


def test_memory_does_not_grow_with_the_number_of_instances():
  def peak(blocks):
    tracemalloc.start()
    instances = blocks * half_gates.MAX_BLOCK
    for _ in garbling.garble_many(
      circuits.relu_sign(20, 12), instances, InsecureSeededRandomness(7)
    ):
      pass
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return highest

  assert peak(12) < 1.05 * peak(3) < 60e6


def test_the_wire_format_is_golden():
  circuit = plain_circuits.masked_relu(6, 2)
  block = half_gates.TILE + 64
  bits = garbled_run.random_bits(circuit, block, InsecureSeededRandomness(8))
  run = garbled_run.garble(circuit, block, bits, transferred=('client',), seed=9)
  digest = hashlib.sha256(run.garbled.seed + run.garbled.check + run.garbled.tables.tobytes())
  for labels in (*run.labels.values(), run.encoding.output_labels, run.encoding.decoding):
    digest.update(labels.tobytes())
  assert digest.hexdigest() == 'f240e5d7bfb12f63b4570dc9972f8e428a08e862d2d76dbe1410441aedfb7258'


def test_labels_that_are_kept_as_a_seed_are_the_same_again_and_repeat_nothing():
  labels = garbling.FreshLabels(InsecureSeededRandomness(1), 5, 192)
  rows = labels.rows()
  assert rows.shape == labels.shape == (5, 384)
  for wire in range(5):
    for words in (slice(0, 128), slice(128, 384)):
      np.testing.assert_array_equal(labels.row(wire, words), rows[wire, words])
  other = garbling.FreshLabels(InsecureSeededRandomness(2), 5, 192).rows()
  assert len({*rows.reshape(-1).tolist(), *other.reshape(-1).tolist()}) == 2 * rows.size


def test_constant_inverted_repeated_and_passed_outputs_decode():
  builder = circuits.Builder()
  a, b, c = builder.input('x', 3)
  both = builder.and_(builder.not_(a), b)
  circuit = builder.build([True, both, builder.not_(both), both, a, builder.not_(a), False])
  bits = {'x': wires.pack(np.resize(np.arange(8, dtype=np.uint64), 64), 3)}
  garbled_run.assert_agrees(circuit, 64, bits)
  garbled_run.assert_agrees(builder.build([a, builder.xor(b, c)]), 64, bits, transferred=('x',))


@pytest.mark.parametrize('circuit', [circuits.relu_sign(7), plain_circuits.masked_relu(7)])
def test_labels_of_inputs_are_only_read(circuit):
  randomness = InsecureSeededRandomness(22)
  zeros = {name: randomness.words((width, 64, 2)) for name, width in circuit.inputs}
  before = {name: labels.copy() for name, labels in zeros.items()}
  garbled, _ = garbling.Garbler(circuit, 64, randomness).garble(zeros)
  garbling.Evaluator(circuit, 64).evaluate(garbled, zeros)
  for name, labels in zeros.items():
    np.testing.assert_array_equal(labels, before[name])


def test_given_tables_become_the_message():
  circuit = circuits.relu_sign(4)
  tables = np.zeros((3, 2, 64, 2), np.uint64)
  garbled, _ = garbling.Garbler(circuit, 64, InsecureSeededRandomness(17)).garble(tables=tables)
  assert garbled.tables is tables and tables.all()

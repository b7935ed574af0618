"""What must never happen: two labels of a wire, a repeated label."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import circuits, garbling, half_gates
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from tests.support import garbled_run


def test_a_block_is_evaluated_once():
  circuit = circuits.relu_sign(4)
  run = garbled_run.garble(circuit, 64, seed=12)
  run.evaluate()
  with pytest.raises(ValueError, match='evaluated before'):
    run.evaluate()


def test_an_input_is_encoded_once_and_never_if_transferred():
  circuit = circuits.relu_sign(4)
  bits = garbled_run.random_bits(circuit, 64, InsecureSeededRandomness(13))
  run = garbled_run.garble(circuit, 64, bits, transferred=('client',))
  for name in ('server', 'client', 'mask'):
    with pytest.raises(ValueError, match='reveals delta'):
      run.encoding.labels(name, bits['server'])


def test_a_refused_encoding_does_not_use_the_input_up():
  garbler = garbling.Garbler(circuits.relu_sign(4), 64, InsecureSeededRandomness(14))
  _, encoding = garbler.garble()
  with pytest.raises(ValueError, match=r'want uint8 \(4, 8\)'):
    encoding.labels('client', np.zeros((4, 16), np.uint8))
  assert encoding.labels('client', np.zeros((4, 8), np.uint8)).shape == (4, 64, 2)


def test_labels_never_repeat():
  circuit = circuits.relu_sign(6)
  garbler = garbling.Garbler(circuit, 1024, InsecureSeededRandomness(15))
  seen = []
  for _ in range(3):
    garbled, encoding = garbler.garble()
    zeros = [encoding.labels(name, np.zeros((6, 128), np.uint8)) for name, _ in circuit.inputs]
    seen += [*zeros, encoding.output_labels, garbled.tables]
  labels = np.concatenate([labels.reshape(-1, 2) for labels in seen])
  labels = np.concatenate([labels, labels ^ garbler.delta])
  assert len(np.unique(labels, axis=0)) == len(labels)


def test_fresh_deltas_are_odd_and_differ():
  randomness = InsecureSeededRandomness(16)
  deltas = [garbling.Garbler(circuits.relu_sign(2), 64, randomness).delta for _ in range(50)]
  assert all(delta[0] & np.uint64(1) for delta in deltas)
  assert len({delta.tobytes() for delta in deltas}) == 50
  # Each of the other 127 bits is drawn, by itself: no two of them agree in all deltas.
  bits = np.unpackbits(np.stack(deltas).view(np.uint8), axis=1, bitorder='little').T
  assert len(np.unique(bits, axis=0)) == 128 and not (bits[1:] == bits[1:, :1]).all(axis=1).any()


@pytest.mark.parametrize('value', [0x00, 0xFF])
def test_what_the_evaluator_sees_is_balanced_whatever_the_values(value):
  circuit, block = circuits.relu_sign(4), half_gates.MAX_BLOCK
  bits = {name: np.full((4, block // 8), value, np.uint8) for name, _ in circuit.inputs}
  run = garbled_run.garble(circuit, block, bits)
  outputs = run.evaluate()
  for words in (run.garbled.tables, *run.labels.values(), outputs.labels):
    columns = words.reshape(-1, block, 2).view(np.uint8)
    ones = np.unpackbits(columns, axis=2).mean(axis=1)
    # Six standard deviations of a fair coin: one false alarm in 10^5 runs.
    assert np.abs(ones - 0.5).max() < 6 * 0.5 / np.sqrt(block)


def test_tables_of_another_type_or_shape_are_refused_and_not_used():
  run = garbled_run.garble(circuits.relu_sign(4), 64, seed=19)
  tables = run.garbled.tables
  for bad in (tables.view(np.int64), tables[:, :, :32], tables[:2], tables.reshape(3, 2, 32, 4)):
    with pytest.raises(ValueError, match=r'tables: .* want uint64 \(3, 2, 64, 2\)'):
      run.evaluate(dataclasses.replace(run.garbled, tables=bad))
  assert run.valid(run.evaluate()).all()


def test_callers_mistakes_raise():
  circuit, randomness = circuits.relu_sign(4), InsecureSeededRandomness(18)
  bits = garbled_run.random_bits(circuit, 64, randomness)
  run = garbled_run.garble(circuit, 64, bits)
  evaluator = garbling.Evaluator(circuit, 64)
  server = run.labels['server']
  for mistake in (
    lambda: garbling.Garbler(circuit, 65, randomness),
    lambda: garbling.Garbler(circuit, 0, randomness),
    lambda: garbling.Evaluator(circuit, 2 * half_gates.MAX_BLOCK),
    lambda: garbling.Garbler(circuit, 64, randomness, np.array([2, 1], np.uint64)),
    lambda: garbling.Garbler(circuit, 64, randomness, np.array([1, 1])),
    lambda: run.garbler.garble({'mask': server}),
    lambda: run.garbler.garble({'client': server[:3]}),
    lambda: run.garbler.garble({'client': server.astype(np.int64)}),
    lambda: run.garbler.garble(tables=np.zeros((3, 2, 128, 2), np.uint64)),
    lambda: run.garbler.garble(tables=np.zeros((3, 2, 64, 4), np.uint64)[..., ::2]),
    lambda: evaluator.evaluate(run.garbled, {'server': server}),
    lambda: evaluator.evaluate(run.garbled, {'server': server, 'client': server[:, :32]}),
    lambda: garbling.Evaluator(circuits.relu_sign(5), 64).evaluate(run.garbled, run.labels),
    lambda: next(garbling.garble_many(circuit, 100, randomness)),
  ):
    with pytest.raises(ValueError, match=r'want|C-contiguous'):
      mistake()
  assert run.valid(run.evaluate()).all()

"""The message of a garbled block, and that only its own labels open it."""

import dataclasses

import numpy as np
import pytest

from safenet_jax.crypto import messages
from safenet_jax.crypto.garbled_circuits import circuits, garbled_block, garbling
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from tests.support import garbled_run, plain_circuits


def test_a_block_is_as_large_as_its_parts():
  circuit = circuits.relu_sign(5)
  garbled = garbled_run.garble(circuit, 64, seed=10).garbled
  assert garbled.nbytes == 16 + 32 + 32 * 64 * circuit.and_count
  assert (len(garbled.seed), len(garbled.check)) == (16, 32)
  assert garbled.tables.shape == garbled_block.tables_shape(circuit, 64)


SHUFFLES = {
  'hash key': lambda block: dataclasses.replace(block, seed=bytes(16)),
  'gates': lambda block: dataclasses.replace(block, tables=block.tables[::-1].copy()),
  'instances': lambda block: dataclasses.replace(block, tables=np.roll(block.tables, 1, axis=2)),
  'half gates': lambda block: dataclasses.replace(block, tables=block.tables[:, ::-1].copy()),
}


@pytest.mark.parametrize('shuffle', SHUFFLES)
@pytest.mark.parametrize('circuit', [circuits.relu_sign(12), plain_circuits.masked_relu(6)])
def test_shuffled_tables_and_wrong_keys_raise(circuit, shuffle):
  run = garbled_run.garble(circuit, 1024, seed=11)
  with pytest.raises(ValueError, match='do not open the garbled block'):
    run.evaluate(SHUFFLES[shuffle](run.garbled))
  assert run.valid(run.evaluate()).all()


@pytest.mark.parametrize('shuffle', SHUFFLES)
def test_without_the_check_they_would_give_no_valid_label(shuffle, monkeypatch):
  monkeypatch.setattr(garbled_block, 'verify', lambda *unused: None)
  run = garbled_run.garble(circuits.relu_sign(12), 1024, seed=11)
  outputs = run.evaluate(SHUFFLES[shuffle](run.garbled))
  # Where all eleven gates happen to use no row, four to the minus eleven.
  assert run.valid(outputs).mean() < 0.01
  good = run.evaluate()
  agreement = np.unpackbits(outputs.colours ^ good.colours).mean()
  assert 0.4 < agreement < 0.6


def test_labels_of_another_block_batch_or_order_raise():
  circuit = circuits.relu_sign(4)
  mine, next_block, other_delta = (garbled_run.garble(circuit, 64, seed=s) for s in (1, 2, 3))
  next_block.garbler.delta[:] = mine.garbler.delta
  same_size = circuits.Builder()
  x, y = same_size.input('client', 4), same_size.input('server', 4)
  wires = [same_size.and_(a, b) for a, b in zip(x[:3], y[:3])]
  other_circuit = garbled_run.garble(same_size.build([*wires, x[3], y[3]]), 64, seed=4)
  assert other_circuit.garbled.tables.shape == mine.garbled.tables.shape
  for garbled, labels in (
    (next_block.garbled, mine.labels),
    (other_delta.garbled, mine.labels),
    (other_circuit.garbled, mine.labels),
    (mine.garbled, {'client': mine.labels['server'], 'server': mine.labels['client']}),
    (mine.garbled, mine.labels | {'server': next_block.labels['server']}),
    (mine.garbled, {name: np.roll(row, 1, axis=1) for name, row in mine.labels.items()}),
    (mine.garbled, {name: row[::-1].copy() for name, row in mine.labels.items()}),
  ):
    garbled = dataclasses.replace(garbled)
    with pytest.raises(ValueError, match='do not open the garbled block'):
      garbling.Evaluator(circuit, 64).evaluate(garbled, labels)
  assert mine.valid(mine.evaluate()).all()


def test_one_wrong_label_of_one_instance_raises():
  run = garbled_run.garble(plain_circuits.masked_relu(5), 128, seed=5)
  for instance in (0, 63, 127):
    labels = {name: row.copy() for name, row in run.labels.items()}
    labels['mask'][2, instance, 1] ^= np.uint64(8)
    with pytest.raises(ValueError, match='do not open the garbled block'):
      garbling.Evaluator(run.garbler.circuit, 128).evaluate(
        dataclasses.replace(run.garbled), labels
      )


def test_the_check_is_the_hash_of_both_labels_of_the_outputs_parity():
  builder = circuits.Builder()
  a, b = builder.input('x', 2)
  both = builder.and_(a, b)
  # A wire that is an output twice counts once, a constant not at all.
  circuit = builder.build([both, a, builder.not_(both), True])
  run = garbled_run.garble(circuit, 64, seed=6)
  labels = np.bitwise_xor.reduce(run.encoding.output_labels[[0, 1]].reshape(-1, 2))
  pair = [labels, labels ^ run.garbler.delta]
  pair.sort(key=lambda label: int(label[0]) & 1)
  expected = [messages.identifier(b'parity', run.garbled.seed, label.tobytes()) for label in pair]
  assert run.garbled.check == b''.join(expected)


def test_the_hashes_of_a_check_are_in_the_order_of_the_colours():
  run = garbled_run.garble(circuits.relu_sign(4), 64, seed=8)
  first, second = run.garbled.check[:16], run.garbled.check[16:]
  with pytest.raises(ValueError, match='do not open the garbled block'):
    run.evaluate(dataclasses.replace(run.garbled, check=second + first))


def test_circuits_without_a_wire_for_output_evaluate():
  builder = circuits.Builder()
  builder.input('x', 2)
  run = garbled_run.garble(builder.build([True, False]), 64)
  assert not run.evaluate().labels.any()


def test_checks_differ_from_block_to_block():
  garbler = garbling.Garbler(circuits.relu_sign(3), 64, InsecureSeededRandomness(7))
  checks = [garbler.garble()[0].check for _ in range(20)]
  assert len({check[start : start + 16] for check in checks for start in (0, 16)}) == 40

from hypothesis import given
import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import circuits, compiled_circuit
from tests.support import plain_circuits, random_circuits


def _run(program, inputs):
  """The program on plain bits; a slot never written before it is read is None."""
  slots = [None] * (program.inputs + program.slots + 2)
  for op, out, left, right in program.steps:
    # Inputs are rows of the caller's, set once and never written to.
    assert (out in range(program.inputs)) == (op == compiled_circuit.INPUT)
    if op == compiled_circuit.INPUT:
      assert slots[out] is None
      slots[out] = inputs[left]
    elif op == compiled_circuit.XOR:
      slots[out] = slots[left] ^ slots[right]
    elif op == compiled_circuit.COPY:
      slots[out] = slots[left]
    else:
      a, b = slots[compiled_circuit.LEFT], slots[compiled_circuit.RIGHT]
      slots[out] = (a ^ bool(left)) & (b ^ bool(right))
      # The gate destroys its operands.
      slots[compiled_circuit.LEFT] = slots[compiled_circuit.RIGHT] = None
  return np.stack(
    [
      np.full_like(inputs[0], bit) if isinstance(bit, bool) else slots[bit.number] ^ bit.inverted
      for bit in program.outputs
    ]
  )


@given(random_circuits.cases())
def test_programs_compute_their_circuits(case):
  program = compiled_circuit.compile_program(case.circuit)
  rows = [row for name, _ in case.circuit.inputs for row in case.inputs[name]]
  np.testing.assert_array_equal(_run(program, rows), case.expected)


@given(random_circuits.cases())
def test_every_input_is_loaded_once(case):
  program = compiled_circuit.compile_program(case.circuit)
  loaded = [step.left for step in program.steps if step.op == compiled_circuit.INPUT]
  assert sorted(loaded) == list(range(case.circuit.input_width))


def test_a_carry_chain_runs_in_few_slots_with_fused_xors():
  circuit = circuits.relu_sign(41, 12)
  program = compiled_circuit.compile_program(circuit)
  assert program.slots <= 4
  operations = [step.op for step in program.steps]
  # Per AND both operands and the next carry; the first AND copies two inputs.
  assert operations.count(compiled_circuit.XOR) == 3 * circuit.and_count - 1
  assert operations.count(compiled_circuit.COPY) == 2


@pytest.mark.parametrize('bits', [8, 41])
def test_slots_grow_with_what_is_alive_only(bits):
  program = compiled_circuit.compile_program(plain_circuits.masked_relu(bits))
  assert program.slots <= 2 * bits + 4

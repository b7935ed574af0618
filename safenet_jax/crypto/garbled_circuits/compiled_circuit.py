"""A circuit as a straight-line program on slots, for garbling.

A slot is the place of a wire's labels. It is used again for another wire when nothing
reads the first one any more, so that all slots fit in the cache. An AND finds its
operands in two fixed slots that lie side by side, LEFT and RIGHT. Where possible, the
gate that makes an operand writes it right there.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

from safenet_jax.crypto.garbled_circuits import circuits

INPUT, XOR, COPY, AND = range(4)
LEFT, RIGHT = -2, -1


class Step(NamedTuple):
  """One step; operands and result are slots.

  INPUT: slot `out` becomes input wire number `left`, and stays it. XOR: out = left ^
  right. COPY: out = left. AND: out = LEFT & RIGHT; here `left` (`right`) is no slot but
  1 where that operand is inverted first.
  """

  op: int
  out: int
  left: int
  right: int


class Program(NamedTuple):
  """Steps on slots: first one for each input, then `slots` others, at last LEFT and RIGHT."""

  steps: tuple[Step, ...]
  inputs: int
  slots: int
  outputs: tuple[circuits.Bit, ...]  # wires by slot


@functools.lru_cache(maxsize=64)
def compile_program(circuit: circuits.Circuit) -> Program:
  """Assigns a slot to every wire, from when it is set until it is last read.

  Inputs keep their slots to the end: these are the caller's rows, and nothing may be
  written to them.
  """
  steps = _wire_steps(circuit)
  last_read: dict[int, int] = {}
  for position, step in enumerate(steps):
    if step.op in (XOR, COPY):
      last_read[step.left] = last_read[step.right] = position
  inputs = range(circuit.input_width)
  kept = {bit.number for bit in circuit.outputs if isinstance(bit, circuits.Wire)}
  kept.update(inputs)

  slots = {LEFT: LEFT, RIGHT: RIGHT} | {wire: wire for wire in inputs}
  size, free, program = len(inputs), [], []
  for position, (op, out, left, right) in enumerate(steps):
    if op in (XOR, COPY):
      read = {left, right}
      left, right = slots[left], slots[right]
      free += [slots[w] for w in read - kept if last_read[w] == position]
    if out not in slots:
      if not free:
        free.append(size)
        size += 1
      slots[out] = free.pop()
    program.append(Step(op, slots[out], left, right))
  return Program(
    steps=tuple(program),
    inputs=len(inputs),
    slots=size - len(inputs),
    outputs=tuple(
      bit if isinstance(bit, bool) else circuits.Wire(slots[bit.number], bit.inverted)
      for bit in circuit.outputs
    ),
  )


def _wire_steps(circuit: circuits.Circuit) -> list[Step]:
  """The steps with wire numbers for slots.

  A XOR that nothing but one AND reads is computed in that AND's operand slot, which
  saves a copy. Inputs are loaded just before they are read, so that they are in the
  cache then.
  """
  gates = dict(circuit.numbered_gates())
  readers: dict[int, list[str]] = {}
  for gate in circuit.gates:
    readers.setdefault(gate.left.number, []).append(gate.op)
    readers.setdefault(gate.right.number, []).append(gate.op)
  for bit in circuit.outputs:
    if isinstance(bit, circuits.Wire):
      readers.setdefault(bit.number, []).append('output')
  fused = {
    wire
    for wire, gate in gates.items()
    if gate.op == circuits.XOR and readers[wire] == [circuits.AND]
  }
  steps: list[Step] = []
  waiting = dict.fromkeys(range(circuit.input_width))

  def load(wires: Sequence[int]) -> None:
    for wire in wires:
      if wire in waiting:
        del waiting[wire]
        steps.append(Step(INPUT, wire, wire, wire))

  def combine(out: int, operands: tuple[int, ...]) -> None:
    load(operands)
    op = COPY if len(operands) == 1 else XOR
    steps.append(Step(op, out, operands[0], operands[-1]))

  for out, gate in gates.items():
    if gate.op == circuits.AND:
      for operand, wire in ((LEFT, gate.left.number), (RIGHT, gate.right.number)):
        source = gates[wire] if wire in fused else None
        combine(operand, (source.left.number, source.right.number) if source else (wire,))
      steps.append(Step(AND, out, int(gate.left.inverted), int(gate.right.inverted)))
    elif out not in fused:
      combine(out, (gate.left.number, gate.right.number))
  load(list(waiting))
  return steps

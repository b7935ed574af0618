"""Circuits in Bristol Fashion, the text format that other tools exchange.

https://nigelsmart.github.io/MPC-Circuits/
"""

from collections.abc import Sequence

from safenet_jax.crypto.garbled_circuits import circuits

_ARITY = {'XOR': 2, 'AND': 2, 'INV': 1, 'EQW': 1, 'EQ': 1}


def from_bristol(text: str, names: Sequence[str] | None = None) -> circuits.Circuit:
  """Reads a circuit of XOR, AND, INV, EQW (copy) and EQ (constant) gates.

  Inputs are called `names`, or input0, input1, ...; outputs are one after the
  other. Raises ValueError for text that is not such a circuit.
  """
  lines = [line.split() for line in text.splitlines() if line.strip()]
  try:
    (gate_count, wire_count), *words = [[int(field) for field in line] for line in lines[:3]]
    (inputs, *widths), (outputs, *output_widths) = words
  except ValueError as error:
    raise ValueError(f'header {lines[:3]}, want gates and wires, inputs, outputs') from error
  if len(widths) != inputs or len(output_widths) != outputs or len(lines) != gate_count + 3:
    raise ValueError(
      f'{len(widths)} input words, {len(output_widths)} output words and {len(lines) - 3} gates, '
      f'want {inputs}, {outputs} and {gate_count}'
    )
  names = names or [f'input{position}' for position in range(inputs)]
  if len(names) != inputs:
    raise ValueError(f'{len(names)} names, want {inputs}')

  builder = circuits.Builder()
  wires: dict[int, circuits.Bit] = {}
  for name, width in zip(names, widths):
    wires |= enumerate(builder.input(name, width), len(wires))
  for line in lines[3:]:
    out, bit = _gate(builder, wires, line)
    if out in wires or not 0 <= out < wire_count:
      raise ValueError(f'gate {line} drives wire {out}, want an unused one of {wire_count}')
    wires[out] = bit
  try:
    return builder.build(
      [wires[wire_count - sum(output_widths) + position] for position in range(sum(output_widths))]
    )
  except KeyError as error:
    raise ValueError(f'output wire {error} is driven by no gate') from error


def _gate(
  builder: circuits.Builder, wires: dict[int, circuits.Bit], line: list[str]
) -> tuple[int, circuits.Bit]:
  """The wire that a line drives, and what it carries."""
  operation = line[-1]
  arity = _ARITY.get(operation)
  if arity is None or len(line) != arity + 4 or line[:2] != [str(arity), '1']:
    raise ValueError(f'gate {line}, want one of {sorted(_ARITY)} with its operands')
  *operands, out = (int(field) for field in line[2:-1])
  if operation == 'EQ':
    return out, bool(operands[0])
  try:
    bits = [wires[operand] for operand in operands]
  except KeyError as error:
    raise ValueError(f'gate {line} reads wire {error} before it is driven') from error
  if operation == 'XOR':
    return out, builder.xor(*bits)
  if operation == 'AND':
    return out, builder.and_(*bits)
  return out, builder.not_(bits[0]) if operation == 'INV' else bits[0]

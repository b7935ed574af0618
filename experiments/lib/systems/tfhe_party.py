"""Evaluates a circuit under TFHE, gate by gate: run by a Python that has `concrete-python`.

  python tfhe_party.py < circuit.json

Standard input has gates as [op, left wire, whether it is inverted, right wire, whether inverted],
outputs as [wire, whether inverted], and the values of the input wires, which are encrypted. Wires
are numbered as in `circuits.Circuit`. What is printed has the decrypted outputs and the seconds of
all gates. Every gate is a sum of two ciphertexts and one bootstrapping with a table.
"""

import itertools
import json
import sys
import time

# Of one gate, as TFHE's own gates have it in size.
ERROR = 2.0**-40


def main() -> None:
  from concrete import fhe

  def gate(name: str, flip_left: int, flip_right: int, table: list[int]):
    """A gate of two bits, either of which may be inverted first: a table of their sum."""
    lookup = fhe.LookupTable(table)

    def function(x, y):
      return lookup[(1 - x if flip_left else x) + (1 - y if flip_right else y)]

    function.__name__ = name
    return fhe.function({'x': 'encrypted', 'y': 'encrypted'})(function)

  gates = {'xor': gate('xor', 0, 0, [0, 1, 0])}
  for left, right in itertools.product((0, 1), repeat=2):
    name = f'and{left}{right}'
    gates[name] = gate(name, left, right, [0, 0, 1])
  # All outputs may be inputs of further gates.
  composed = type('Gates', (), gates | {'composition': fhe.AllComposable()})
  asked = json.load(sys.stdin)
  pairs = list(itertools.product((0, 1), repeat=2))
  module = fhe.module()(composed).compile(dict.fromkeys(gates, pairs), p_error=ERROR)
  module.keygen()
  wires = [module.xor.encrypt(value, 0)[0] for value in asked['values']]
  wall, cpu = time.perf_counter(), time.process_time()
  for op, left, left_inverted, right, right_inverted in asked['gates']:
    name = op if op == 'xor' else f'and{int(left_inverted)}{int(right_inverted)}'
    wires.append(getattr(module, name).run(wires[left], wires[right]))
  wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
  found = [int(module.xor.decrypt(wires[wire])) ^ int(flip) for wire, flip in asked['outputs']]
  print(json.dumps({'outputs': found, 'seconds': wall, 'cpu_seconds': cpu}))


if __name__ == '__main__':
  main()

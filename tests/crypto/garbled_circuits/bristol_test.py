import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import bristol, circuits

# Two-bit adder with its carry: s0, s1, c.
ADDER = """7 11
2 2 2
1 3

2 1 1 3 4 XOR
2 1 0 2 8 XOR
2 1 0 2 5 AND
2 1 4 5 9 XOR
2 1 1 3 6 AND
2 1 4 5 7 AND
2 1 6 7 10 XOR
"""


def _pairs():
  return np.array([[x >> 0 & 1, x >> 1 & 1, x >> 2 & 1, x >> 3 & 1] for x in range(16)], bool).T


def test_an_adder_adds():
  circuit = bristol.from_bristol(ADDER)
  bits = _pairs()
  outputs = circuits.evaluate_plain(circuit, {'input0': bits[:2], 'input1': bits[2:]})
  weights = np.array([1, 2])
  expected = weights @ bits[:2] + weights @ bits[2:]
  np.testing.assert_array_equal(np.array([1, 2, 4]) @ outputs, expected)
  assert circuits.count(circuit) == circuits.Count(ands=3, xors=4, depth=2)


def test_unary_gates_and_given_names():
  text = """4 6
1 2
1 4
1 1 0 2 INV
1 1 1 3 EQW
1 1 1 4 EQ
1 1 0 5 EQ
"""
  circuit = bristol.from_bristol(text, ['x'])
  outputs = circuits.evaluate_plain(circuit, {'x': np.array([[0, 1], [0, 1]], bool)})
  np.testing.assert_array_equal(outputs, [[1, 0], [0, 1], [1, 1], [0, 0]])
  assert not circuit.gates


@pytest.mark.parametrize(
  'old, new',
  [
    ('7 11', '8 11'),  # a gate is missing
    ('7 11', '7'),
    ('2 2 2', '2 2'),
    ('2 2 2', 'two 2 2'),
    ('2 1 4 5 9 XOR', '2 1 4 9 9 XOR'),  # reads what is not driven yet
    ('2 1 4 5 9 XOR', '2 1 4 5 8 XOR'),  # drives a wire twice
    ('2 1 4 5 9 XOR', '2 1 4 5 11 XOR'),  # no such wire
    ('2 1 4 5 9 XOR', '2 1 4 5 9 NAND'),
    ('2 1 4 5 9 XOR', '2 1 4 9 XOR'),
    ('2 1 4 5 9 XOR', '1 1 4 5 9 XOR'),
    ('1 3', '1 12'),  # more outputs than wires
  ],
)
def test_malformed_text_raises(old, new):
  assert old in ADDER
  with pytest.raises(ValueError, match='want|wire|literal'):
    bristol.from_bristol(ADDER.replace(old, new, 1))


def test_names_must_fit():
  with pytest.raises(ValueError, match='1 names, want 2'):
    bristol.from_bristol(ADDER, ['x'])


def test_empty_text_raises():
  with pytest.raises(ValueError, match='want'):
    bristol.from_bristol('')

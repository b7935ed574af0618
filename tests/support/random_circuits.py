"""Circuits for property tests, with their truth worked out beside them."""

from typing import NamedTuple

from hypothesis import strategies as st
import numpy as np

from safenet_jax.crypto.garbled_circuits import circuits

INSTANCES = 64

_OPERATIONS = {
  'xor': (2, lambda a, b: a ^ b),
  'and_': (2, lambda a, b: a & b),
  'not_': (1, lambda a: ~a),
  'select': (3, lambda s, a, b: np.where(s, a, b)),
}


class Case(NamedTuple):
  """A circuit, bool [width, 64] for each input, and bool [outputs, 64]."""

  circuit: circuits.Circuit
  inputs: dict[str, np.ndarray]
  expected: np.ndarray


def _row(bits: int) -> np.ndarray:
  return np.array([bool(bits >> i & 1) for i in range(INSTANCES)])


@st.composite
def cases(draw: st.DrawFn) -> Case:
  """Up to 40 random operations on two inputs, constants and earlier results."""
  builder = circuits.Builder()
  bits: list[circuits.Bit] = [False, True]
  truths = [_row(0), ~_row(0)]
  inputs = {}
  for name in ('x', 'y'):
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.integers(0, 2**INSTANCES - 1), min_size=width, max_size=width))
    inputs[name] = np.stack([_row(bits) for bits in rows])
    bits += builder.input(name, width)
    truths += list(inputs[name])
  for operation in draw(st.lists(st.sampled_from(sorted(_OPERATIONS)), max_size=40)):
    arity, truth = _OPERATIONS[operation]
    chosen = draw(st.lists(st.integers(0, len(bits) - 1), min_size=arity, max_size=arity))
    bits.append(getattr(builder, operation)(*(bits[i] for i in chosen)))
    truths.append(truth(*(truths[i] for i in chosen)))
  outputs = draw(st.lists(st.integers(0, len(bits) - 1), min_size=1, max_size=6))
  return Case(
    builder.build([bits[i] for i in outputs]), inputs, np.stack([truths[i] for i in outputs])
  )

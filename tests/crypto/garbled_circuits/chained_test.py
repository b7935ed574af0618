import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import chained, circuits, garbling
from safenet_jax.crypto.randomness import InsecureSeededRandomness

RANDOMNESS = InsecureSeededRandomness(3)
DELTA = garbling.fresh_delta(RANDOMNESS)


def labels_of(zeros, bits):
  return zeros ^ bits.astype(np.uint64)[..., None] * DELTA


def values(labels, zeros):
  """Bits of labels; each has to be one of the two."""
  change = labels ^ zeros
  bits = change.any(axis=-1)
  np.testing.assert_array_equal(change, bits[..., None] * DELTA)
  return bits.astype(np.uint8)


def gate():
  """left AND NOT right, and its inverse: outputs that are read inverted, too."""
  builder = circuits.Builder()
  left, right = builder.input('left', 1) + builder.input('right', 1)
  both = builder.and_(left, builder.not_(right))
  return builder.build([both, builder.not_(both)])


def count():
  """The ones of seven bits, and both constants."""
  builder = circuits.Builder()
  return builder.build([*circuits.popcount(builder, builder.input('bits', 7)), True, False])


@pytest.mark.parametrize('instances', [1, 64, 100])
def test_output_labels_go_on_as_input_labels_of_the_next_circuit(instances):
  circuit = count()
  bits = RANDOMNESS.bits((circuit.input_width, instances))
  zeros = RANDOMNESS.words((circuit.input_width, instances, 2))
  garbled, out_zeros = chained.Garbler(circuit, RANDOMNESS, DELTA).garble(zeros)
  assert garbled.tables.shape == (circuit.and_count, 2, instances, 2)
  labels = chained.Evaluator(circuit).evaluate(garbled, labels_of(zeros, bits))
  ones = bits.sum(axis=0)
  plain = np.stack([ones & 1, ones >> 1 & 1, ones >> 2, np.ones_like(ones), 0 * ones])
  np.testing.assert_array_equal(values(labels, out_zeros), plain)

  # A second circuit reads what the first has made.
  second = gate()
  again = [out_zeros[[0, 2]], labels[[0, 2]]]
  garbled, zeros = chained.Garbler(second, RANDOMNESS, DELTA).garble(again[0])
  found = values(chained.Evaluator(second).evaluate(garbled, again[1]), zeros)
  left, right = plain[[0, 2]]
  np.testing.assert_array_equal(found, [left & (1 - right), 1 - (left & (1 - right))])


def test_bits_that_the_garbler_knows_need_no_message():
  x, w = RANDOMNESS.bits((2, 64))
  zeros = RANDOMNESS.words((64, 2))
  own = np.stack([chained.inverted(zeros, w, DELTA), chained.known(w, DELTA)])
  garbled, out = chained.Garbler(gate(), RANDOMNESS, DELTA).garble(own)
  # The evaluator's labels are those of x as they were, and 0: whatever w is.
  theirs = np.stack([labels_of(zeros, x), np.zeros((64, 2), np.uint64)])
  found = values(chained.Evaluator(gate()).evaluate(garbled, theirs), out)
  agree = 1 - (x ^ w)
  np.testing.assert_array_equal(found[0], agree & (1 - w))


def test_labels_of_another_block_are_found_out():
  zeros = RANDOMNESS.words((2, 10, 2))
  garbled, _ = chained.Garbler(gate(), RANDOMNESS, DELTA).garble(zeros)
  with pytest.raises(ValueError, match='labels do not open the garbled block'):
    chained.Evaluator(gate()).evaluate(garbled, RANDOMNESS.words((2, 10, 2)))


def test_a_block_is_evaluated_once():
  zeros = RANDOMNESS.words((2, 10, 2))
  garbled, _ = chained.Garbler(gate(), RANDOMNESS, DELTA).garble(zeros)
  evaluator = chained.Evaluator(gate())
  evaluator.evaluate(garbled, zeros)
  with pytest.raises(ValueError, match='evaluated before'):
    evaluator.evaluate(garbled, zeros)


@pytest.mark.parametrize('shape', [(3, 10, 2), (2, 0, 2), (2, (1 << 14) + 1, 2), (2, 10)])
def test_labels_of_another_shape_are_refused(shape):
  with pytest.raises(ValueError, match='want uint64 \\[2, 1 to 16384, 2\\]'):
    chained.Garbler(gate(), RANDOMNESS, DELTA).garble(np.zeros(shape, np.uint64))
  garbled, _ = chained.Garbler(gate(), RANDOMNESS, DELTA).garble(np.zeros((2, 10, 2), np.uint64))
  with pytest.raises(ValueError):
    chained.Evaluator(gate()).evaluate(garbled, np.zeros(shape, np.uint64))

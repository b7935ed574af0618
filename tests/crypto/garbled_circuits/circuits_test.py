import dataclasses
import itertools

from hypothesis import given
import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import circuits
from tests.support import plain_circuits, random_circuits


def _bits(values, width):
  return np.array([[bool(v >> i & 1) for v in values] for i in range(width)])


def _words(bits):
  return [sum(int(bit) << i for i, bit in enumerate(column)) for column in bits.T]


def _signed(value, bits):
  value %= 1 << bits
  return value - (value >> (bits - 1) << bits)


def _on_all_pairs(build, width):
  """Runs build(builder, x, y) on every pair of words: [(x, y, result), ...]."""
  builder = circuits.Builder()
  x, y = builder.input('x', width), builder.input('y', width)
  circuit = builder.build(build(builder, x, y))
  xs, ys = zip(*itertools.product(range(1 << width), repeat=2))
  outputs = plain_circuits.evaluate(circuit, {'x': _bits(xs, width), 'y': _bits(ys, width)})
  return list(zip(xs, ys, _words(outputs)))


@pytest.mark.parametrize('width', [1, 4])
@pytest.mark.parametrize('carry_in', [False, True])
def test_add_and_carry_are_addition(width, carry_in):
  def build(builder, x, y):
    return [*circuits.add(builder, x, y, carry_in), circuits.carry(builder, x, y, carry_in)]

  for x, y, result in _on_all_pairs(build, width):
    assert result == x + y + carry_in


def test_comparisons_order_unsigned_and_signed_words():
  def build(builder, x, y):
    return [circuits.greater_equal(builder, x, y), circuits.signed_greater_equal(builder, x, y)]

  for x, y, result in _on_all_pairs(build, 4):
    assert result == (x >= y) + 2 * (_signed(x, 4) >= _signed(y, 4))


@pytest.mark.parametrize('width', [1, 4])
def test_sum_sign_is_the_top_bit_of_the_sum(width):
  for x, y, result in _on_all_pairs(lambda b, x, y: [circuits.sum_sign(b, x, y)], width):
    assert result == (_signed(x + y, width) < 0)


def test_maximum_is_of_signed_words():
  for x, y, result in _on_all_pairs(circuits.maximum, 4):
    assert _signed(result, 4) == max(_signed(x, 4), _signed(y, 4))


def test_select_takes_the_first_word_if_true():
  def build(builder, x, y):
    return circuits.select(builder, x[0], y, circuits.constant(5, 3))

  for x, y, result in _on_all_pairs(build, 3):
    assert result == (y if x & 1 else 5)


@pytest.mark.parametrize('dropped', [0, 1, 3])
def test_relu_sign_gives_the_exact_truncated_relu(dropped):
  bits = 7
  shares = np.array(list(itertools.product(range(1 << bits), repeat=2)))
  outputs = plain_circuits.evaluate(
    circuits.relu_sign(bits, dropped),
    {
      'client': _bits(shares[:, 0] >> dropped, bits - dropped),
      'server': _bits(shares[:, 1] >> dropped, bits - dropped),
    },
  )
  value = shares.sum(axis=1) % (1 << bits)
  value = value - (value >> (bits - 1) << bits)
  relu = np.where(outputs[0], value, 0) >> dropped
  promised = np.abs(value) < (1 << (bits - 1)) - (1 << dropped) if dropped else value == value
  np.testing.assert_array_equal(relu[promised], np.maximum(value, 0)[promised] >> dropped)
  if not dropped:
    np.testing.assert_array_equal(outputs[0], value >= 0)


@pytest.mark.parametrize('limit', [1, 6, 8, 15])
def test_clamp_signs_tell_where_a_value_is(limit):
  width = 5
  circuit = circuits.clamp_signs(width, limit)
  xs, ys = zip(*itertools.product(range(1 << width), repeat=2))
  outputs = plain_circuits.evaluate(
    circuit, {'client': _bits(xs, width), 'server': _bits(ys, width)}
  )
  values = np.array([_signed(x + y, width) for x, y in zip(xs, ys)])
  np.testing.assert_array_equal(outputs[0], (values >= 0) & (values < limit))
  np.testing.assert_array_equal(outputs[1], values >= limit)
  zeros = (limit & -limit).bit_length() - 1
  assert circuit.and_count == 2 * width - zeros - 2
  for odd in (0, 16):
    with pytest.raises(ValueError, match=f'a limit of {odd} in 5 bits'):
      circuits.clamp_signs(width, odd)


@pytest.mark.parametrize('dropped', [0, 1, 3])
def test_masked_relu_truncates_and_masks(dropped):
  bits = 4
  words = list(itertools.product(range(1 << bits), repeat=3))
  names = ('client', 'server', 'mask')
  outputs = plain_circuits.evaluate(
    plain_circuits.masked_relu(bits, dropped),
    {name: _bits(values, bits) for name, values in zip(names, zip(*words))},
  )
  for (client, server, mask), result in zip(words, _words(outputs)):
    relu = max(_signed(client + server, bits), 0) >> dropped
    assert result == (relu + mask) % (1 << bits)


@pytest.mark.parametrize('bits', [32, 40, 41, 48])
def test_relu_circuits_cost_what_they_say(bits):
  assert circuits.relu_sign(bits).and_count == bits - 1
  assert circuits.relu_sign(bits, 12).and_count == bits - 13
  assert plain_circuits.masked_relu(bits).and_count == 3 * bits - 3
  assert plain_circuits.masked_relu(bits, 12).and_count == 3 * bits - 15


@pytest.mark.parametrize(
  'build, ands',
  [
    (lambda b, x, y: circuits.add(b, x, y), 7),
    (lambda b, x, y: [circuits.carry(b, x, y)], 8),
    (lambda b, x, y: [circuits.greater_equal(b, x, y)], 8),
    (lambda b, x, y: [circuits.sum_sign(b, x, y)], 7),
    (lambda b, x, y: circuits.select(b, x[0], x, y), 8),
    (lambda b, x, y: circuits.maximum(b, x, y), 16),
  ],
)
def test_words_of_eight_bits_cost_one_and_per_bit(build, ands):
  builder = circuits.Builder()
  x, y = builder.input('x', 8), builder.input('y', 8)
  assert builder.build(build(builder, x, y)).and_count == ands


def test_constants_and_repetitions_cost_no_gates():
  builder = circuits.Builder()
  a, b = builder.input('x', 2)
  not_a = builder.not_(a)
  assert builder.xor(a, a) is False and builder.xor(a, not_a) is True
  assert builder.and_(a, a) == a and builder.and_(a, not_a) is False
  assert builder.and_(a, True) == a and builder.and_(False, a) is False
  assert builder.xor(True, a) == not_a and builder.not_(not_a) == a
  assert builder.select(True, a, b) == a and builder.select(b, a, a) == a
  assert not builder.build([a, not_a, True]).gates
  assert builder.and_(a, b) == builder.and_(b, a)
  assert builder.xor(not_a, b) == builder.not_(builder.xor(b, a))
  assert len(builder.build([builder.and_(b, a), builder.xor(a, not_a)]).gates) == 1


def test_gates_that_no_output_needs_are_dropped():
  builder = circuits.Builder()
  x = builder.input('x', 8)
  total = circuits.add(builder, x, builder.input('y', 8))
  circuit = builder.build(total[:3])
  assert circuit.and_count == 2 and len(circuit.gates) == 9


@given(random_circuits.cases())
def test_plain_evaluation_agrees_with_the_operations(case):
  outputs = plain_circuits.evaluate(case.circuit, case.inputs)
  np.testing.assert_array_equal(outputs, case.expected)


@given(random_circuits.cases())
def test_circuits_are_in_order_and_xors_not_inverted(case):
  for wire, gate in case.circuit.numbered_gates():
    assert gate.left.number != gate.right.number
    assert max(gate.left.number, gate.right.number) < wire
    if gate.op == circuits.XOR:
      assert not gate.left.inverted and not gate.right.inverted


def test_circuits_do_not_change():
  circuit = circuits.relu_sign(4)
  with pytest.raises(dataclasses.FrozenInstanceError):
    circuit.gates = ()
  assert hash(circuit) == hash(circuits.relu_sign(4))
  assert circuit == circuits.relu_sign(4) != circuits.relu_sign(5)


def test_callers_mistakes_raise():
  builder = circuits.Builder()
  x = builder.input('x', 2)
  for mistake in (
    lambda: builder.input('x', 2),
    lambda: builder.input('y', 0),
    lambda: circuits.add(builder, x, x[:1]),
    lambda: circuits.greater_equal(builder, [], []),
    lambda: circuits.relu_sign(8, 8),
    lambda: circuits.relu_sign(65),
  ):
    with pytest.raises(ValueError, match='want'):
      mistake()


@pytest.mark.parametrize('width', [1, 2, 3, 6, 7, 8, 27, 100])
def test_popcount_counts_with_an_and_for_each_bit_less_the_ones_of_their_number(width):
  builder = circuits.Builder()
  circuit = builder.build(circuits.popcount(builder, builder.input('bits', width)))
  assert circuit.and_count == width - width.bit_count()
  bits = np.random.default_rng(width).random((width, 200)) < np.linspace(0, 1, 200)
  assert _words(plain_circuits.evaluate(circuit, {'bits': bits})) == bits.sum(axis=0).tolist()


def test_columns_of_bits_are_summed_by_their_weights():
  widths = 5, 0, 9, 3
  builder = circuits.Builder()
  columns = [builder.input(f'{k}', n) if n else [] for k, n in enumerate(widths)]
  circuit = builder.build(circuits.column_sum(builder, columns))
  bits = {
    f'{k}': np.random.default_rng(k).random((n, 100)) < 0.6 for k, n in enumerate(widths) if n
  }
  for name in bits:
    bits[name][:, 0] = True
  wanted = sum(part.sum(axis=0) << int(name) for name, part in bits.items())
  assert _words(plain_circuits.evaluate(circuit, bits)) == wanted.tolist()
  assert wanted.max() == 5 + 4 * 9 + 8 * 3 < 1 << len(circuit.outputs)

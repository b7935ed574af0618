"""Boolean circuits: built once, then counted, garbled and evaluated.

A bit is a `Wire` or a known Python bool; a word is a list of bits, lowest
first. Garbled XOR gates are free, and only AND gates cost anything. So the
builder computes what is known, makes equal gates only once, and moves inversions
from the operands of a XOR to its output.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import itertools
from typing import NamedTuple

AND = 'and'
XOR = 'xor'


class Wire(NamedTuple):
  """A wire of a circuit, read as it is or inverted."""

  number: int
  inverted: bool = False


Bit = Wire | bool
Word = Sequence[Bit]


class Gate(NamedTuple):
  """`op` is AND or XOR; the operands of a XOR are never inverted."""

  op: str
  left: Wire
  right: Wire


@dataclasses.dataclass(frozen=True)
class Circuit:
  """Input wires come first, in order of `inputs`; then one wire per gate.

  Attributes:
    inputs: (name, width) of every input word.
    gates: in an order in which every operand is defined before it is read.
    outputs: wires, or bools where an output turned out to be constant.
  """

  inputs: tuple[tuple[str, int], ...]
  gates: tuple[Gate, ...]
  outputs: tuple[Bit, ...]

  @property
  def input_width(self) -> int:
    """Bits of all input words together."""
    return sum(width for _, width in self.inputs)

  @property
  def and_count(self) -> int:
    """AND gates: what garbling costs."""
    return sum(gate.op == AND for gate in self.gates)

  def numbered_gates(self) -> Iterator[tuple[int, Gate]]:
    """Every gate with the index of the wire that it drives."""
    return enumerate(self.gates, self.input_width)


class Builder:
  """Collects gates; `build` keeps those that an output depends on."""

  def __init__(self) -> None:
    self._inputs: dict[str, list[Wire]] = {}
    self._gates: dict[int, Gate] = {}
    self._known: dict[Gate, Wire] = {}
    self._fresh = itertools.count()

  def input(self, name: str, width: int) -> list[Bit]:
    """A new input word of `width` bits; ValueError for a known name or no bit."""
    if name in self._inputs or width < 1:
      raise ValueError(f'input {name!r} of {width} bits, want a new name and a width of at least 1')
    self._inputs[name] = [Wire(next(self._fresh)) for _ in range(width)]
    return list(self._inputs[name])

  def not_(self, bit: Bit) -> Bit:
    """The inverted bit; free."""
    return (not bit) if isinstance(bit, bool) else Wire(bit.number, not bit.inverted)

  def xor(self, left: Bit, right: Bit) -> Bit:
    """left XOR right; free."""
    if isinstance(left, bool):
      return self.not_(right) if left else right
    if isinstance(right, bool):
      return self.not_(left) if right else left
    inverted = left.inverted != right.inverted
    if left.number == right.number:
      return inverted
    out = self._gate(XOR, Wire(left.number), Wire(right.number))
    return Wire(out.number, inverted)

  def and_(self, left: Bit, right: Bit) -> Bit:
    """left AND right: a gate, unless an operand is known or both are one wire."""
    if isinstance(left, bool):
      return right if left else False
    if isinstance(right, bool):
      return left if right else False
    if left.number == right.number:
      return left if left == right else False
    return self._gate(AND, left, right)

  def select(self, condition: Bit, if_true: Bit, if_false: Bit) -> Bit:
    """One of two bits, for one AND."""
    if isinstance(condition, bool):
      return if_true if condition else if_false
    return self.xor(if_false, self.and_(condition, self.xor(if_true, if_false)))

  def _gate(self, op: str, left: Wire, right: Wire) -> Wire:
    gate = Gate(op, min(left, right), max(left, right))
    if gate not in self._known:
      wire = Wire(next(self._fresh))
      self._gates[wire.number] = gate
      self._known[gate] = wire
    return self._known[gate]

  def build(self, outputs: Word) -> Circuit:
    """The circuit of the given outputs, without the gates they do not need."""
    live = {bit.number for bit in outputs if not isinstance(bit, bool)}
    for index, gate in reversed(self._gates.items()):
      if index in live:
        live |= {gate.left.number, gate.right.number}
    wires = [wire.number for word in self._inputs.values() for wire in word]
    wires += [index for index in self._gates if index in live]
    position = {index: place for place, index in enumerate(wires)}

    def renumber(wire: Wire) -> Wire:
      return Wire(position[wire.number], wire.inverted)

    return Circuit(
      inputs=tuple((name, len(word)) for name, word in self._inputs.items()),
      gates=tuple(
        Gate(gate.op, renumber(gate.left), renumber(gate.right))
        for index, gate in self._gates.items()
        if index in live
      ),
      outputs=tuple(bit if isinstance(bit, bool) else renumber(bit) for bit in outputs),
    )


def constant(value: int, width: int) -> list[Bit]:
  """The known word `value` mod 2^width."""
  return [bool(value >> position & 1) for position in range(width)]


def add(builder: Builder, x: Word, y: Word, carry_in: Bit = False) -> list[Bit]:
  """x + y + carry_in mod 2^width: one AND for every bit but the last."""
  _check_widths(x, y)
  total, carried = [], carry_in
  for position, (a, b) in enumerate(zip(x, y)):
    total.append(builder.xor(a, builder.xor(b, carried)))
    if position < len(x) - 1:
      carried = _next_carry(builder, a, b, carried)
  return total


def carry(builder: Builder, x: Word, y: Word, carry_in: Bit = False) -> Bit:
  """The carry out of x + y + carry_in, one AND per bit."""
  _check_widths(x, y)
  carried = carry_in
  for a, b in zip(x, y):
    carried = _next_carry(builder, a, b, carried)
  return carried


def _next_carry(builder: Builder, a: Bit, b: Bit, carried: Bit) -> Bit:
  # majority(a, b, c) = c ^ (a ^ c)(b ^ c)
  change = builder.and_(builder.xor(a, carried), builder.xor(b, carried))
  return builder.xor(carried, change)


def _check_widths(x: Word, y: Word) -> None:
  if len(x) != len(y) or not x:
    raise ValueError(f'words of {len(x)} and {len(y)} bits, want two of one width')


def greater_equal(builder: Builder, x: Word, y: Word) -> Bit:
  """x >= y for unsigned words, one AND per bit: the carry of x + ~y + 1."""
  return carry(builder, x, [builder.not_(bit) for bit in y], True)


def signed_greater_equal(builder: Builder, x: Word, y: Word) -> Bit:
  """x >= y in two's complement: the unsigned comparison, after flipping both sign bits."""
  return greater_equal(builder, [*x[:-1], builder.not_(x[-1])], [*y[:-1], builder.not_(y[-1])])


def sum_sign(builder: Builder, x: Word, y: Word) -> Bit:
  """The top bit of x + y mod 2^width: one AND for every bit but the last."""
  _check_widths(x, y)
  carried = carry(builder, x[:-1], y[:-1]) if len(x) > 1 else False
  return builder.xor(builder.xor(x[-1], y[-1]), carried)


def select(builder: Builder, condition: Bit, if_true: Word, if_false: Word) -> list[Bit]:
  """One word or the other, one AND per bit."""
  _check_widths(if_true, if_false)
  return [builder.select(condition, a, b) for a, b in zip(if_true, if_false)]


def maximum(builder: Builder, x: Word, y: Word) -> list[Bit]:
  """The larger word in two's complement, two ANDs per bit."""
  return select(builder, signed_greater_equal(builder, x, y), x, y)


def popcount(builder: Builder, bits: Word) -> list[Bit]:
  """How many of the bits are 1: n bits take n ANDs less the ones of n in binary."""
  return column_sum(builder, [bits])


def column_sum(builder: Builder, columns: Sequence[Word]) -> list[Bit]:
  """The sum of bits of which those in column i count 2^i, by full and half adders.

  Bits are added as soon as three of one weight are there, so that few wait at any time.
  """
  most = sum(len(column) << weight for weight, column in enumerate(columns))
  sums: list[list[Bit]] = [[] for _ in range(most.bit_length())]

  def put(weight: int, bit: Bit) -> None:
    if weight == len(sums):
      return  # a carry that is always 0, as the sum has no such bit
    waiting = sums[weight]
    waiting.append(bit)
    if len(waiting) == 3:
      a, b, c = waiting
      waiting[:] = [builder.xor(a, builder.xor(b, c))]
      put(weight + 1, _next_carry(builder, a, b, c))

  for weight, column in enumerate(columns):
    for bit in column:
      put(weight, bit)
  for weight, waiting in enumerate(sums):
    if len(waiting) == 2:
      a, b = waiting
      waiting[:] = [builder.xor(a, b)]
      put(weight + 1, builder.and_(a, b))
  return [waiting[0] if waiting else False for waiting in sums]


def relu_sign(bits: int, dropped: int = 0) -> Circuit:
  """Whether client + server mod 2^bits is >= 0, from the shares' top bits.

  The inputs are the two shares shifted right by `dropped` bits, so that the carry from
  the bits below is lost. This can err in two places. Sums in [0, 2^dropped) may read as
  negative: their ReLU is then zero, where after a truncation by `dropped` bits it would
  be less than one unit. And the 2^dropped lowest sums may read as positive. The circuit
  has bits - dropped - 1 ANDs.

  ValueError unless 0 <= dropped < bits <= 64.
  """
  if not 0 <= dropped < bits <= 64:
    raise ValueError(f'{bits} bits, {dropped} dropped, want 0 <= dropped < bits <= 64')
  return _relu_sign(bits - dropped)


@functools.cache
def clamp_signs(width: int, limit: int) -> Circuit:
  """Whether client + server mod 2^width is in [0, limit), and whether it is at least that.

  The inputs are as in `relu_sign`. With z zeros at the end of `limit` the circuit has
  2 width - z - 2 ANDs.

  ValueError unless the limit is a positive number of the width.
  """
  if not 0 < limit < 1 << (width - 1):
    raise ValueError(f'a limit of {limit} in {width} bits, want a positive one')
  builder = Builder()
  *bits, sign = add(builder, builder.input('client', width), builder.input('server', width))
  large = greater_equal(builder, bits, constant(limit, width - 1))
  large = builder.and_(large, builder.not_(sign))
  return builder.build([builder.xor(builder.not_(sign), large), large])


@functools.cache
def _relu_sign(width: int) -> Circuit:
  builder = Builder()
  client = builder.input('client', width)
  server = builder.input('server', width)
  return builder.build([builder.not_(sum_sign(builder, client, server))])

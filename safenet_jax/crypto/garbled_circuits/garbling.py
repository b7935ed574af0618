"""Garbled circuits: half-gates, free XOR, point-and-permute, many at once.

The garbler encrypts a circuit, and the evaluator computes its outputs without seeing
the values on its wires. Each wire has two labels of 16 bytes, one for value 0 and one
for value 1, and the evaluator gets one of them. The two differ by delta, which is the
same for all wires. That makes XOR gates free. An AND gate costs two table rows of the
size of a label (half-gates, eprint 2014/756). The low bit of a label is its colour,
which tells the evaluator which rows to use and says nothing about the value
(point-and-permute). One circuit is garbled for a block of instances in one go.

    Garbler                                           Evaluator
      correlated OT with its delta  <-- choices ---     own labels
      garble(zero_labels)           --- GarbledBlock -->
      Encoding.labels(own bits)     --- labels ------->  evaluate(...)
      Encoding.decoding             --- if it may know the values -->

Whoever holds one label of each input wire sees uniform messages. A table row is
masked by the hash of a label that it does not have. A label, colour included, is
masked by the uniform label of value 0 if it is an input's, else by hashes. A block
carries a check that finds labels or tables of another block (`garbled_block`).

Security. H(x) = AES-XTS_K(x) ^ sigma(x) as in `hashing`, assumed circular
correlation robust with AES as an ideal cipher (eprint 2019/074, 2019/1168). Each
gate of each tile has its own public key, which serves at most 2^14 instances
of two operands: finding delta takes about 2^112 work. XTS tells instances and
operands apart by tweaks, which start again with every call to the cipher. So the
garbler hashes both labels of a wire under the same tweak, in two calls, and a tile
must never be split over two calls. (OpenSSL refuses more than 2^20 blocks in one.)
Delta is fresh for each session. A block is evaluated once and an input encoded once,
for two labels of one wire reveal delta.

Not constant time: lookups at secret indices, in tables of 256 rows of 128 bytes,
show in a shared cache. AES itself runs in hardware. Little-endian machines only.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np

from safenet_jax.crypto.garbled_circuits import (
  circuits,
  compiled_circuit,
  garbled_block,
  half_gates,
)
from safenet_jax.crypto.garbled_circuits.garbled_block import GarbledBlock
from safenet_jax.crypto.randomness import Randomness

_COLOUR = np.uint64(1)
_SEED_BYTES = 16


def fresh_delta(randomness: Randomness) -> np.ndarray:
  """The offset between the two labels of every wire: uint64 [2], uniform except its low bit, 1."""
  return randomness.words(2) | np.array([_COLOUR, 0], np.uint64)


class FreshLabels:
  """The labels of value 0 of an input's wires, expanded from a seed (AES-128 in counter mode).

  The seed is all that is kept of them: labels that are read again are the same.
  """

  def __init__(self, randomness: Randomness, width: int, block: int):
    """Draws the seed of `width` wires of `block` instances."""
    self.shape = width, 2 * block
    self._seed = algorithms.AES(randomness.bytes(_SEED_BYTES))

  def row(self, wire: int, words: slice) -> np.ndarray:
    """Some words of a wire's row, uint64."""
    size = 8 * (words.stop - words.start)
    # Labels are as long as blocks of AES, so that a label's number is its counter.
    counter = (wire * self.shape[1] + words.start) // 2
    stream = Cipher(self._seed, modes.CTR(counter.to_bytes(16, 'big'))).encryptor()
    labels = np.empty(size + 15, np.uint8)
    stream.update_into(np.zeros(size, np.uint8).data, labels.data)
    return labels[:size].view(np.uint64)

  def rows(self) -> np.ndarray:
    """All of them, uint64 [width, 2 block]."""
    width, words = self.shape
    return self.row(0, slice(0, width * words)).reshape(self.shape)


class Encoding:
  """The garbler's secrets of one block.

  Attributes:
    output_labels: uint64 [outputs, block, 2], the labels of colour 0; zero for
      constant outputs.
    decoding: uint8 [outputs, block / 8], packed: the values that the labels of colour 0
      stand for.
  """

  def __init__(
    self,
    circuit: circuits.Circuit,
    delta: np.ndarray,
    inputs: dict[str, FreshLabels],
    outputs: np.ndarray,
  ):
    """Takes fresh inputs, and the outputs' labels of value 0, uint64 [width, 2 block]."""
    self._select_delta = half_gates.selection_table(np.zeros(2, np.uint64), delta)
    self._inputs = inputs
    self.decoding = np.stack([half_gates.colours(zero) for zero in outputs])
    colourless = self._add_delta(outputs, self.decoding)
    self.output_labels = colourless.reshape(len(outputs), -1, 2)
    for values, output in zip(self.decoding, circuit.outputs):
      if output is True or (isinstance(output, circuits.Wire) and output.inverted):
        np.invert(values, out=values)

  @property
  def nbytes(self) -> int:
    """Memory of the labels; those of inputs are seeds."""
    return self.output_labels.nbytes

  def _add_delta(self, zeros: np.ndarray, bits: np.ndarray) -> np.ndarray:
    labels = np.empty_like(zeros)
    for label_row, zero, bit_row in zip(labels, zeros, bits):
      half_gates.select(self._select_delta, bit_row, label_row)
      np.bitwise_xor(label_row, zero, out=label_row)
    return labels

  def labels(self, name: str, bits: np.ndarray) -> np.ndarray:
    """The labels of an input's values, once only.

    Args:
      name: an input that was garbled with fresh labels. The evaluator has its labels
        of the other inputs already.
      bits: uint8 [width, block / 8], packed.

    Returns:
      uint64 [width, block, 2].

    Raises:
      ValueError: no fresh labels of that name, or they were given before.
    """
    if name not in self._inputs:
      raise ValueError(
        f'labels of {name!r}, want one of {sorted(self._inputs)}: a second label of a wire '
        'reveals delta'
      )
    width, words = self._inputs[name].shape
    _check(f'bits of {name!r}', bits, np.uint8, (width, words // 16))
    zeros = self._inputs.pop(name).rows()
    return self._add_delta(zeros, bits).reshape(width, -1, 2)


class Garbler:
  """Garbles one circuit for blocks of `block` instances, under one delta."""

  def __init__(
    self,
    circuit: circuits.Circuit,
    block: int,
    randomness: Randomness,
    delta: np.ndarray | None = None,
  ):
    """Allocates scratch for all blocks.

    Args:
      circuit: what to garble.
      block: instances, a multiple of 64, at most 2^14.
      randomness: where labels, permute bits and hash keys come from.
      delta: uint64 [2], low bit 1; fresh if None.
    """
    self.circuit = circuit
    self.block = block
    self._randomness = randomness
    if delta is None:
      delta = fresh_delta(randomness)
    _check('delta', delta, np.uint64, (2,))
    if not delta[0] & _COLOUR:
      raise ValueError(f'delta {delta} is even, want low bit 1')
    self.delta = delta.copy()
    program = compiled_circuit.compile_program(circuit)
    self._tiles = half_gates.Block(
      program, block, lambda size: half_gates.GarblerTile(program, size, self.delta)
    )

  def garble(
    self,
    zero_labels: Mapping[str, np.ndarray] | None = None,
    tables: np.ndarray | None = None,
  ) -> tuple[GarbledBlock, Encoding]:
    """Garbles a block; inputs not in `zero_labels` get fresh labels.

    Args:
      zero_labels: by input name the labels of value 0, uint64 [width, block, 2], of
        those inputs whose labels the evaluator has from correlated OT.
      tables: uint64 [ands, 2, block, 2], memory to write the message to, such as that
        of a block already sent: touching new memory takes time.

    Raises:
      ValueError: tables that are not contiguous, or labels of an unknown input.
    """
    shape = garbled_block.tables_shape(self.circuit, self.block)
    if tables is None:
      tables = np.empty(shape, np.uint64)
    _check('tables', tables, np.uint64, shape)
    if not tables.flags.c_contiguous:
      raise ValueError('tables are not C-contiguous')
    zero_labels = zero_labels or {}
    unknown = zero_labels.keys() - dict(self.circuit.inputs).keys()
    if unknown:
      raise ValueError(f'labels of {sorted(unknown)}, want inputs of {self.circuit.inputs}')
    given: dict[int, np.ndarray] = {}
    fresh: dict[int, tuple[FreshLabels, int]] = {}
    inputs = {}
    for name, wires in _wires(self.circuit):
      if name in zero_labels:
        given |= zip(wires, _rows(name, zero_labels[name], len(wires), self.block))
      else:
        inputs[name] = FreshLabels(self._randomness, len(wires), self.block)
        fresh |= {wire: (inputs[name], row) for row, wire in enumerate(wires)}

    def load(words: slice, wire: int) -> np.ndarray:
      if wire in given:
        return given[wire][words]
      # Drawn just before it is read, while it is in the cache.
      labels, row = fresh[wire]
      return labels.row(row, words)

    seed = self._randomness.bytes(garbled_block.SEED_BYTES)
    zeros = self._tiles.run(load, seed, tables.reshape(len(tables), 2, 2 * self.block))
    check = garbled_block.make_check(seed, self.circuit, zeros, self.delta)
    return GarbledBlock(seed, check, tables), Encoding(self.circuit, self.delta, inputs, zeros)


class Outputs(NamedTuple):
  """What the evaluator ends with; a constant output has label and colour 0."""

  labels: np.ndarray  # uint64 [outputs, block, 2]
  colours: np.ndarray  # uint8 [outputs, block / 8], packed


class Evaluator:
  """Evaluates one circuit on blocks of `block` instances."""

  def __init__(self, circuit: circuits.Circuit, block: int):
    self.circuit = circuit
    self.block = block
    program = compiled_circuit.compile_program(circuit)
    self._tiles = half_gates.Block(
      program, block, lambda size: half_gates.EvaluatorTile(program, size)
    )

  def evaluate(self, garbled: GarbledBlock, labels: Mapping[str, np.ndarray]) -> Outputs:
    """Evaluates a garbled block, once only.

    Args:
      garbled: a block of this circuit and size.
      labels: for every input uint64 [width, block, 2].

    Raises:
      ValueError: a shape is wrong, the block was evaluated before, or block and
        labels do not belong together (`garbled_block`).
    """
    if labels.keys() != dict(self.circuit.inputs).keys():
      raise ValueError(f'labels of {sorted(labels)}, want {self.circuit.inputs}')
    shape = garbled_block.tables_shape(self.circuit, self.block)
    _check('tables', garbled.tables, np.uint64, shape)
    rows = [
      row
      for name, wires in _wires(self.circuit)
      for row in _rows(name, labels[name], len(wires), self.block)
    ]
    if garbled.used:
      raise ValueError('garbled block was evaluated before')
    garbled.used = True

    tables = garbled.tables.reshape(len(garbled.tables), 2, 2 * self.block)
    outputs = self._tiles.run(lambda words, wire: rows[wire][words], garbled.seed, tables)
    garbled_block.verify(garbled, self.circuit, outputs)
    return Outputs(
      outputs.reshape(len(outputs), self.block, 2),
      np.stack([half_gates.colours(row) for row in outputs]),
    )


def garble_many(
  circuit: circuits.Circuit,
  instances: int,
  randomness: Randomness,
  delta: np.ndarray | None = None,
  zero_labels: Callable[[slice], Mapping[str, np.ndarray]] | None = None,
) -> Iterator[tuple[slice, GarbledBlock, Encoding]]:
  """Garbles any multiple of 64 instances block by block, in constant memory.

  Yields the instances of each block with its results, under one delta.
  `zero_labels` is asked for those of each block's instances.

  Raises:
    ValueError: another number of instances.
  """
  if instances % 64 or instances < 64:
    raise ValueError(f'{instances} instances, want a multiple of 64')
  garbler = None
  for start in range(0, instances, half_gates.MAX_BLOCK):
    span = slice(start, min(start + half_gates.MAX_BLOCK, instances))
    block = span.stop - span.start
    if garbler is None or garbler.block != block:
      garbler = Garbler(circuit, block, randomness, delta)
      delta = garbler.delta
    yield span, *garbler.garble(zero_labels(span) if zero_labels else None)


def _wires(circuit: circuits.Circuit) -> Iterator[tuple[str, range]]:
  first = 0
  for name, width in circuit.inputs:
    yield name, range(first, first + width)
    first += width


def _rows(name: str, labels: np.ndarray, width: int, block: int) -> np.ndarray:
  _check(f'labels of {name!r}', labels, np.uint64, (width, block, 2))
  return labels.reshape(width, 2 * block)


def _check(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
  if array.dtype != dtype or array.shape != shape:
    raise ValueError(f'{name}: {array.dtype} {array.shape}, want {np.dtype(dtype).name} {shape}')

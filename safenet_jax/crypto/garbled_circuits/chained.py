"""Circuits one after another: the labels of one's outputs are those of the next one's inputs.

    garbler                                            evaluator
      Garbler.garble(zero labels)  --- GarbledBlock -->  Evaluator.evaluate(labels)
      zero labels of the outputs                         labels of the outputs

Hash, keys and what may be used only once are as in `garbling`. No value is decoded here.

A bit that the garbler alone knows needs no label of its own and no message:

- b XNOR w for its bit w: the evaluator goes on with the label of b. The garbler takes as label of
  value 0 the one of b, or where w is 0 that label xor delta (`inverted`).
- the bit w itself: both take the label 0 for it, which is public. So its label of value 0 is
  w delta (`known`).

The evaluator holds the same labels whatever w is. A table row is masked by the hash of a label xor
delta, for labels that may be public: the hash is correlation robust for labels of anybody's choice
(eprint 2019/074). A gate's instances and operands have tweaks of their own, so that labels may
repeat.

Any number of instances up to 2^14 runs together. They are padded to a multiple of 64; the padding
is not sent.
"""

from collections.abc import Callable

import numpy as np

from safenet_jax.crypto.garbled_circuits import (
  circuits,
  compiled_circuit,
  garbled_block,
  half_gates,
)
from safenet_jax.crypto.garbled_circuits.garbled_block import GarbledBlock
from safenet_jax.crypto.randomness import Randomness

_MULTIPLE = 64


def inverted(zeros: np.ndarray, bits: np.ndarray, delta: np.ndarray) -> np.ndarray:
  """Labels of value 0 of (wire XNOR bit): labels uint64 [..., 2], bits of their shape before."""
  return zeros ^ (bits == 0)[..., None] * delta


def known(bits: np.ndarray, delta: np.ndarray) -> np.ndarray:
  """Labels of value 0 of bits that the garbler knows; the evaluator's labels of them are 0."""
  return bits.astype(np.uint64)[..., None] * delta


class _Party:
  """One party's scratch for a circuit, by number of instances."""

  def __init__(
    self,
    circuit: circuits.Circuit,
    make_tile: Callable[[compiled_circuit.Program, int], half_gates.Tile],
  ):
    self.circuit = circuit
    self._make_tile = make_tile
    self._program = compiled_circuit.compile_program(circuit)
    self._blocks: dict[int, half_gates.Block] = {}

  def _run(self, labels: np.ndarray, seed: bytes, tables: np.ndarray) -> np.ndarray:
    """Output labels [outputs, n, 2] of input labels [width, n, 2]; tables are of padded size."""
    width, instances, _ = labels.shape
    size = tables.shape[2]
    if size not in self._blocks:
      self._blocks[size] = half_gates.Block(
        self._program, size, lambda tile: self._make_tile(self._program, tile)
      )
    if size > instances:
      labels = np.pad(labels, ((0, 0), (0, size - instances), (0, 0)))
    rows = labels.reshape(width, 2 * size)
    outputs = self._blocks[size].run(
      lambda words, wire: rows[wire][words], seed, tables.reshape(len(tables), 2, 2 * size)
    )
    return outputs.reshape(-1, size, 2)[:, :instances]

  def _check(self, labels: np.ndarray) -> int:
    """The padded number of instances; ValueError for labels of another type or shape."""
    width = self.circuit.input_width
    most = half_gates.MAX_BLOCK
    good = labels.dtype == np.uint64 and labels.ndim == 3 and labels.shape[::2] == (width, 2)
    if not good or not 1 <= labels.shape[1] <= most:
      raise ValueError(
        f'labels {labels.dtype} {labels.shape}, want uint64 [{width}, 1 to {most}, 2]'
      )
    return -(-labels.shape[1] // _MULTIPLE) * _MULTIPLE


class Garbler(_Party):
  """Garbles one circuit, for any instances, under one delta."""

  def __init__(self, circuit: circuits.Circuit, randomness: Randomness, delta: np.ndarray):
    super().__init__(
      circuit, lambda program, size: half_gates.GarblerTile(program, size, self._delta)
    )
    self._randomness, self._delta = randomness, delta.copy()

  def garble(self, zeros: np.ndarray) -> tuple[GarbledBlock, np.ndarray]:
    """The message, and the outputs' labels of value 0, uint64 [outputs, n, 2].

    Args:
      zeros: the inputs' labels of value 0, uint64 [width, n, 2].

    Raises:
      ValueError: they have another type or shape.
    """
    size = self._check(zeros)
    seed = self._randomness.bytes(garbled_block.SEED_BYTES)
    tables = np.empty(garbled_block.tables_shape(self.circuit, size), np.uint64)
    outputs = self._run(zeros, seed, tables)
    check = garbled_block.make_check(seed, self.circuit, _padded(outputs, size), self._delta)
    outputs = outputs.copy()
    for row, bit in zip(outputs, self.circuit.outputs):
      # The label of a constant is 0: the same as for `known`.
      if bit is True or (isinstance(bit, circuits.Wire) and bit.inverted):
        row ^= self._delta
    return GarbledBlock(seed, check, tables[:, :, : zeros.shape[1]]), outputs


class Evaluator(_Party):
  """Evaluates one circuit on any instances."""

  def __init__(self, circuit: circuits.Circuit):
    super().__init__(circuit, half_gates.EvaluatorTile)

  def evaluate(self, garbled: GarbledBlock, labels: np.ndarray) -> np.ndarray:
    """The outputs' labels, uint64 [outputs, n, 2], once only.

    Args:
      garbled: of this circuit and as many instances.
      labels: of the inputs, uint64 [width, n, 2].

    Raises:
      ValueError: a shape is wrong, the block was evaluated before, or block and labels do not
        belong together.
    """
    size = self._check(labels)
    instances = labels.shape[1]
    if garbled.tables.shape != garbled_block.tables_shape(self.circuit, instances):
      raise ValueError(f'tables {garbled.tables.shape} of {instances} instances')
    if garbled.used:
      raise ValueError('garbled block was evaluated before')
    garbled.used = True
    tables = garbled.tables
    if size > instances:
      tables = np.pad(tables, ((0, 0), (0, 0), (0, size - instances), (0, 0)))
    outputs = self._run(labels, garbled.seed, tables)
    garbled_block.verify(garbled, self.circuit, _padded(outputs, size))
    return outputs


def _padded(outputs: np.ndarray, size: int) -> np.ndarray:
  """Outputs as the check takes them, [outputs, 2 size], with zeros for the padding."""
  missing = size - outputs.shape[1]
  return np.pad(outputs, ((0, 0), (0, missing), (0, 0))).reshape(len(outputs), -1)

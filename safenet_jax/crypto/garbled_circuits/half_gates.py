"""Half-gates over one tile of instances: how garbler and evaluator run a compiled circuit.

A circuit is garbled for many instances (inputs) at once, and a tile is some of them.
`compiled_circuit` turns the circuit into a program on slots. Here, a slot is a row of
one 16-byte label for every instance of the tile. The garbler's rows hold the labels
of value 0, the evaluator's the labels of the actual values. In both, the row of a XOR
gate is the XOR of its operands' rows. So one loop serves both parties, and only AND
gates differ.

The two labels of a wire differ by delta. A label's colour is its low bit. The low bit
of delta is 1, so that the two labels of a wire have different colours.
"""

import abc
from collections.abc import Callable, Sequence
import functools
from typing import Any

from cryptography.hazmat.primitives.ciphers import algorithms, Cipher, modes
import numpy as np

from safenet_jax.crypto import hashing
from safenet_jax.crypto.garbled_circuits import compiled_circuit
from safenet_jax.crypto.garbled_circuits.compiled_circuit import AND, COPY, XOR

MAX_BLOCK = hashing.MAX_ROWS
# Instances that run together: as many as have their scratch fit in a second-level cache.
TILE = 1 << 13

_ONE = np.array(1, np.uint64)
_ZEROS = np.zeros(2, np.uint64)

# Writes the ciphertext of its first argument to its second.
Encrypt = Callable[[Any, Any], int]
# The row of an input wire, which is only read.
Load = Callable[[int], np.ndarray]


def encryptor(key: bytes) -> Encrypt:
  """AES-128-XTS under a 32-byte key; every call restarts the tweaks at 0."""
  return Cipher(algorithms.AES(key), modes.XTS(bytes(16))).encryptor().update_into


def aligned(shape: tuple[int, ...], dtype: type = np.uint64) -> np.ndarray:
  """An empty array that starts on a cache line."""
  size = int(np.prod(shape)) * np.dtype(dtype).itemsize
  memory = np.empty(size + 64, np.uint8)
  start = -memory.ctypes.data % 64
  return memory[start : start + size].view(dtype).reshape(shape)


def selection_table(offset: np.ndarray, if_one: np.ndarray) -> np.ndarray:
  """For every byte, the label offset ^ bit * if_one of each of its 8 bits: uint64 [256, 16]."""
  bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder='little')
  table = aligned((256, 16))
  table[:] = (offset ^ bits[:, :, None] * if_one).reshape(256, 16)
  return table


def select(table: np.ndarray, bits: np.ndarray, out: np.ndarray) -> None:
  """Sets labels, uint64 [2 n], from packed bits, uint8 [n / 8], by a `selection_table`."""
  # No index is out of range; 'clip' spares the copy that 'raise' makes.
  table.take(bits.astype(np.intp), axis=0, out=out.reshape(-1, 16), mode='clip')


def colours(labels: np.ndarray) -> np.ndarray:
  """The low bits of labels, uint64 [2 n], packed: uint8 [n / 8]."""
  low_bits = labels.view(np.uint8)[::16].copy()
  low_bits &= 1
  return np.packbits(low_bits, bitorder='little')


class Tile(abc.ABC):
  """Scratch of one party for `size` instances, a multiple of 64."""

  def __init__(self, program: compiled_circuit.Program, size: int):
    self._steps = program.steps
    self._operands = aligned((2, 2 * size))
    # `run` makes the caller's own rows the inputs' slots, which spares a copy of each.
    inputs = [self._operands[0]] * program.inputs
    self._slots = [*inputs, *aligned((program.slots, 2 * size)), *self._operands]
    self._hashed, self._hashed_buffer = self._cipher_output()
    self._other, self._other_buffer = self._cipher_output()
    self._masks = aligned((2, 2 * size))
    self._select_ones = selection_table(_ZEROS, ~_ZEROS)

  def _cipher_output(self) -> tuple[np.ndarray, np.ndarray]:
    # `update_into` asks for up to a block more than it writes.
    size = self._operands.nbytes
    buffer = aligned((size + 64,), np.uint8)[: size + 15]
    return buffer[:size].view(np.uint64).reshape(self._operands.shape), buffer

  def run(self, load: Load, keys: Sequence[bytes], tables: np.ndarray) -> list[np.ndarray]:
    """Runs the program; returns the rows of all slots, valid until the next run.

    Args:
      load: called once for every input wire with its number.
      keys: for every AND 32 bytes.
      tables: for every AND its two ciphertexts, uint64 [ands, 2, 2 size].
    """
    slots = self._slots.copy()
    # All ciphers are keyed here, together: the passes below push OpenSSL's code out of the
    # cache.
    gates = zip([encryptor(key) for key in keys], tables)
    for op, out, left, right in self._steps:
      if op == XOR:
        np.bitwise_xor(slots[left], slots[right], out=slots[out])
      elif op == AND:
        encrypt, table = next(gates)
        self._and(encrypt, table, (left, right), slots[out])
      elif op == COPY:
        slots[out][...] = slots[left]
      else:
        slots[out] = load(left)
    return slots

  @abc.abstractmethod
  def _and(
    self, encrypt: Encrypt, table: np.ndarray, inverted: tuple[int, int], out: np.ndarray
  ) -> None:
    """One AND of the operands, which it may destroy."""

  # A gate's time goes to passes over rows in the second-level cache. So sums are taken
  # in place, which spares a third of a pass, and over two rows at once.

  def _encrypt_operands(self, encrypt: Encrypt) -> None:
    encrypt(_octets(self._operands), self._hashed_buffer)

  def _set_masks(self) -> None:
    """Sets each label of `_masks` to all ones where its operand's colour is 1."""
    select(self._select_ones, colours(self._operands.reshape(-1)), self._masks)

  def _add_hashes(self, rows: np.ndarray, out: np.ndarray) -> None:
    """out = H(LEFT) ^ H(RIGHT) ^ both of `rows`.

    The ciphertexts, one part of each hash, are in `_hashed`; sigma, the other part, is
    taken here. Destroys ciphertexts and operands.
    """
    total, (left, right) = self._hashed, self._operands
    np.bitwise_xor(left, right, out=left)
    np.left_shift(left, _ONE, out=right)
    np.right_shift(left, _ONE, out=left)
    np.bitwise_xor(total, self._operands, out=total)
    np.bitwise_xor(total, rows, out=total)
    np.bitwise_xor(total[0], total[1], out=out)


class GarblerTile(Tile):
  """The garbler's tile: rows are labels of value 0.

  Let A and B be the operands' labels of value 0, a and b their colours, and H the hash.
  An AND has two table rows TG and TE, and its output's label of value 0 is out:

    TG = H(A) ^ H(A ^ delta) ^ b delta
    TE = H(B) ^ H(B ^ delta) ^ A
    out = H(A) ^ H(B) ^ a TG ^ b (TE ^ A)
  """

  def __init__(self, program: compiled_circuit.Program, size: int, delta: np.ndarray):
    super().__init__(program, size)
    # Whole rows: numpy takes twice the time where it has to repeat a short one.
    self._delta = _repeated(delta, size)
    # sigma is linear: sigma(A) ^ sigma(A ^ delta) is the same for every label.
    self._delta_hashed = _repeated(hashing.sigma(delta), size)

  def _and(self, encrypt, table, inverted, out) -> None:
    for labels, invert in zip(self._operands, inverted):
      if invert:
        np.bitwise_xor(labels, self._delta, out=labels)
    np.bitwise_xor(self._operands, self._delta, out=self._other)
    self._encrypt_operands(encrypt)
    encrypt(_octets(self._other), self._other_buffer)
    np.bitwise_xor(self._other, self._hashed, out=self._other)
    np.bitwise_xor(self._other, self._delta_hashed, out=self._other)
    self._set_masks()

    (generator, evaluator), (a, b) = self._other, self._masks
    np.bitwise_xor(evaluator, self._operands[0], out=table[1])
    np.bitwise_and(evaluator, b, out=evaluator)
    np.bitwise_and(b, self._delta, out=b)
    np.bitwise_xor(generator, b, out=generator)
    table[0] = generator
    np.bitwise_and(generator, a, out=generator)
    self._add_hashes(self._other, out)


class EvaluatorTile(Tile):
  """The evaluator's tile: rows are the labels of the actual values.

  Let A and B be the operands' labels that the evaluator has, a and b their colours, and
  TG and TE the gate's table rows (`GarblerTile`). The label of the AND's value is

    out = H(A) ^ H(B) ^ a TG ^ b (TE ^ A)

  The evaluator does nothing for an inversion: that changes only which value a label
  stands for, and this is the garbler's to know.
  """

  def _and(self, encrypt, table, inverted, out) -> None:
    self._encrypt_operands(encrypt)
    self._set_masks()
    a, b = self._masks
    np.bitwise_and(a, table[0], out=a)
    np.bitwise_xor(table[1], self._operands[0], out=self._other[1])
    np.bitwise_and(b, self._other[1], out=b)
    self._add_hashes(self._masks, out)


def _octets(rows: np.ndarray) -> np.ndarray:
  return rows.reshape(-1).view(np.uint8)


def _repeated(label: np.ndarray, size: int) -> np.ndarray:
  row = aligned((2 * size,))
  row.reshape(-1, 2)[:] = label
  return row


class Block:
  """A block of instances, tile by tile in the same scratch."""

  def __init__(
    self, program: compiled_circuit.Program, block: int, make_tile: Callable[[int], Tile]
  ):
    if block % 64 or not 64 <= block <= MAX_BLOCK:
      raise ValueError(f'block of {block} instances, want a multiple of 64 up to {MAX_BLOCK}')
    starts = range(0, block, TILE)
    sizes = [min(TILE, block - start) for start in starts]
    tiles = {size: make_tile(size) for size in set(sizes)}
    self._outputs = program.outputs
    self._block = block
    self._parts = [
      (tiles[size], slice(2 * start, 2 * (start + size))) for start, size in zip(starts, sizes)
    ]

  def run(
    self, load: Callable[[slice, int], np.ndarray], seed: bytes, tables: np.ndarray
  ) -> np.ndarray:
    """Runs all tiles.

    Args:
      load: as for `Tile.run`, but its first argument says which words of the block's row
        are wanted.
      seed: 16 bytes; every gate of every tile has its own key from it.
      tables: uint64 [ands, 2, 2 block].

    Returns:
      uint64 [outputs, 2 block], zero for constant outputs.
    """
    labels = np.zeros((len(self._outputs), 2 * self._block), np.uint64)
    keys = hashing.expand_keys(seed)
    for tile, words in self._parts:
      slots = tile.run(
        functools.partial(load, words),
        [next(keys) for _ in tables],
        tables[:, :, words],
      )
      for row, output in zip(labels, self._outputs):
        if not isinstance(output, bool):
          row[words] = slots[output.number]
    return labels

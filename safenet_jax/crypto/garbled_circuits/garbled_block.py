"""A block of garbled instances as it travels, and the check that it carries.

The check finds tables or labels that belong to another block, batch, circuit or
delta, or are in another order. It works on the parity of the outputs: the XOR of all
output labels of a block. XOR gates are free, so the parity has two labels as any wire
has. The garbler sends the hashes of both, in the order of their colours. If any gate
went wrong, the evaluator's parity label has neither hash.

What the evaluator sees is the usual decoding of an output wire (eprint 2014/756)
without the value: one hash that it can compute, and one of a label that it does
not have. The hash is SHA-256 of seed and label, a random oracle as for the base
transfers.

This finds mix-ups between semi-honest parties. It is no authentication.
"""

import dataclasses

import numpy as np

from safenet_jax.crypto import messages
from safenet_jax.crypto.garbled_circuits import circuits

SEED_BYTES = 16

CHECK_BYTES = 2 * messages.BYTES


def tables_shape(circuit: circuits.Circuit, block: int) -> tuple[int, int, int, int]:
  """Shape of a block's tables: two rows of two words for each AND and instance."""
  return circuit.and_count, 2, block, 2


@dataclasses.dataclass
class GarbledBlock:
  """The garbler's message.

  Attributes:
    seed: of the hash keys.
    check: the hashes of the parity's labels of colour 0 and 1, 16 bytes each.
    tables: uint64 [ands, 2, block, 2].
  """

  seed: bytes
  check: bytes
  tables: np.ndarray
  used: bool = dataclasses.field(default=False, init=False)

  @property
  def block(self) -> int:
    """Instances, padding included."""
    return self.tables.shape[2]

  @property
  def nbytes(self) -> int:
    """The bytes to send."""
    return SEED_BYTES + CHECK_BYTES + self.tables.nbytes


def make_check(
  seed: bytes, circuit: circuits.Circuit, outputs: np.ndarray, delta: np.ndarray
) -> bytes:
  """The garbler's check, from output labels of value 0: uint64 [outputs, 2 block]."""
  zero = _parity(circuit, outputs)
  zero = zero ^ delta * (zero[0] & np.uint64(1))
  return _hash(seed, zero) + _hash(seed, zero ^ delta)


def verify(garbled: GarbledBlock, circuit: circuits.Circuit, outputs: np.ndarray) -> None:
  """Raises ValueError if the evaluator's output labels are not the block's."""
  label = _parity(circuit, outputs)
  start = messages.BYTES * (int(label[0]) & 1)
  if _hash(garbled.seed, label) != garbled.check[start : start + messages.BYTES]:
    raise ValueError(
      'labels do not open the garbled block, want those of its own inputs: block or labels '
      'are of another batch, or their order is wrong'
    )


def _parity(circuit: circuits.Circuit, outputs: np.ndarray) -> np.ndarray:
  """The XOR of all labels of all output wires, each wire once: uint64 [2]."""
  wires = {
    bit.number: row for bit, row in zip(circuit.outputs, outputs) if isinstance(bit, circuits.Wire)
  }
  # Long rows first: numpy is slow to add two words at a time.
  total = np.zeros(outputs.shape[1] // 64, np.uint64)
  for row in wires.values():
    total ^= np.bitwise_xor.reduce(row.reshape(64, -1))
  return np.bitwise_xor.reduce(total.reshape(-1, 2))


def _hash(seed: bytes, label: np.ndarray) -> bytes:
  return messages.identifier(b'parity', seed, label.tobytes())

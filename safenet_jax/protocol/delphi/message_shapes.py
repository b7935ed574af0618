"""What both parties' offline phases share: tags, and the shapes of messages."""

from collections.abc import Iterator
import math

import numpy as np

from safenet_jax.crypto import hashing, messages
from safenet_jax.crypto.garbled_circuits import garbled_block
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution
from safenet_jax.protocol.layers.blocks import Block
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure

ID_BYTES = 16
# Words of a message of correlated OT per 128 transfers, with SoftSpoken's k = 4.
_ROWS = 32
# What a channel's queue holds: two parties that both send more before they receive would
# wait for each other. It also limits what is held of images that are not ready yet.
_LOT_BYTES = 1 << 28
_TRANSFER_BYTES = 16 + 32 + 16  # labels of both parties' bits, and an AND's table


class Tag:
  """Names one use of a session's keys: nonce, number of the image, and place."""

  def __init__(self, nonce: bytes, number: int):
    self._prefix = nonce + number.to_bytes(8, 'big')

  def __call__(self, place: str) -> bytes:
    return self._prefix + place.encode()


def lot(structure: Structure, output: str, context: bfv.Context) -> int:
  """How many images at most go in the same flights, the same for both parties.

  Args:
    structure: of the network.
    output: what the inferences are for, of `structure.OUTPUTS`.
    context: of its linear layers.
  """
  size = structure.transfers(output) * _TRANSFER_BYTES + sum(
    encrypted_convolution.upload_size(context, layer)
    + encrypted_convolution.reply_size(context, layer)
    for layer in structure.linear.values()
  )
  return max(1, _LOT_BYTES // max(1, size))


def lots(structure: Structure, output: str, context: bfv.Context, count: int) -> Iterator[int]:
  """How many of `count` images go in the same flights, lot by lot."""
  most = lot(structure, output, context)
  for first in range(0, count, most):
    yield min(most, count - first)


def tables_parts(layer: ActivationStructure, block: Block) -> list[tuple]:
  """Seed, check and tables of a garbled block.

  Then the key of its select words; or labels of masks, and what output labels mean.
  """
  shape = garbled_block.tables_shape(layer.circuit, block.size)
  sizes = garbled_block.SEED_BYTES, garbled_block.CHECK_BYTES
  parts: list[tuple] = [*((bytes, (size,)) for size in sizes), (np.uint64, shape)]
  if layer.form.maximum:
    bits = layer.form.select_bits
    return [*parts, (np.uint64, (bits, block.size, 2)), (np.uint8, (bits, block.size // 8))]
  return [*parts, (bytes, (hashing.KEY_BYTES,))]


def labels_message(transfers: int) -> list[tuple]:
  """The client's choices of labels, for so many label transfers."""
  return [(bytes, (messages.BYTES,)), (np.uint64, (_ROWS, -(-transfers // 128) * 2))]


def choice_parts(structure: Structure) -> list[int]:
  """Transfers that the server chooses in: per layer its colours, then each output's wrap bits."""
  parts = []
  for layer in structure.activations:
    if layer.selected:
      parts.append(layer.selected)
    parts += [math.prod(shape) for shape, _ in layer.outputs(structure.bits)]
  return parts


def _key_rows(count: int) -> int:
  return -(-count // hashing.MAX_ROWS)


def choice_message(parts: list[int]) -> list[tuple]:
  """The server's choices, and the hash keys of all parts."""
  keys = sum(_key_rows(count) for count in parts)
  return [
    (bytes, (messages.BYTES,)),
    (np.uint64, (_ROWS, -(-sum(parts) // 128) * 2)),
    (np.uint8, (keys, hashing.KEY_BYTES)),
  ]


def split_choices(
  parts: list[int], labels: np.ndarray, keys: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Labels and hash keys of every part."""
  row = key = 0
  for count in parts:
    rows = _key_rows(count)
    yield labels[row : row + count], keys[key : key + rows]
    row, key = row + count, key + rows

"""What both parties' offline phases share: tags, and the shapes of messages."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import math
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto import hashing, messages
from safenet_jax.crypto.garbled_circuits import garbled_block
from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution
from safenet_jax.protocol.layers.blocks import Block
from safenet_jax.protocol.layers.structure import ActivationStructure, Structure

ID_BYTES = 16
# Rows of a message of correlated OT (oblivious transfer): one for each group of 4 bits of the
# sender's secret of 128 bits, with SoftSpoken.
_ROWS = 32
# What a channel's queue of unsent bytes holds. Two parties that both send more than that before
# they receive would wait for each other. This also limits the memory that images take that are
# not prepared to the end yet.
_LOT_BYTES = 1 << 28
# A label of the client's bit, an AND's table, and a label of the server's bit.
_TRANSFER_BYTES = 16 + 32 + 16
# The bytes of replies that a client leaves unread while it encrypts, half of what a queue holds.
UNREAD_BYTES = 1 << 27
# Transfers of a stage, both ways together: 200 MiB of labels. The networks of 32 x 32 have one.
_STAGE_TRANSFERS = 12 << 20


class Tag:
  """Names one use of a session's keys: by its nonce, the number of the image, and the place.

  The place says which message of the image's offline phase it is.
  """

  def __init__(self, nonce: bytes, number: int):
    self.nonce, self.number = nonce, number
    self._prefix = nonce + number.to_bytes(8, 'big')

  def __call__(self, place: str) -> bytes:
    return self._prefix + place.encode()

  def of_stage(self, stage: int) -> Callable[[str], bytes]:
    """The tags of the messages of a stage."""
    return (lambda place: self(f'{place} {stage}')) if stage else self

  def of_layer(self, name: str) -> Callable[[str], bytes]:
    """The tags of the messages of a layer that is made ready online."""
    return lambda place: self(f'{place} {name}')


class Stage(NamedTuple):
  """Neighbouring activation layers that are prepared together, after all linear layers.

  structure: of the network with these activation layers alone; offsets count from the first.
  output: what is prepared for: the logits, except in the last stage of an inference for a class.
  """

  structure: Structure
  output: str


def stages(structure: Structure, output: str) -> tuple[Stage, ...]:
  """The stages of an image's offline phase.

  What a stage's transfers take in memory is bounded, but for a single large layer, and both
  parties can go on behind a stage when their connection was lost (`delphi.progress`).
  """
  groups: list[list[ActivationStructure]] = [[]]
  size = 0
  for layer in (each.prepared for each in structure.activations):
    more = layer.transfers + layer.choices
    if groups[-1] and size + more > _STAGE_TRANSFERS:
      groups.append([])
      size = 0
    size += more
    groups[-1].append(layer)
  found = []
  for group in groups:
    offset, activations = 0, []
    for layer in group:
      activations.append(dataclasses.replace(layer, offset=offset))
      offset += layer.transfers
    part = dataclasses.replace(structure, activations=tuple(activations), comparisons={})
    found.append(Stage(part, 'logits'))
  comparisons = {
    name: dataclasses.replace(comparison, offset=offset)
    for name, comparison in structure.comparisons.items()
  }
  last = dataclasses.replace(found[-1].structure, comparisons=comparisons)
  return (*found[:-1], Stage(last, output))


def online_stage(structure: Structure, layer: ActivationStructure) -> Stage | None:
  """The stage in which a layer is made ready online; None where nothing of it is."""
  if layer.made_online is None:
    return None
  part = dataclasses.replace(layer.made_online, offset=0)
  return Stage(dataclasses.replace(structure, activations=(part,), comparisons={}), 'logits')


def most_transfers(structure: Structure, output: str, *, chosen: bool = False) -> int:
  """Label transfers of the largest stage; with `chosen` also those in which the server chooses."""
  found = [online_stage(structure, layer) for layer in structure.activations]
  return max(
    stage.structure.transfers(stage.output) + (stage.structure.choices if chosen else 0)
    for stage in (*stages(structure, output), *filter(None, found))
  )


def lot(structure: Structure, output: str, contexts: Mapping[int, bfv.Context]) -> int:
  """How many images at most are prepared together, with their messages in the same flights.

  Both parties compute the same number, from public sizes.

  Args:
    structure: of the network.
    output: what the inferences are for, of `structure.OUTPUTS`.
    contexts: of the session, from `keys.contexts`.
  """
  size = structure.transfers(output) * _TRANSFER_BYTES
  for name, layer in structure.linear.items():
    context = contexts[structure.plain_modulus(name)]
    size += encrypted_convolution.upload_size(context, layer, drawn=name in structure.drawn)
    size += encrypted_convolution.reply_size(context, layer)
  return max(1, _LOT_BYTES // max(1, size))


def lots(
  structure: Structure, output: str, contexts: Mapping[int, bfv.Context], count: int
) -> Iterator[int]:
  """Cuts `count` images into lots that are prepared together; gives the size of each."""
  most = lot(structure, output, contexts)
  for first in range(0, count, most):
    yield min(most, count - first)


def tables_parts(layer: ActivationStructure, block: Block) -> list[tuple]:
  """The parts of the message of a garbled block: seed, check and tables.

  Sign tests have the keys of the select words behind them (`relu`). Max pools have the labels
  of the masks M, and the values that output labels stand for (`max_pool`).
  """
  shape = garbled_block.tables_shape(layer.circuit, block.size)
  sizes = garbled_block.SEED_BYTES, garbled_block.CHECK_BYTES
  parts: list[tuple] = [*((bytes, (size,)) for size in sizes), (np.uint64, shape)]
  if layer.form.maximum:
    bits = len(layer.circuit.outputs)
    return [*parts, (np.uint64, (bits, block.size, 2)), (np.uint8, (bits, block.size // 8))]
  return [*parts, (bytes, (hashing.KEY_BYTES * layer.words,))]


def labels_message(transfers: int) -> list[tuple]:
  """The parts of the message with the client's choices of labels, for so many transfers."""
  return [(bytes, (messages.BYTES,)), (np.uint64, (_ROWS, -(-transfers // 128) * 2))]


def choice_parts(structure: Structure) -> list[int]:
  """Sizes of the parts of the transfers in which the server chooses, in their order.

  Each layer has a part for its sign tests, whose choices are the bits p (`relu`), and then
  one for each output, whose choices are the bits beta (`truncation`).
  """
  parts = []
  for layer in structure.activations:
    if layer.selected:
      parts.append(layer.selected)
    parts += [math.prod(shape) for shape, _ in layer.outputs]
  return parts


def _key_rows(count: int) -> int:
  return -(-count // hashing.MAX_ROWS)


def choice_message(parts: list[int]) -> list[tuple]:
  """The parts of the message with the server's choices, and the hash keys of all of them."""
  keys = sum(_key_rows(count) for count in parts)
  return [
    (bytes, (messages.BYTES,)),
    (np.uint64, (_ROWS, -(-sum(parts) // 128) * 2)),
    (np.uint8, (keys, hashing.KEY_BYTES)),
  ]


def split_choices(
  parts: list[int], labels: np.ndarray, keys: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Cuts the labels and the hash keys of all transfers into those of each part."""
  row = key = 0
  for count in parts:
    rows = _key_rows(count)
    yield labels[row : row + count], keys[key : key + rows]
    row, key = row + count, key + rows

"""Garbles the tournament of `argmax` for one list of words, and evaluates it.

    evaluator                                         garbler
      correlated OT with its delta  <-- choices ---     own labels
      its labels of c                                   garble(zero_labels)
                                    --- tables, decoding of the index ---->
                                    --- labels of s ------->  evaluate(...)

Here c and s are the client's and the server's shares of the words; the client is the
evaluator. The labels of a round's results are the labels of the next round's inputs,
and all rounds are one message. A word without a neighbour wins its round, and gets the
index bit 0. As a wire this bit is x xor x, whose labels under free XOR are 0 and delta.
The evaluator holds label 0, which both parties know, so that there is nothing to send.

What the evaluator sees: tables, masked by hashes of labels that it does not have,
and one label of every wire. That label is uniform, and its colour says nothing,
because the garbler's colour bits are uniform. Only for the index does the evaluator
get the values that colours stand for, so that sums and winners stay hidden. Hash, keys
and what may be used only once are as in `garbling`; every round has hash keys of its
own. Where words are checked, their bit goes with the index and nothing else does: if a word
is not in range, the index bits are 0 in the circuit itself.
"""

from collections.abc import Callable, Mapping
import functools

import numpy as np

from safenet_jax.crypto import messages
from safenet_jax.crypto.garbled_circuits import (
  argmax,
  circuits,
  compiled_circuit,
  garbled_block,
  garbling,
  half_gates,
)
from safenet_jax.crypto.garbled_circuits.argmax import Stage, Tournament
from safenet_jax.crypto.garbled_circuits.garbled_block import GarbledBlock
from safenet_jax.crypto.randomness import Randomness


def tables_shape(form: Tournament) -> tuple[int, int, int, int]:
  """Shape of a tournament's tables, in order of stage, then gate, then instance."""
  return argmax.and_count(form), 2, 1, 2


class _Tiles:
  """One party's scratch for every stage."""

  def __init__(self, form: Tournament, tile: Callable[..., half_gates.Tile]):
    self._blocks = []
    for stage in argmax.stages(form):
      program = compiled_circuit.compile_program(stage.circuit)
      self._blocks.append(half_gates.Block(program, stage.size, functools.partial(tile, program)))

  def run(
    self, stage: Stage, left: np.ndarray, right: np.ndarray, seed: bytes, tables: np.ndarray
  ) -> np.ndarray:
    """A stage's output labels, uint64 [outputs, size, 2], zero for padding.

    Args:
      stage: to run.
      left, right: labels [width, instances, 2].
      seed: of all stages.
      tables: [ands, 2, size, 2]; a garbler writes them, an evaluator reads them.
    """
    words = np.zeros((2, len(left), stage.size, 2), np.uint64)
    words[0, :, : stage.instances], words[1, :, : stage.instances] = left, right
    rows = words.reshape(-1, 2 * stage.size)
    outputs = (
      self._blocks[stage.number]
      .run(
        lambda part, wire: rows[wire][part],
        messages.identifier(b'stage', seed, bytes([stage.number])),
        tables.reshape(-1, 2, 2 * stage.size),
      )
      .reshape(-1, stage.size, 2)
    )
    outputs[:, stage.instances :] = 0
    return outputs


class Garbler:
  """Garbles tournaments of one form, under one delta."""

  def __init__(self, form: Tournament, randomness: Randomness, delta: np.ndarray):
    self._form = form
    self._randomness, self._delta = randomness, delta.copy()
    self._tiles = _Tiles(
      form, lambda program, size: half_gates.GarblerTile(program, size, self._delta)
    )

  def garble(
    self, zero_labels: Mapping[str, np.ndarray] | None = None
  ) -> tuple[GarbledBlock, garbling.Encoding]:
    """Garbles one tournament; inputs not in `zero_labels` get fresh labels.

    Args:
      zero_labels: for 'client' the labels of value 0, uint64 [entering, size, 2], of
        which the first `count` of every bit are used.

    Returns:
      The message, and the garbler's secrets: labels of the shares, and `decoding`, in
      which the first instance is that of the result.

    Raises:
      ValueError: labels of another type or shape.
    """
    sums, *_, last = argmax.stages(self._form)
    shape = self._form.entering, sums.size, 2
    given, fresh = dict(zero_labels or {}), {}
    for name in ('client', 'server'):
      if name not in given:
        fresh[name] = garbling.FreshLabels(self._randomness, shape[0], sums.size)
        given[name] = fresh[name].rows().reshape(shape)
      if given[name].shape != shape or given[name].dtype != np.uint64:
        raise ValueError(f'labels {given[name].dtype} {given[name].shape}, want uint64 {shape}')
    seed = self._randomness.bytes(garbled_block.SEED_BYTES)
    sent, outputs = [], np.empty((0, 0, 2), np.uint64)

    def run(stage: Stage, left: np.ndarray, right: np.ndarray) -> np.ndarray:
      nonlocal outputs
      tables = np.empty(garbled_block.tables_shape(stage.circuit, stage.size), np.uint64)
      outputs = self._tiles.run(stage, left, right, seed, tables)
      sent.append(tables[:, :, : stage.instances].swapaxes(1, 2).reshape(-1, 2, 1, 2))
      zeros = outputs[:, : stage.instances].copy()
      for row, bit in zip(zeros, stage.circuit.outputs):
        if isinstance(bit, circuits.Wire) and bit.inverted:
          row ^= self._delta
      return zeros

    client, server = (given[name][:, : self._form.count] for name in ('client', 'server'))
    argmax.play(self._form, client, server, run)
    ends = outputs.reshape(len(outputs), -1)
    check = garbled_block.make_check(seed, last.circuit, ends, self._delta)
    return (
      GarbledBlock(seed, check, np.concatenate(sent)),
      garbling.Encoding(last.circuit, self._delta, fresh, ends),
    )


def decoding(encoding: garbling.Encoding) -> np.ndarray:
  """The values of the result's labels of colour 0, uint8 [outputs]."""
  return encoding.decoding[:, 0] & np.uint8(1)


class Evaluator:
  """Evaluates tournaments of one form."""

  def __init__(self, form: Tournament):
    self._form = form
    self._tiles = _Tiles(form, half_gates.EvaluatorTile)

  def evaluate(
    self, garbled: GarbledBlock, client: np.ndarray, server: np.ndarray, decoding: np.ndarray
  ) -> int | None:
    """The index of the largest word, None where one is out of range and that is checked; once only.

    Args:
      garbled: the message.
      client, server: one label for every bit of both shares, uint64 [entering, count, 2].
      decoding: of the result's labels, as sent.

    Raises:
      ValueError: message and labels do not belong together, it was evaluated before,
        or a shape is wrong.
    """
    form, shape = self._form, tables_shape(self._form)
    if garbled.tables.shape != shape or decoding.shape != (form.outputs,):
      raise ValueError(f'tables {garbled.tables.shape} and {decoding.shape}, want {shape}')
    if {client.shape, server.shape} != {(form.entering, form.count, 2)}:
      raise ValueError(f'labels {client.shape} and {server.shape} of {form.count} words')
    if garbled.used:
      raise ValueError('garbled block was evaluated before')
    garbled.used = True
    start, outputs = 0, np.empty((0, 0, 2), np.uint64)

    def run(stage: Stage, left: np.ndarray, right: np.ndarray) -> np.ndarray:
      nonlocal start, outputs
      part = garbled.tables[start : start + stage.ands]
      start += stage.ands
      tables = np.zeros(garbled_block.tables_shape(stage.circuit, stage.size), np.uint64)
      live = part.reshape(stage.circuit.and_count, stage.instances, 2, 2)
      tables[:, :, : stage.instances] = live.swapaxes(1, 2)
      outputs = self._tiles.run(stage, left, right, garbled.seed, tables)
      return outputs[:, : stage.instances]

    labels = argmax.play(form, client, server, run)
    *_, last = argmax.stages(form)
    garbled_block.verify(garbled, last.circuit, outputs.reshape(len(outputs), -1))
    values = labels[:, 0].astype(np.uint8) & np.uint8(1) ^ decoding
    index = int(values[: form.index_bits].astype(np.int64) @ (1 << np.arange(form.index_bits)))
    if index >= form.count:
      raise ValueError(f'index {index} of {form.count} words')
    return index if values[form.index_bits :].all() else None

"""What a described model will take of a client, known before anything large is allocated.

A server chooses its description, and 600 bytes of it can ask for terabytes. So a client
first adds up sizes. They are numbers alone: no array is made of any of them. They hold for
what the server sends too, because every message has to have the size that is expected.
"""

from collections.abc import Mapping
import dataclasses
import math

from safenet_jax.crypto.garbled_circuits import garbled_argmax
from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.fixed_point import consistency
from safenet_jax.models import layers as records
from safenet_jax.protocol.delphi import message_shapes, message_walk
from safenet_jax.protocol.layers.structure import OUTPUTS, Structure
from safenet_jax.protocol.service import sessions
from safenet_jax.protocol.service.description import Description
from safenet_jax.transport import frames
from safenet_jax.transport.frames import ProtocolError

_WORD, _LABEL = 8, 16
# What a process takes that has imported everything, and what a context of SEAL takes: those of
# `estimate.unit_costs`, with some room.
_PROCESS, _CONTEXT = 80 << 20, 10 << 20
# Bytes of a transfer that is expanded, and then transposed.
_TRANSFER = 2 * _LABEL
# Bytes of a value: its mask and its share in the walks through the layers, and one more word to
# compute with.
_VALUE = 3 * _WORD
# How many of a channel's timeouts the work on one image may take.
_TIMEOUTS = 10


@dataclasses.dataclass(frozen=True)
class Needs:
  """Bytes that a client needs for a model; those of memory are rather too high.

  fixed: of memory, however many images there are.
  held: of memory, for every image that is prepared.
  working: of memory besides, for every image that is worked on.
  traffic: both ways, for the prediction of one image with its preparation.
  offline, online: what of it each phase takes, where the client gets the logits.
  """

  fixed: int
  held: int
  working: int
  traffic: int
  offline: int = 0
  online: int = 0

  def memory(self, images: int, kept: int) -> int:
    """Bytes to work on so many images at once, while others are kept prepared."""
    return self.fixed + images * (self.held + self.working) + kept * self.held


@dataclasses.dataclass(frozen=True)
class Budget:
  """What a client may take for a model.

  needs: of the model.
  max_memory: bytes of the process.
  kept: how many preparations are kept in memory in the background.
  background: how many more images are worked on there at once.
  """

  needs: Needs
  max_memory: int
  kept: int
  background: int

  @property
  def images(self) -> int:
    """How many images may be worked on at once, at least one."""
    free = self.max_memory - self.needs.memory(self.background, self.kept)
    return free // (self.needs.held + self.needs.working)

  def check_kept(self, count: int) -> None:
    """ValueError where so many preparations in memory are too many."""
    needed = self.needs.memory(1 + self.background, count)
    if needed > self.max_memory:
      limit = f'more than max_memory={_gib(self.max_memory)}'
      raise ValueError(f'{count} preparations in memory need {_gib(needed)}, {limit}')

  def time(self, images: int) -> tuple[int, int]:
    """What `Channel.within` takes for work on so many images."""
    return images * _TIMEOUTS, images * self.needs.traffic


def budget(
  found: Description,
  structure: Structure,
  contexts: Mapping[int, bfv.Context],
  *,
  max_memory: int,
  max_bytes: int,
  kept: int = 0,
  background: int = 0,
  in_files: bool = False,
) -> Budget:
  """The budget of a client of a described model; arguments as for `Client`, `Budget`, `needs`.

  Raises:
    ProtocolError: the model needs more, or a layer that no ciphertext holds.
  """
  needed = frames.checked(needs, found, structure, contexts, in_files)
  for size, name, most, what in (
    (needed.memory(1 + background, kept), 'max_memory', max_memory, 'of memory'),
    (needed.traffic, 'max_bytes', max_bytes, 'of messages a prediction'),
  ):
    if size > most:
      raise ProtocolError(
        f"the server's model needs {_gib(size)} {what}, more than {name}={_gib(most)}"
      )
  return Budget(needed, max_memory, kept, background)


def needs(
  found: Description,
  structure: Structure,
  contexts: Mapping[int, bfv.Context],
  in_files: bool = False,
) -> Needs:
  """What a client needs for a described model.

  The shares of memory are those of the arrays that a client makes of each message. Real
  clients took less, see docs/measurements.md.

  Args:
    found: the description, of which the most expensive output counts.
    structure: of its model.
    contexts: of a session, from `keys.contexts`.
    in_files: whether preparations are kept in files. Then memory holds layers of two stages.

  Raises:
    ValueError: a layer does not fit the homomorphic encryption.
  """
  model, mode = found.model, sessions.MODES[found.mode]
  record = message_walk.tally(model, structure, dict(contexts), mode).ledger.record()
  rows = [row for row in record['rows'] if row['phase'] in ('offline', 'online')]
  traffic = sum(row['bytes'] for row in rows)
  # Where a map lies among coefficients is kept for all images, in about as many bytes as the
  # ciphertexts have.
  fixed = _PROCESS + _CONTEXT * len(contexts)
  linear = sum(row['bytes'] for row in rows if row['primitive'] == 'linear')
  fixed += linear
  held, transfers = mode.costs.held(structure)['client'], structure.transfers('logits')
  if last := structure.comparison_for(max(found.outputs, key=OUTPUTS.index)):
    tables = _WORD * math.prod(garbled_argmax.tables_shape(last.tournament))
    held += tables + _LABEL * last.transfers
    # The labels of the server's bits, and what transfers of the client's take.
    traffic += tables + 2 * _LABEL * last.transfers
    transfers += last.transfers
  shapes = records.shapes(model.layers, model.input_shape)
  values = math.prod(model.input_shape) + sum(math.prod(shape.output_shape) for shape in shapes)
  # A pool of shares pads its map.
  pools = (s for s in shapes if isinstance(s.layer, records.Pool))
  values += max(map(consistency.padded_size, pools), default=0)
  # Levels of a max pool have maps of their own.
  values += sum(math.prod(layer.garbled_shape) for layer in structure.activations if layer.pool)
  # Messages are held as bytes, beside the words that are made of them; those of a stage at once.
  transfers += structure.choices
  most = message_shapes.most_transfers(structure, found.outputs[-1], chosen=True)
  part = min(1.0, most / max(transfers, 1))
  working = math.ceil(linear + part * (traffic - linear) + _TRANSFER * most + _VALUE * values)
  if in_files:
    held = math.ceil(min(1.0, 2 * part) * held)
  phases = [
    sum(row['bytes'] for row in rows if row['phase'] == phase) for phase in ('offline', 'online')
  ]
  return Needs(fixed, held, working, traffic, *phases)


def _gib(size: int) -> str:
  return f'{size / (1 << 30):.3g} GiB'

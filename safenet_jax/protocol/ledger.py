"""Where every byte and second of an inference goes."""

import collections
from collections.abc import Iterator
import contextlib
import math
import time
from typing import Any

import numpy as np

_FIELDS = ('bytes', 'messages', 'wall_seconds', 'cpu_seconds')


class Ledger:
  """Counts messages and seconds by (phase, layer, primitive, party).

  A message belongs to the party that sends it, a step to the party that
  computes it; the simulator's jitted steps hold both parties and are counted
  as 'both'. A flight is a run of messages in one direction within a phase; two
  flights are a round.
  """

  def __init__(self) -> None:
    self._rows: dict[tuple[str, str, str, str], dict[str, float]] = collections.defaultdict(
      lambda: dict.fromkeys(_FIELDS, 0)
    )
    self._flights: collections.Counter[str] = collections.Counter()
    self._last_sender: dict[str, str] = {}

  def send(
    self, phase: str, layer: str, primitive: str, sender: str, message: Any, bits: int | None = None
  ) -> None:
    """Counts a message: an array whose elements take `bits` each, or bytes as they are."""
    if bits is None:
      size = message.nbytes if hasattr(message, 'nbytes') else len(message)
    else:
      size = math.ceil(np.size(message) * bits / 8)
    row = self._rows[phase, layer, primitive, sender]
    row['bytes'] += size
    row['messages'] += 1
    if self._last_sender.get(phase) != sender:
      self._last_sender[phase] = sender
      self._flights[phase] += 1

  @contextlib.contextmanager
  def step(self, phase: str, layer: str, primitive: str, party: str) -> Iterator[None]:
    """Counts the wall and CPU seconds of the block."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    row = self._rows[phase, layer, primitive, party]
    row['wall_seconds'] += time.perf_counter() - wall
    row['cpu_seconds'] += time.process_time() - cpu

  def record(self) -> dict[str, Any]:
    """Everything counted, JSON-like: `rows`, and `phases` with their sums."""
    names = ('phase', 'layer', 'primitive', 'party')
    rows: list[dict[str, Any]] = [
      dict(zip(names, key)) | row
      for key, row in self._rows.items()
    ]
    phases: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row['phase'] for row in rows):
      mine = [row for row in rows if row['phase'] == name]
      phases[name] = {f: sum(row[f] for row in mine) for f in _FIELDS}
      phases[name]['rounds'] = math.ceil(self._flights[name] / 2)
    return {'rows': rows, 'phases': phases}

"""Where every byte and second of an inference goes."""

import collections
from collections.abc import Callable, Iterator, Mapping
import contextlib
import math
import os
import threading
import time
from typing import Any

import numpy as np

from safenet_jax import atomic_files

_FIELDS = ('bytes', 'messages', 'wall_seconds', 'cpu_seconds')
_KEYS = ('phase', 'layer', 'primitive', 'party')
_CLOCKS = {time.process_time: 'process', time.thread_time: 'thread'}


class Ledger:
  """Counts messages and seconds by (phase, layer, primitive, party).

  A message belongs to the party that sends it, a step to the party that computes it. The
  simulator's jitted steps compute both parties, and are counted as 'both'.

  A flight is a run of messages in one direction within a phase. Two flights are a round.
  A flight is counted in the row of its first message.

  Steps may be nested. What an inner step takes is not counted again in the outer one.
  Wall seconds include the wait for the peer, CPU seconds do not.

  Attributes:
    truncation_failure: expected failures of local truncation per inference, as the model
      itself says (`PublicModel.truncation_failure`); None before a model is known.
    watch: called with phase, layer and size of every message that is counted, for who shows
      progress; None for nobody.
  """

  def __init__(self, cpu_clock: Callable[[], float] = time.process_time) -> None:
    """Starts empty.

    Args:
      cpu_clock: `time.process_time` counts all threads of the process. A process that
        serves several sessions takes `time.thread_time` to tell them apart; this leaves
        out the threads that numerical libraries start.
    """
    if cpu_clock not in _CLOCKS:
      raise ValueError(f'cpu_clock {cpu_clock!r}, want time.process_time or time.thread_time')
    self.cpu_clock = cpu_clock
    self.truncation_failure: float | None = None
    self.watch: Callable[[str, str, int], None] | None = None
    self._lock = threading.Lock()
    self._rows: dict[tuple[str, str, str, str], dict[str, float]] = collections.defaultdict(
      lambda: dict.fromkeys((*_FIELDS, 'flights'), 0)
    )
    self._last_sender: dict[str, str] = {}
    self._nested = threading.local()

  def send(
    self, phase: str, layer: str, primitive: str, sender: str, message: Any, bits: int | None = None
  ) -> None:
    """Counts a message: an array whose elements take `bits` each, or its bytes without `bits`."""
    if bits is None:
      size = message.nbytes if hasattr(message, 'nbytes') else len(message)
    else:
      size = math.ceil(np.size(message) * bits / 8)
    self.count(phase, layer, primitive, sender, size)

  def count(self, phase: str, layer: str, primitive: str, sender: str, size: int) -> None:
    """Counts a message of so many bytes."""
    with self._lock:
      row = self._rows[phase, layer, primitive, sender]
      row['bytes'] += size
      row['messages'] += 1
      if self._last_sender.get(phase) != sender:
        self._last_sender[phase] = sender
        row['flights'] += 1
    if (watch := self.watch) is not None:
      watch(phase, layer, size)

  def spend(
    self, phase: str, layer: str, primitive: str, party: str, *, wall: float = 0.0, cpu: float = 0.0
  ) -> None:
    """Counts seconds that were measured elsewhere."""
    with self._lock:
      row = self._rows[phase, layer, primitive, party]
      row['wall_seconds'] += wall
      row['cpu_seconds'] += cpu

  @contextlib.contextmanager
  def step(self, phase: str, layer: str, primitive: str, party: str) -> Iterator[None]:
    """Counts the wall and CPU seconds of the block."""
    outer = getattr(self._nested, 'seconds', None)
    inner = self._nested.seconds = [0.0, 0.0]
    wall, cpu = time.perf_counter(), self.cpu_clock()
    try:
      yield
    finally:
      wall, cpu = time.perf_counter() - wall, self.cpu_clock() - cpu
      self.spend(phase, layer, primitive, party, wall=wall - inner[0], cpu=cpu - inner[1])
      self._nested.seconds = outer
      if outer is not None:
        outer[0] += wall
        outer[1] += cpu

  def record(self) -> dict[str, Any]:
    """Everything counted, JSON-like.

    `rows` has what was counted under the four keys. `phases` has the sums of each phase, its
    rounds, and the bytes of each sender. `cpu_clock` says whether CPU seconds are those of
    the process or of a thread. `truncation_failure` is that of one inference.
    """
    with self._lock:
      rows: list[dict[str, Any]] = [dict(zip(_KEYS, key)) | row for key, row in self._rows.items()]
    return _record(rows, _CLOCKS[self.cpu_clock], self.truncation_failure)


def _record(
  rows: list[dict[str, Any]], clock: str, truncation_failure: float | None
) -> dict[str, Any]:
  phases: dict[str, dict[str, Any]] = {}
  for name in dict.fromkeys(row['phase'] for row in rows):
    mine = [row for row in rows if row['phase'] == name]
    phases[name] = {f: sum(row[f] for row in mine) for f in _FIELDS}
    phases[name]['rounds'] = math.ceil(sum(row['flights'] for row in mine) / 2)
    sent: collections.Counter[str] = collections.Counter()
    for row in mine:
      sent[row['party']] += row['bytes']
    phases[name]['sent'] = {party: size for party, size in sent.items() if size}
  return {
    'rows': rows,
    'phases': phases,
    'cpu_clock': clock,
    'truncation_failure': truncation_failure,
  }


def join(client: Mapping[str, Any], server: Mapping[str, Any]) -> dict[str, Any]:
  """One record made of both parties' records.

  Each party's record has the messages of both. So only its own rows are taken: what it sent
  and the time it spent. Flights are those that the client saw: it waits for answers, while a
  server may answer the first message before the last one of the same flight has come.
  """
  flights = {tuple(row[key] for key in _KEYS): row['flights'] for row in client['rows']}
  rows = [
    row | {'flights': flights.get(tuple(row[key] for key in _KEYS), 0)}
    for party, record in (('client', client), ('server', server))
    for row in record['rows']
    if row['party'] == party
  ]
  clocks = {client['cpu_clock'], server['cpu_clock']}
  clock = clocks.pop() if len(clocks) == 1 else 'mixed'
  return _record(rows, clock, client['truncation_failure'])


def save(record: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
  """Writes a record as JSON. At any time the file is the old or the new one, never a part."""
  atomic_files.write_json(path, record)

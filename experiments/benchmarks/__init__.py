"""What the suites of `experiments.benchmark` share. Every other file here is a suite.

A suite is a module with `rows() -> Iterator[Row]`; the command finds it by its name.
`best` takes the fastest of several runs, because whatever else a machine does only
adds time.
"""

from collections.abc import Callable, Mapping
import time
from typing import NamedTuple

from absl import flags

QUICK = flags.DEFINE_bool('quick', False, 'Smallest sizes and one repetition: to see that it runs.')

# Rows with these prefixes are what `experiments.describe --costs` and searches read: see `units`.
UNIT_COSTS = {'seconds': 'unit/', 'memory': 'memory/'}


class Row(NamedTuple):
  """One measurement, and its floor: a limit or a peer that was measured in the same run."""

  suite: str
  name: str  # stable, so that runs can be compared
  setting: str
  value: float
  unit: str
  floor: float | None = None

  @property
  def ratio(self) -> float | None:
    return self.value / self.floor if self.floor else None

  def record(self) -> dict:
    """The row as JSON holds it."""
    return self._asdict() | {'ratio': self.ratio}


def best(
  functions: Mapping[str, Callable[[], object]],
  repetitions: int,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
  """Seconds of the fastest call of each function; the functions take turns."""
  fastest = dict.fromkeys(functions, float('inf'))
  for _ in range(1 if QUICK.value else repetitions):
    for name, function in functions.items():
      start = clock()
      function()
      fastest[name] = min(fastest[name], clock() - start)
  return fastest

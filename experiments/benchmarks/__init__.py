"""What the suites of `experiments.benchmark` share: every other file here is a suite.

A suite is a module with `rows() -> Iterator[Row]`, found by its name. Values are
the best of several runs: other tenants of a machine only ever add time.
"""

from collections.abc import Callable, Mapping
import time
from typing import NamedTuple

from absl import flags

QUICK = flags.DEFINE_bool('quick', False, 'Smallest sizes and one repetition: to see that it runs.')

BANDWIDTH = flags.DEFINE_float(
  'bandwidth',
  1e9,
  'Bits a second between the parties, for the costs that the suite activations writes.',
  lower_bound=1.0,
)
# Rows of this name are a search's costs, by kind of activation: see `activations`.
COSTS = 'seconds_per_activation/'
# Rows of these names are what `experiments.describe --costs` reads: see `units`.
UNIT_COSTS = {'seconds': 'unit/', 'memory': 'memory/'}


class Row(NamedTuple):
  """One measurement beside its floor, a limit or a peer measured in the same run."""

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

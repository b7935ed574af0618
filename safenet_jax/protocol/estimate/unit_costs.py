"""What the operations of a private inference take on one machine.

`experiments.benchmark --suite=units` measures this. The ledger of a real inference says how
long each of its rows took, and `message_walk` how often each operation is done in that row.
"""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np


class UnitCosts(NamedTuple):
  """What a machine takes.

  seconds: by operation of `message_walk`, how long one takes on one core.
  memory: bytes, by the names that `peak_memory.peaks` explains.
  """

  seconds: Mapping[str, float]
  memory: Mapping[str, float]


def fit(
  operations: Mapping[tuple, Mapping[str, float]], seconds: Mapping[tuple, float]
) -> dict[str, float]:
  """How many seconds each operation takes, such that the rows' sums are near the measured ones.

  This is a weighted least-squares fit in which no operation takes less than zero. While one
  does, the most negative one is set to zero, and the others are fitted again.

  Args:
    operations: by row, how often each operation is done.
    seconds: by row, what it took; a row that is not there took none.

  Returns:
    Seconds by operation.
  """
  found: dict[str, float] = {}
  for names in _groups(operations):
    rows = [row for row, counts in operations.items() if counts.keys() & set(names)]
    taken = np.array([seconds.get(row, 0.0) for row in rows])
    # Errors in proportion to what was measured, but not of the smallest rows.
    weights = 1 / np.sqrt(taken + taken.max() / 100 + 1e-12)
    while True:
      counts = np.array([[operations[row].get(name, 0) for name in names] for row in rows])
      scale = np.abs(counts).max(0)
      x = np.linalg.lstsq(counts / scale * weights[:, None], taken * weights, rcond=None)[0]
      found |= dict(zip(names, (x / scale).tolist()))
      if x.min() >= 0 or len(names) == 1:
        break
      found[names.pop(int(x.argmin()))] = 0.0
  return {name: max(value, 0.0) for name, value in sorted(found.items())}


def _groups(operations: Mapping[tuple, Mapping[str, float]]) -> list[list[str]]:
  """Groups of operations that share rows, and so have to be fitted together."""
  groups: list[set[str]] = []
  for counts in operations.values():
    names = set(counts)
    touched = [group for group in groups if group & names]
    groups = [group for group in groups if not group & names]
    groups.append(names.union(*touched))
  return [sorted(group) for group in groups if group]


def load(path: str | os.PathLike[str]) -> UnitCosts:
  """The costs in a file of `experiments.benchmark --suite=units`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file has no such costs.
  """
  try:
    found = json.loads(pathlib.Path(path).read_text())['unit_costs']
    costs = UnitCosts(found['seconds'], found['memory'])
    numbers = [*costs.seconds.values(), *costs.memory.values()]
  except FileNotFoundError:
    raise FileNotFoundError(f'no costs at {path}') from None
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error.strerror}') from None
  # RecursionError: brackets in brackets in brackets.
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    # Of a file in another encoding, the error itself would hold the whole file.
    fault = 'it is no text' if isinstance(error, UnicodeDecodeError) else repr(error)
    raise ValueError(f'{path} has no unit costs, want those of suite units: {fault}') from None
  if not all(isinstance(n, (int, float)) and 0 <= n < float('inf') for n in numbers):
    raise ValueError(f'{path} has costs that are no numbers of at least zero')
  return costs


# From experiments/results/benchmark_units.json: one core of an x86-64 server.
DEFAULT = UnitCosts(
  seconds={
    'client activation byte': 1.07e-09,
    'client activation layer': 0.000117,
    'client compared block': 0.000701,
    'client compared sign': 2.95e-08,
    'client compared transfer': 5.9e-09,
    'client corrected byte': 2.35e-09,
    'client corrected label': 1.55e-08,
    'client decryption': 0.000497,
    'client encryption': 0.000476,
    'client evaluated and': 1.02e-08,
    'client evaluated block': 0.000421,
    'client label transfer': 1.88e-08,
    'client polynomial product': 9.56e-09,
    'client selected product': 5.53e-09,
    'client session': 0.055,
    'client slot ciphertext': 0.00137,
    'client table byte': 8.25e-10,
    'client truncated layer': 0.000186,
    'client truncation': 1.61e-08,
    'client word transfer': 3.72e-08,
    'server activation byte': 5.62e-10,
    'server activation layer': 0.000415,
    'server chosen block': 0.00016,
    'server chosen label': 3.06e-09,
    'server compared block': 0.000521,
    'server compared sign': 4.64e-08,
    'server compared transfer': 9.07e-09,
    'server corrected byte': 1.19e-09,
    'server corrected label': 1.13e-08,
    'server drawn label': 7.49e-09,
    'server garbled and': 2.4e-08,
    'server garbled block': 0.00039,
    'server input': 0.000121,
    'server label transfer': 2.04e-08,
    'server linear layer': 0.000189,
    'server multiply accumulate': 8.78e-11,
    'server output': 0.00129,
    'server polynomial product': 4.08e-08,
    'server product': 5.79e-05,
    'server selected product': 1.33e-08,
    'server session': 0.0326,
    'server slot ciphertext': 0.00185,
    'server truncated layer': 5.74e-05,
    'server truncation': 4.28e-09,
    'server word transfer': 2.96e-08,
  },
  memory={'process': 6.05e07, 'context': 9.27e06, 'client': 1.24e07, 'server': 5.28e07},
)

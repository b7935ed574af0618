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


# From experiments/results/benchmark_units.json: one core of an x86-64 server that was busy with
# other work too.
DEFAULT = UnitCosts(
  seconds={
    'client activation byte': 1.15e-09,
    'client activation layer': 0.000224,
    'client compared block': 0.00098,
    'client compared sign': 3.52e-08,
    'client compared transfer': 7.19e-09,
    'client corrected byte': 2.86e-09,
    'client corrected label': 1.92e-08,
    'client decryption': 0.000545,
    'client encryption': 0.000482,
    'client evaluated and': 1.13e-08,
    'client evaluated block': 0.000566,
    'client label transfer': 2.05e-08,
    'client polynomial product': 1.09e-08,
    'client selected product': 7.61e-09,
    'client session': 0.0622,
    'client slot ciphertext': 0.00159,
    'client table byte': 8.9e-10,
    'client truncated layer': 0.000226,
    'client truncation': 1.88e-08,
    'client word transfer': 3.84e-08,
    'server activation byte': 6.7e-10,
    'server activation layer': 0.000538,
    'server chosen block': 0.000244,
    'server chosen label': 3.62e-09,
    'server compared block': 0.000693,
    'server compared sign': 5.49e-08,
    'server compared transfer': 1.03e-08,
    'server corrected byte': 1.48e-09,
    'server corrected label': 1.32e-08,
    'server drawn label': 6.47e-09,
    'server garbled and': 3.48e-08,
    'server garbled block': 0.000488,
    'server input': 0.0002,
    'server label transfer': 2.26e-08,
    'server linear layer': 0.000185,
    'server multiply accumulate': 3.2e-10,
    'server output': 0.00142,
    'server polynomial product': 4.61e-08,
    'server product': 6.04e-05,
    'server selected product': 1.77e-08,
    'server session': 0.0363,
    'server slot ciphertext': 0.00223,
    'server truncated layer': 7.61e-05,
    'server truncation': 5.66e-09,
    'server word transfer': 3.57e-08,
  },
  memory={'process': 6.05e07, 'context': 9.31e06, 'client': 2.21e07, 'server': 6.76e07},
)

"""What operations of a private inference take on one machine.

`experiments.benchmark --suite=units` measures them: a real inference's ledger says how
long every row took, `flow` how often each operation is done there.
"""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np


class UnitCosts(NamedTuple):
  """seconds: of one core, by operation of `flow`; memory: bytes, see `estimate`."""

  seconds: Mapping[str, float]
  memory: Mapping[str, float]


def fit(
    operations: Mapping[tuple, Mapping[str, float]], seconds: Mapping[tuple, float]
) -> dict[str, float]:
  """Seconds of every operation, none below zero, with which rows' sums are nearest.

  Args:
    operations: by row, how often each is done.
    seconds: what each row took; rows that are not there took none.
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
  """Operations that share rows, and so have to be found together."""
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
    FileNotFoundError: there is none.
    ValueError: it has no such costs.
  """
  try:
    found = json.loads(pathlib.Path(path).read_text())['unit_costs']
    costs = UnitCosts(found['seconds'], found['memory'])
    numbers = [*costs.seconds.values(), *costs.memory.values()]
  except FileNotFoundError:
    raise FileNotFoundError(f'no costs at {path}') from None
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'{path} has no unit costs, want those of suite units: {error!r}') from None
  if not all(isinstance(n, (int, float)) and 0 <= n < float('inf') for n in numbers):
    raise ValueError(f'{path} has costs that are no numbers of at least zero')
  return costs


DEFAULT = UnitCosts(
    seconds={
        'client activation byte': 1.26e-09,
        'client activation layer': 0.000177,
        'client corrected byte': 4.33e-09,
        'client corrected label': 1.77e-08,
        'client decryption': 0.000706,
        'client encryption': 0.000642,
        'client evaluated and': 1.96e-08,
        'client evaluated block': 0.00065,
        'client label transfer': 3.06e-08,
        'client polynomial product': 1.7e-08,
        'client selected product': 1.06e-08,
        'client session': 0.0323,
        'client slot ciphertext': 0.00232,
        'client table byte': 9.68e-10,
        'client truncated layer': 0.000224,
        'client truncation': 3.22e-08,
        'client word transfer': 5.55e-08,
        'server activation byte': 8.21e-10,
        'server activation layer': 0.00037,
        'server chosen block': 0.000133,
        'server chosen label': 8.49e-09,
        'server corrected byte': 1.22e-09,
        'server corrected label': 1.89e-08,
        'server drawn label': 2.58e-09,
        'server garbled and': 4.78e-08,
        'server garbled block': 0.000905,
        'server input': 0.000126,
        'server label transfer': 3.31e-08,
        'server linear layer': 0,
        'server multiply accumulate': 5.24e-10,
        'server output': 0.00171,
        'server polynomial product': 6.56e-08,
        'server product': 8.33e-05,
        'server selected product': 2.3e-08,
        'server session': 0.027,
        'server slot ciphertext': 0.00302,
        'server truncated layer': 5.08e-05,
        'server truncation': 1.25e-08,
        'server word transfer': 5.1e-08,
    },
    memory={'process': 5.83e+07, 'context': 8.91e+06, 'client': 4e+07, 'server': 6e+07},
)

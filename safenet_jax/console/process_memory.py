"""What a process holds in memory, as Linux counts it."""

import pathlib
from typing import NamedTuple


class Memory(NamedTuple):
  """Bytes of a process in memory: now, and the most so far."""

  resident: int
  peak: int


def memory(process: int | str = 'self') -> Memory:
  """The memory of a process, given by its id; zeros on systems without /proc."""
  found = (proc(f'{process}/status', key) for key in ('VmRSS', 'VmHWM'))
  return Memory(*(1024 * int((value or '0').split()[0]) for value in found))


def proc(name: str, key: str) -> str | None:
  """The first value of a key in a file of Linux's /proc; None where there is none."""
  try:
    lines = pathlib.Path('/proc', name).read_text().splitlines()
  except OSError:
    return None
  values = (line.partition(':')[2].strip() for line in lines if line.startswith(key))
  return next(values, None)

"""Where a measurement was taken: the machine, the versions, the commit."""

from importlib import metadata
import os
import pathlib
import platform
import subprocess
from typing import NamedTuple

PACKAGES = ('numpy', 'jax', 'jaxlib', 'cryptography', 'PyNaCl', 'seal-python')


def record() -> dict:
  """What a file of measurements starts with, ready for JSON."""
  return {
    'machine': {
      'processor': _proc('cpuinfo', 'model name') or platform.processor(),
      'cores': os.cpu_count(),
      'memory': _proc('meminfo', 'MemTotal'),
      'system': f'{platform.system()} {platform.machine()}',
    },
    'versions': {'python': platform.python_version()} | {p: _version(p) for p in PACKAGES},
    'commit': _commit(),
  }


class Memory(NamedTuple):
  """Bytes of a process in memory, now and at most."""

  resident: int
  peak: int


def memory(process: int | str = 'self') -> Memory:
  """Of a process by its id; zeros where there is no /proc."""
  found = (_proc(f'{process}/status', key) for key in ('VmRSS', 'VmHWM'))
  return Memory(*(1024 * int((value or '0').split()[0]) for value in found))


def _proc(name: str, key: str) -> str | None:
  """The first value of a key in a file of Linux's /proc."""
  try:
    lines = pathlib.Path('/proc', name).read_text().splitlines()
  except OSError:
    return None
  values = (line.partition(':')[2].strip() for line in lines if line.startswith(key))
  return next(values, None)


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _commit() -> str | None:
  """The commit of this checkout, '-dirty' with changes; None outside of git."""
  try:
    found = subprocess.run(
      ('git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'),
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
    )
  except OSError:
    return None
  return found.stdout.strip() or None

"""Where a measurement was taken: the machine, the versions, the commit."""

from importlib import metadata
import os
import pathlib
import platform
import subprocess

from safenet_jax.console import process_memory

PACKAGES = ('numpy', 'jax', 'jaxlib', 'cryptography', 'PyNaCl', 'seal-python')


def record() -> dict:
  """Machine, versions and commit, ready for JSON; a file of measurements starts with them."""
  return {
    'machine': {
      'processor': process_memory.proc('cpuinfo', 'model name') or platform.processor(),
      'cores': os.cpu_count(),
      'memory': process_memory.proc('meminfo', 'MemTotal'),
      'system': f'{platform.system()} {platform.machine()}',
    },
    'versions': {'python': platform.python_version()} | {p: _version(p) for p in PACKAGES},
    'commit': _commit(),
  }


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

"""One folder of compiled functions, for tests, workers and the commands that tests launch.

All of them compile the same functions over and over, and the next run of the tests does again.
A process that is killed in the middle of a write leaves half a file, which JAX warns of and
compiles again.
"""

import contextlib
import ctypes
import gc
import os
import pathlib
import sys
import time

FOLDER = 'JAX_COMPILATION_CACHE_DIR'
PATH = pathlib.Path(__file__).parents[2] / 'build/compilations'
# Code changes: what was compiled so long ago is seldom needed again.
DAYS = 7


def share() -> None:
  """Names the folder to this process and those that it starts; before JAX is imported."""
  if FOLDER in os.environ:
    return  # this is a worker, or somebody wants another folder
  for path in PATH.glob('*'):
    with contextlib.suppress(FileNotFoundError):  # another run removes the same
      if time.time() - path.stat().st_mtime > DAYS * 86400:
        path.unlink()
  os.environ |= {
    FOLDER: str(PATH),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    # Tests compile more than they compute.
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} --xla_backend_optimization_level=1'.strip(),
  }


def without() -> dict[str, str]:
  """Environment of a command that compiles everything by itself."""
  return {name: value for name, value in os.environ.items() if name != FOLDER}


def forget() -> None:
  """Frees the compiled functions of this process; it finds in the folder what it needs again."""
  if 'jax' in sys.modules:
    sys.modules['jax'].clear_caches()
    gc.collect()
  with contextlib.suppress(OSError, AttributeError):  # other systems have another C library
    ctypes.CDLL('libc.so.6').malloc_trim(0)  # it keeps a gigabyte of freed memory otherwise

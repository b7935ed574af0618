"""How the functions of a run of the tests are compiled: once, and without much optimisation.

Tests compile far more than they compute. What one process has compiled, workers, commands and
later runs find in a folder. LLVM's passes are left out; XLA's own, which decide what is computed,
are not. Where a test compares digits of different executables, `ordinary` is the environment.

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
UNOPTIMISED = '--xla_backend_optimization_level=0'
# Code changes: what was compiled so long ago is seldom needed again.
DAYS = 7


def share() -> None:
  """Makes all of that so for this process and those that it starts, before JAX is imported."""
  if FOLDER in os.environ:
    return  # this is a worker, or somebody wants it otherwise
  for path in PATH.glob('*'):
    with contextlib.suppress(FileNotFoundError):  # another run does the same
      if time.time() - path.stat().st_mtime > DAYS * 86400:
        path.unlink()
  os.environ |= {
    FOLDER: str(PATH),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {UNOPTIMISED}'.strip(),
  }


def ordinary(folder: bool = True, flags: str = '') -> dict[str, str]:
  """Environment of a command that compiles as users have it.

  Args:
    folder: whether it may use what another process has compiled.
    flags: more of XLA's flags.
  """
  own = os.environ.get('XLA_FLAGS', '').replace(UNOPTIMISED, '')
  found = os.environ | {'XLA_FLAGS': f'{own} {flags}'.strip()}
  return {name: value for name, value in found.items() if folder or name != FOLDER}


def forget() -> None:
  """Frees the compiled functions of this process; it finds in the folder what it needs again."""
  if 'jax' in sys.modules:
    sys.modules['jax'].clear_caches()
    gc.collect()
  with contextlib.suppress(OSError, AttributeError):  # other systems have another C library
    ctypes.CDLL('libc.so.6').malloc_trim(0)  # it keeps a gigabyte of freed memory otherwise

"""One folder of compiled functions for the commands that a file of tests runs.

They compile the same functions over and over; JAX keeps those that took a while. A process
that is killed in the middle of a write leaves half a file, which the next one compiles again.
"""

import atexit
import functools
import os
import shutil
import tempfile


@functools.cache
def folder() -> str:
  """Made when it is first asked for, removed with this process."""
  path = tempfile.mkdtemp(prefix='compilations')
  atexit.register(shutil.rmtree, path, ignore_errors=True)
  return path


def environment() -> dict[str, str]:
  """That of a command: this one's and the folder."""
  return os.environ | {
    'JAX_COMPILATION_CACHE_DIR': folder(),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
  }

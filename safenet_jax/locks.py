"""One writer at a time: a lock on a directory that dies with its process.

The system keeps the lock (flock) and not the file, so a file that a killed process left behind
locks nothing. The file only says who holds the lock.
"""

import fcntl
import io
import os
import pathlib
import socket

from absl import logging

from safenet_jax import atomic_files

# In the directory; empty while nobody holds the lock.
NAME = '.lock'


class Lock:
  """The lock of a directory, held from its making until `release` or the end of the process."""

  def __init__(self, directory: pathlib.Path):
    """Takes the lock of a directory that exists.

    Where the file system has no locks it warns and goes on.

    Raises:
      BlockingIOError: another one holds it; names its host and process.
      OSError: no file can be written there.
    """
    path = directory / NAME
    self._file = io.FileIO(os.fspath(path), 'a+')
    try:
      with atomic_files.naming(path):
        self._take(directory)
        self._name(f'process {os.getpid()} on {socket.gethostname()}')
    except BaseException:
      self._file.close()
      raise

  def release(self) -> None:
    """Lets the next one in."""
    self._name('')
    self._file.close()

  def _take(self, directory: pathlib.Path) -> None:
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      # The one that has it may not have written its name yet.
      self._file.seek(0)
      holder = self._file.read(1000).decode(errors='replace') or 'another process'
      raise BlockingIOError(
        f'{directory} is in use by {holder}, want another workdir, or to wait for its end'
      ) from None
    except OSError as error:
      logging.warning(
        '%s: no locks here (%s), so see to it that only one command writes',
        directory,
        error.strerror,
      )

  def _name(self, holder: str) -> None:
    self._file.truncate(0)
    self._file.write(holder.encode())

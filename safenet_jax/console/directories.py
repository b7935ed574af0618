"""Directories that a user names to write to."""

import os
import tempfile


def check(option: str, path: str | os.PathLike[str]) -> None:
  """Tries to write to a directory that is there: an error now, and not after minutes of work.

  Raises:
    ValueError: no file can be made there.
  """
  try:
    tempfile.TemporaryFile(dir=path).close()
  except OSError as error:
    raise ValueError(
      f'--{option}: {os.fspath(path)} cannot be written to: {error.strerror}'
    ) from None

"""Where a user wants files written: whether they can be is found out before the work, not after."""

import os
import pathlib
import tempfile


def check(option: str, path: str | os.PathLike[str]) -> None:
  """Tries to make a file in a directory that is there.

  Args:
    option: that names the directory, for the error.
    path: of the directory.

  Raises:
    ValueError: no file can be made there.
  """
  try:
    tempfile.TemporaryFile(dir=path).close()
  except OSError as error:
    place = os.fspath(path)
    raise ValueError(f'--{option}: {place} cannot be written to: {error.strerror}') from None


def check_file(option: str, path: str | os.PathLike[str]) -> None:
  """Tries to make a file in the directory in which the file `path` is to be.

  Raises:
    ValueError: there is no such directory, or `path` is one itself, or no file can be made there.
  """
  place = pathlib.Path(path)
  if place.is_dir() or not place.parent.is_dir() or os.fspath(path).endswith(os.sep):
    raise ValueError(f'--{option}={os.fspath(path)}: want a file in a directory that is there')
  check(option, place.parent)

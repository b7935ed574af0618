"""Where a user wants files written: whether they can be is found out before the work, not after."""

import os
import pathlib
import tempfile

from safenet_jax import atomic_files


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


def check_file(option: str, path: str | os.PathLike[str]) -> pathlib.Path:
  """The path of a file that can be written, which is not changed; options are as for `check`.

  Raises:
    ValueError: no file can be written there.
  """
  try:
    atomic_files.check(path)
  except OSError as error:
    place = os.fspath(path)
    raise ValueError(
      f'--{option}={place}: {error.strerror}, want a file that can be written'
    ) from None
  return pathlib.Path(path)

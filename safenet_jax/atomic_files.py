"""Files that are either old or new, never half of it, whatever happens while they are written.

A new file is written beside the one it replaces, under a hidden name that ends in
`.partial`. Its bytes are forced to the disk, then it is renamed, and then the renaming is
forced to the disk. A failure leaves the old file and nothing else. Only a process that
is killed leaves its `.partial` file behind.
"""

from collections.abc import Iterator
import contextlib
import errno
import json
import os
import pathlib
import secrets
from typing import Any, BinaryIO

PARTIAL = '.partial'


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[BinaryIO]:
  """A binary file to write to, which takes its place at the end of the block.

  Args:
    path: the file's place, in a directory that exists. What is there and is neither file nor
      directory, such as /dev/null, is written to as it is.
    private: whether only its owner may read it (mode 0600, whatever the umask is).

  Raises:
    IsADirectoryError: `path` is a directory.
    OSError: it cannot be written; names `path`. Whatever the block raises passes through.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
  if path.exists() and not path.is_file():
    with open(path, 'wb') as file:
      yield file
    return
  partial = path.with_name(f'.{path.name}.{secrets.token_hex(4)}{PARTIAL}')
  mode = 0o600 if private else 0o666
  with naming(path, instead=partial):
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
      with os.fdopen(descriptor, 'wb') as file:
        yield file
      replace(partial, path)
    except BaseException:
      partial.unlink(missing_ok=True)
      raise


def check(path: str | os.PathLike[str]) -> None:
  """Raises the OSError of `writing` where a file cannot be written; changes nothing.

  It is for the start of hours of work whose result goes there.
  """
  with contextlib.suppress(_CheckedError), writing(path):
    raise _CheckedError


class _CheckedError(Exception):
  """Ends the check of `check` before a file takes its place."""


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], instead: pathlib.Path | None = None) -> Iterator[None]:
  """Lets an OSError that names no file, or names the file `instead`, name `path`."""
  try:
    yield
  except OSError as error:
    if error.errno and (error.filename is None or str(error.filename) == str(instead)):
      error.filename = os.fspath(path)
    raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes a text file in UTF-8; OSError as for `writing`."""
  with writing(path) as file:
    file.write(text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
  """Writes a JSON-like value, indented by two; OSError as for `writing`.

  Raises:
    TypeError: JSON cannot hold the value. Nothing is written.
  """
  write_text(path, json.dumps(value, indent=2) + '\n')


def replace(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
  """Moves a complete file to `path`, on the same file system, in place of what is there."""
  _force(source)
  os.replace(source, path)
  force_renames(pathlib.Path(path).parent)


def force_renames(directory: str | os.PathLike[str]) -> None:
  """Waits until the disk holds the names of a directory's files as they are now."""
  _force(directory)


def _force(path: str | os.PathLike[str]) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)

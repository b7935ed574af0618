"""JSON files as a run leaves them: a fault is named by file and line.

A file of lines grows by one line at a time. Half a line at its end was cut off by a crash or a
full disk: readers drop it with a warning, and the next line takes its place. Any other fault is
an error, because something else has been at the file.
"""

from collections.abc import Sequence
import json
import os
import pathlib
from typing import Any

from absl import logging

from safenet_jax import atomic_files

_RESTORE = 'restore it from a copy'


def read(path: str | os.PathLike[str], *, mend: str = _RESTORE) -> Any:
  """The value that a file holds.

  Args:
    path: of the file.
    mend: what to do about a file that is cut or damaged; the error says so.

  Raises:
    ValueError: it is not JSON; names file, line and `mend`.
    OSError: there is no such file, or it cannot be read.
  """
  content = pathlib.Path(path).read_bytes()
  if not content.strip():
    raise ValueError(f'{path} is empty, want JSON: {mend}')
  try:
    return _parse(content)
  except _FaultError as fault:
    raise ValueError(f'{path}, line {fault.line}: {fault}, want JSON: {mend}') from None


def read_lines(path: str | os.PathLike[str], keys: Sequence[str] = ()) -> list[dict[str, Any]]:
  """The objects of a file that has one in each line; none if there is no such file.

  Args:
    path: of the file.
    keys: what each of them has to have.

  Raises:
    ValueError: a line is not such an object; names file and line.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  content = path.read_bytes()
  end = _end(content, path)
  found = []
  for number, line in enumerate(content[:end].splitlines(), 1):
    try:
      value = _parse(line)
    except _FaultError as fault:
      raise ValueError(f'{path}, line {number}: {fault}, want JSON: delete that line') from None
    if not isinstance(value, dict) or not set(keys) <= value.keys():
      wanted = f'an object with {", ".join(keys)}' if keys else 'an object'
      raise ValueError(f'{path}, line {number}: no such entry, want {wanted}: delete that line')
    found.append(value)
  return found


def write_lines(path: str | os.PathLike[str], values: Sequence[dict[str, Any]]) -> None:
  """Writes a file of lines anew, in one step; OSError as for `atomic_files.writing`."""
  atomic_files.write_text(path, ''.join(json.dumps(value) + '\n' for value in values))


def append_line(path: str | os.PathLike[str], value: dict[str, Any]) -> None:
  """Adds a line at the end, and forces it to the disk.

  Raises:
    OSError: it cannot be written. Then the file ends where it ended before.
  """
  line = json.dumps(value).encode() + b'\n'
  with atomic_files.naming(path), open(path, 'a+b', buffering=0) as file:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    if file.read(1) not in (b'', b'\n'):
      file.seek(0)
      content = file.read()
      end = _end(content, path)
      if end == len(content):
        line = b'\n' + line
    try:
      file.truncate(end)
      while line:
        line = line[file.write(line) :]
      os.fsync(file.fileno())
    except OSError:
      file.truncate(end)
      raise


def _end(content: bytes, path: str | os.PathLike[str]) -> int:
  """Where the content of a file of lines ends, without an unfinished last line."""
  start = content.rfind(b'\n') + 1
  try:
    if start < len(content):
      _parse(content[start:])
    return len(content)
  except _FaultError:
    number = content.count(b'\n') + 1
    logging.warning('%s, line %d: dropped, because it was cut off', path, number)
    return start


class _FaultError(ValueError):
  """What is wrong with a text, and in which line of it."""

  def __init__(self, message: str, line: int):
    super().__init__(message)
    self.line = line


def _parse(content: bytes) -> Any:
  try:
    return json.loads(content.decode())
  except UnicodeDecodeError as error:
    raise _FaultError('no UTF-8 text', content.count(b'\n', 0, error.start) + 1) from None
  except json.JSONDecodeError as error:
    message = error.msg[0].lower() + error.msg[1:]
    raise _FaultError(message.removesuffix(' at').removesuffix(' starting'), error.lineno) from None

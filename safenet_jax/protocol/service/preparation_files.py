"""A client's prepared inferences as files: written whole, and marked before they are used."""

from collections.abc import Iterable, Mapping, Sequence
import hashlib
import logging
import os
import pathlib
import re
import secrets
import stat
import time
from typing import NamedTuple
import weakref
import zipfile

import numpy as np
from numpy.lib import format as npy

from safenet_jax import atomic_files
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.protocol.delphi import material
from safenet_jax.protocol.delphi.material import ClientLayer, ClientMaterial
from safenet_jax.protocol.delphi.message_shapes import ID_BYTES
from safenet_jax.protocol.layers.structure import OUTPUTS

_LOGGER = logging.getLogger(__name__)
_PREPARED, _USED = '.prepared', '.used'


class Name(NamedTuple):
  """What a file's name says of the preparation in it.

  model: the model id of the server's start, in hex.
  mode: in which it was made, of `sessions.MODES`.
  output: what it is for, of `structure.OUTPUTS`.
  identifier: of the preparation, in hex.
  """

  model: str
  mode: str
  output: str
  identifier: str


class GrowingLayers(dict[str, ClientLayer]):
  """Takes the layers of one preparation, and writes each into its file.

  So memory holds none of them. Without `finish` the file goes with this object.
  """

  def __init__(self, path: pathlib.Path):
    """Makes a file that only its owner may read."""
    self._path = path
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    self._file = zipfile.ZipFile(os.fdopen(descriptor, 'w+b'), 'w')
    self._end = weakref.finalize(self, _abandon, self._file, path)

  def __setitem__(self, name: str, layer: ClientLayer) -> None:
    self._write(material.layer_arrays(name, layer))

  def _write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Adds arrays as `numpy.savez` does."""
    for name, array in arrays.items():
      with self._file.open(f'{name}.npy', 'w', force_zip64=True) as file:
        npy.write_array(file, array, allow_pickle=False)

  def finish(self, path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Adds the arrays that belong to no layer; the file has its name when this returns."""
    self._write(arrays)
    file = self._file.fp
    self._file.close()
    if file is not None:
      file.close()
    atomic_files.replace(self._path, path)
    self._end.detach()


def _abandon(archive: zipfile.ZipFile, path: pathlib.Path) -> None:
  """Deletes a file that will not be finished."""
  # An archive that has no file any more does not try to write its end.
  file, archive.fp = archive.fp, None
  if file is not None:
    file.close()
  path.unlink(missing_ok=True)


class PreparationFiles:
  """The files that clients of one server make in a directory.

  Several servers may share a directory, clients at the same time may not. Files that were
  not made here, or with another server, stay as they are.
  """

  def __init__(self, directory: str | os.PathLike[str], server: str, randomness: Randomness):
    """Reads what there is, and changes nothing yet.

    Args:
      directory: where the files are; it need not exist.
      server: its name, by which the files of several servers are told apart.
      randomness: draws the token, if there is none.

    Raises:
      OSError: the directory cannot be read.
      ValueError: the file of the token holds something else.
    """
    self._directory = pathlib.Path(directory)
    self._server = hashlib.sha256(server.encode()).hexdigest()[:16]
    own = (
      rf'{self._server}-([0-9a-f]{{32}})-([a-z]+)-({"|".join(OUTPUTS)})'
      rf'-([0-9a-f]{{{2 * ID_BYTES}}})'
    )
    self._prepared = re.compile(own + re.escape(_PREPARED))
    self._left = re.compile(
      rf'{own}{re.escape(_USED)}|\.{own}{re.escape(_PREPARED)}\.[0-9a-f]{{8}}'
      + re.escape(atomic_files.PARTIAL)
    )
    self._token = self._directory / f'{self._server}.token'
    self.token = self._read_token() or randomness.bytes(ID_BYTES)
    # Those that are there, the newest first.
    self.names = [Name(*match.groups()) for match in self._matches(self._prepared)]

  def _read_token(self) -> bytes | None:
    if not self._token.exists():
      return None
    text = self._token.read_text().strip()
    if not re.fullmatch(rf'[0-9a-f]{{{2 * ID_BYTES}}}', text):
      raise ValueError(
        f'{self._token}: {len(text)} characters, want {2 * ID_BYTES} hexadecimal digits'
      )
    return bytes.fromhex(text)

  def _matches(self, pattern: re.Pattern) -> list[re.Match]:
    """Names of files, the newest first."""
    if not self._directory.exists():
      return []
    with os.scandir(self._directory) as found:
      ages = {entry.name: entry.stat().st_mtime_ns for entry in found if entry.is_file()}
    matches = (pattern.fullmatch(name) for name in sorted(ages, key=lambda n: (-ages[n], n)))
    return [match for match in matches if match]

  def begin(self) -> None:
    """Makes the directory and its token, and deletes what clients left that were killed."""
    self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if self._directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
      # Who puts a preparation here whose masks he knows, and sees the traffic, learns an image.
      _LOGGER.warning(
        'event=directory_is_open path="%s" reason="others may write"', self._directory
      )
    if not self._token.exists():
      with atomic_files.writing(self._token, private=True) as file:
        file.write(self.token.hex().encode())
    for match in self._matches(self._left):
      (self._directory / match.string).unlink(missing_ok=True)

  def layers(self) -> 'GrowingLayers':
    """Where the finished layers of a preparation are written until it is complete."""
    # Named as what `begin` deletes where a client was killed.
    name = Name('0' * 32, 'unfinished', OUTPUTS[0], secrets.token_hex(ID_BYTES))
    path = self._path(name, _PREPARED)
    return GrowingLayers(
      path.with_name(f'.{path.name}.{secrets.token_hex(4)}{atomic_files.PARTIAL}')
    )

  def write(self, name: Name, made: ClientMaterial) -> None:
    """Keeps a preparation; ValueError if its layers are not in what `layers` made."""
    if not isinstance(made.layers, GrowingLayers):
      raise ValueError('a preparation whose layers are not in a file')
    made.layers.finish(self._path(name, _PREPARED), made.own_arrays())

  def mark(self, names: Sequence[Name]) -> None:
    """Marks preparations as used; when this returns, the disk has it."""
    for name in names:
      os.rename(self._path(name, _PREPARED), self._path(name, _USED))
    atomic_files.force_renames(self._directory)

  def load(self, name: Name) -> ClientMaterial:
    """A preparation that is marked as used, whose file goes."""
    path = self._path(name, _USED)
    # Layers are read when an inference reaches them. The file has no name any more by then.
    file = np.load(path, allow_pickle=False)
    path.unlink()
    return ClientMaterial.from_arrays(bytes.fromhex(name.identifier), file, name.output)

  def delete(self, names: Iterable[Name]) -> None:
    """Deletes preparations that nobody can use any more."""
    for name in names:
      self._path(name, _PREPARED).unlink(missing_ok=True)

  def age(self, name: Name) -> float:
    """Seconds since a preparation was made; 0 where its file is gone."""
    path = self._path(name, _PREPARED)
    return max(0.0, time.time() - path.stat().st_mtime) if path.exists() else 0.0

  def _path(self, name: Name, suffix: str) -> pathlib.Path:
    return self._directory / ('-'.join((self._server, *name)) + suffix)

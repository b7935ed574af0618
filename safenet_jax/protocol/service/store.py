"""Keeps prepared inferences until they are used: each at most once, even across a crash."""

from collections.abc import Iterable
import os
import pathlib
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from safenet_jax import atomic_files
from safenet_jax.protocol.delphi.material import ClientMaterial, ServerMaterial
from safenet_jax.transport.accounts import Accounts, BYTES
from safenet_jax.transport.frames import ProtocolError

_SUFFIX = '.prepared'


class ClientStore:
  """The client's preparations with one model, in memory or in a directory.

  In a directory each preparation is a file. Before a preparation is given out, its file is
  renamed, and the renaming is on the disk. Whatever happens then, it is not given out
  again. Preparations with other models are deleted, since this server would not know them.
  A directory is for one client at a time.
  """

  def __init__(self, model_id: bytes, directory: str | os.PathLike[str] | None = None):
    self._memory: dict[bytes, ClientMaterial] = {}
    self._lock = threading.Lock()
    self._directory = None if directory is None else pathlib.Path(directory)
    self._model = model_id.hex()
    if self._directory is not None:
      self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
      for path in self._directory.iterdir():
        used = path.suffix in ('.used', atomic_files.PARTIAL)
        if used or (path.suffix == _SUFFIX and not path.name.startswith(self._model)):
          path.unlink(missing_ok=True)

  def __len__(self) -> int:
    return len(self._paths('*')) if self._directory else len(self._memory)

  def count(self, output: str) -> int:
    """Preparations for one of `structure.OUTPUTS`."""
    return len(self._paths(output)) if self._directory else len(self._names(output))

  def _names(self, output: str) -> list[bytes]:
    return [name for name, kept in list(self._memory.items()) if kept.output == output]

  def _paths(self, output: str) -> list[pathlib.Path]:
    pattern = f'{self._model}-{output}-*{_SUFFIX}'
    return sorted(self._directory.glob(pattern)) if self._directory else []

  def put(self, material: ClientMaterial) -> None:
    """Keeps a preparation."""
    if self._directory is None:
      with self._lock:
        self._memory[material.identifier] = material
      return
    name = f'{self._model}-{material.output}-{material.identifier.hex()}{_SUFFIX}'
    arrays: dict[str, Any] = dict(material.arrays())
    with atomic_files.writing(self._directory / name, private=True) as file:
      np.savez(file, **arrays)

  def take(self, count: int, output: str = 'logits') -> list[ClientMaterial]:
    """Gives out `count` preparations for an output.

    They count as used from then on, whatever becomes of them.

    Raises:
      ValueError: there are fewer; then none counts as used.
    """
    with self._lock:
      if self._directory is None:
        names = self._names(output)[:count]
        self._enough(len(names), count)
        return [self._memory.pop(name) for name in names]
      paths = self._paths(output)[:count]
      self._enough(len(paths), count)
      used = [path.with_suffix('.used') for path in paths]
      for path, marked in zip(paths, used):
        os.rename(path, marked)
      atomic_files.force_renames(self._directory)
    return [_load(path) for path in used]

  def _enough(self, found: int, count: int) -> None:
    if found < count:
      raise ValueError(f'{found} prepared inferences, want {count}')


def _load(path: pathlib.Path) -> ClientMaterial:
  identifier = bytes.fromhex(path.stem.split('-')[-1])
  with np.load(path, allow_pickle=False) as file:
    material = ClientMaterial.from_arrays(identifier, dict(file))
  path.unlink()
  return material


class _Kept(NamedTuple):
  start: float
  ticket: int
  material: ServerMaterial


class ServerStore:
  """The server's side of all clients' preparations, in memory.

  Their memory is reserved in the accounts before they are made, and given back as they go.
  A server that is started again knows none of them. It serves under a new model id.
  """

  def __init__(self, accounts: Accounts, keep_seconds: float):
    """Starts empty.

    Args:
      accounts: where their memory is reserved, and which says whose preparations are given up.
      keep_seconds: how long a preparation is kept.
    """
    self._accounts, self._keep = accounts, keep_seconds
    self._lock = threading.Lock()
    self._found: dict[bytes, _Kept] = {}
    accounts.on_evict(lambda ticket, reason: self.give_up(ticket), BYTES)

  def __len__(self) -> int:
    return len(self._found)

  def put(self, material: ServerMaterial, ticket: int) -> None:
    """Keeps a preparation, whose bytes were reserved under this ticket."""
    with self._lock:
      self._found[material.identifier] = _Kept(time.monotonic(), ticket, material)

  def give_up(self, ticket: int) -> None:
    """Forgets all preparations whose bytes were reserved under this ticket."""
    with self._lock:
      for identifier in [name for name, kept in self._found.items() if kept.ticket == ticket]:
        self._drop(identifier)

  def expire(self) -> None:
    """Forgets what is too old."""
    with self._lock:
      self._expire()

  def take(self, identifiers: Iterable[bytes]) -> list[ServerMaterial]:
    """Gives out the preparations of these names, which count as used from then on.

    Raises:
      ProtocolError: one is not known, was used before, or is named twice. Those that are
        named before it count as used all the same.
    """
    with self._lock:
      self._expire()
      found = []
      for identifier in identifiers:
        if identifier not in self._found:
          raise ProtocolError(
            f'no preparation {identifier.hex()}: it was used, is too old, or of another server'
          )
        found.append(self._drop(identifier))
      return found

  def _expire(self) -> None:
    oldest = time.monotonic() - self._keep
    for identifier in [name for name, kept in self._found.items() if kept.start < oldest]:
      self._drop(identifier)

  def _drop(self, identifier: bytes) -> ServerMaterial:
    kept = self._found.pop(identifier)
    self._accounts.release(kept.ticket, kept.material.nbytes)
    return kept.material

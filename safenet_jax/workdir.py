"""What a run leaves on disk; the only interface between its phases.

config.json       the settings of every section that a phase has used
metrics.jsonl     one JSON object per line, each with its phase and step
plan.json         the plan that the search found
evaluations.json  accuracies of the run's networks; each is to see the test images once
thin/             a thin all-ReLU network's run, to compare with the plan
client_ledger.json  bytes and seconds of private inferences by two processes
ledger.json       the same of one inference that was simulated
fixed_point.json  scores of all test images in fixed point, as the network is served
checkpoints/      orbax checkpoints, one folder per phase
.lock             which process writes here now

One process writes at a time; any number may read meanwhile.
"""

from collections.abc import Iterator, Mapping
import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from safenet_jax import atomic_files, json_files, locks

_METRICS = 'metrics.jsonl'
# What readers take for granted of a file, or of each entry of one that holds a list.
_KEYS = {
  'plan.json': ('activations', 'replaced', 'validation_accuracy'),
  'evaluations.json': ('phase', 'split', 'accuracy'),
  'ledger.json': ('phases',),
  'client_ledger.json': ('phases',),
  'fixed_point.json': ('images', 'float_correct', 'correct', 'agreement', 'left'),
}
_LISTS = ('evaluations.json',)
# Bytes that a checkpoint may take besides its arrays; a small one takes 40,000.
_ROOM = 1 << 20
# Folders of checkpoints that orbax has not finished.
_UNFINISHED = '*.orbax-checkpoint-tmp*'


class Workdir:
  """A run's directory, which is made when the first phase claims it.

  A path that begins with ~ is below the home directory.
  """

  def __init__(self, path: str | os.PathLike[str]):
    self.path = pathlib.Path(path).expanduser().absolute()
    self._lock: locks.Lock | None = None

  def __truediv__(self, name: str) -> pathlib.Path:
    return self.path / name

  def check(self, sections: Mapping[str, Any]) -> None:
    """Checks settings against those recorded; changes nothing.

    Args:
      sections: name of a section to a JSON-like dict of its settings.

    Raises:
      ValueError: the directory belongs to a run with other settings, or holds
        files that no run of this package has written.
      NotADirectoryError: it is a file, or below one.
    """
    for place in (self.path, *self.path.parents):
      if place.exists():
        if not place.is_dir():
          raise NotADirectoryError(f'{place} is a file, want a directory for the run')
        break
    recorded = self._recorded()
    if not recorded and self.path.is_dir() and any(map(_foreign, os.listdir(self.path))):
      raise ValueError(
        f'{self.path} is not empty and has no config.json, want a new directory or a workdir'
      )
    wanted = json.loads(json.dumps(sections))
    for section, settings in wanted.items():
      if section not in recorded:
        continue
      for key in sorted(settings.keys() | recorded[section].keys()):
        old, new = recorded[section].get(key), settings.get(key)
        if old != new:
          raise ValueError(
            f'{self.path} was written with {section}.{key}={old!r}, got {new!r}: '
            'use another workdir'
          )

  def claim(self, sections: Mapping[str, Any]) -> None:
    """Records a phase's settings, or checks them against those recorded.

    From then on no other process may claim the directory, until `release` or the end of this
    process. Of the processes of one distributed run, process 0 claims it for all.

    Args:
      sections: name of a section to a JSON-like dict of its settings.

    Raises:
      ValueError, NotADirectoryError: as `check`. Nothing is changed.
      BlockingIOError: another process has claimed it; names host and process.
      OSError: nothing can be written there.
    """
    self.check(sections)  # before anything is made
    if jax.process_index():
      return
    self.path.mkdir(parents=True, exist_ok=True)
    held = self._lock
    self._lock = held or locks.Lock(self.path)
    try:
      self.check(sections)  # another process may have been here before the lock
      recorded = self._recorded()
      if sections.keys() - recorded.keys():
        self.write_json('config.json', recorded | dict(sections))
    except BaseException:
      if not held:
        self.release()
      raise

  def release(self) -> None:
    """Lets other processes claim the directory."""
    if self._lock:
      lock, self._lock = self._lock, None
      lock.release()

  def _recorded(self) -> dict[str, Any]:
    return self.read_json('config.json', '') if (self / 'config.json').exists() else {}

  def write_json(self, name: str, value: Any) -> None:
    """Writes a JSON file in one step: whatever happens, the old or the new file is there."""
    atomic_files.write_json(self / name, value)

  def read_json(self, name: str, phase: str) -> Any:
    """Reads a JSON file that `phase` writes.

    Raises:
      FileNotFoundError: it is not there; says to run the phase first.
      ValueError: it is cut, damaged, or holds something else; names file and line, and says what
        to do.
    """
    path = self / name
    mend = f'delete it and run {phase} again'
    if name == 'config.json':  # nothing else knows what the run's settings were
      mend = 'restore it from a copy, or use another workdir'
    try:
      found = json_files.read(path, mend=mend)
    except FileNotFoundError:
      raise FileNotFoundError(f'no {name} in {self.path}: run {phase} first') from None
    keys = _KEYS.get(name, ())
    entries = found if name in _LISTS else [found]
    if name == 'config.json' and isinstance(found, dict):
      entries = [found, *found.values()]
    if not isinstance(entries, list) or not all(
      isinstance(entry, dict) and set(keys) <= entry.keys() for entry in entries
    ):
      wanted = f' with {", ".join(keys)}' if keys else ''
      raise ValueError(f'{path} does not hold what it should, want JSON objects{wanted}: {mend}')
    return found

  def log(self, phase: str, step: int, **metrics) -> None:
    """Appends one line to metrics.jsonl; it is on the disk before a checkpoint of its step."""
    if jax.process_index() == 0:
      json_files.append_line(self / _METRICS, {'phase': phase, 'step': step, **metrics})

  def metrics(self, phase: str | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, of one phase if given.

    Raises:
      ValueError: a line is damaged; names file and line. An unfinished last line is no error.
    """
    lines = json_files.read_lines(self / _METRICS, ('phase', 'step'))
    return [line for line in lines if phase in (None, line['phase'])]

  def rewind(self, phase: str, step: int) -> None:
    """Drops a phase's lines at or after `step`: a resumed run writes them again."""
    if jax.process_index() or not (self / _METRICS).exists():
      return
    kept = [line for line in self.metrics() if line['phase'] != phase or line['step'] < step]
    json_files.write_lines(self / _METRICS, kept)

  def steps(self, phase: str) -> int:
    """How many steps of a phase are done and saved; 0 if it was never run."""
    if not (self.path / 'checkpoints' / phase).is_dir():
      return 0
    checkpoints = self.checkpoints(phase)
    checkpoints.close()
    return checkpoints.step

  def checkpoints(self, phase: str) -> 'Checkpoints':
    """The checkpoints of one phase."""
    return Checkpoints(self.path / 'checkpoints' / phase)


def _foreign(name: str) -> bool:
  """Whether a file in a directory without config.json is none that `claim` left there."""
  return name != locks.NAME and not name.endswith(atomic_files.PARTIAL)


class Checkpoints:
  """The latest state of one phase; all phases of this package keep their checkpoints so."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    # Not asynchronous, so that a checkpoint is complete before its step is logged.
    self._manager = ocp.CheckpointManager(
      path, options=ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    )

  @property
  def step(self) -> int:
    """How many steps are done; 0 without a checkpoint."""
    return self._manager.latest_step() or 0

  def save(self, step: int, tree: Any) -> None:
    """Saves a pytree of arrays; `step` counts the steps that are done.

    If several devices hold an array, each holds all of it. Arrays are saved as numpy
    arrays, so that a run may continue on other devices.

    Raises:
      OSError: it cannot be written, because the disk is full for example. Then the checkpoint
        before it is still the latest.
    """
    arrays = jax.tree.map(np.asarray, tree)
    # Asked before, because TensorStore's threads print hundreds of lines on a full disk.
    if shutil.disk_usage(self._path).free < _ROOM + sum(a.nbytes for a in jax.tree.leaves(arrays)):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(self._path))
    try:
      with _quiet():
        self._manager.save(step, args=ocp.args.StandardSave(arrays))
    except (OSError, ValueError, RuntimeError) as error:
      code = getattr(error, 'errno', None) or _system_error(str(error))
      if not code:
        raise
      if jax.process_index() == 0:
        for path in self._path.glob(_UNFINISHED):
          shutil.rmtree(path, ignore_errors=True)  # a full disk needs the room
      raise OSError(code, os.strerror(code), os.fspath(self._path)) from error

  def restore(self, like: Any) -> tuple[int, Any] | None:
    """The latest (step, pytree), shaped `like` the given one, or None.

    Raises:
      ValueError: the checkpoint is damaged, or holds something else.
    """
    step = self._manager.latest_step()
    if step is None:
      return None
    shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    try:
      with _quiet():
        found = self._manager.restore(step, args=ocp.args.StandardRestore(shapes))
    except Exception as error:  # orbax raises a dozen unrelated types on damaged files
      reason = str(error).strip().partition('\n')[0][:100] or type(error).__name__
      raise ValueError(
        f'{self._path / str(step)} cannot be read ({reason}), want a checkpoint of the '
        f'network: delete it and run {self._path.name} again'
      ) from error

    # Orbax commits arrays to devices, and jitted functions would compile again for them.
    def uncommitted(leaf, old):
      leaf = np.asarray(leaf)
      return leaf if isinstance(old, np.ndarray) else jnp.asarray(leaf)

    return step, jax.tree.map(uncommitted, found, like)

  def close(self) -> None:
    """Ends the background work of the checkpoint library."""
    self._manager.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps orbax's threads from logging traces of what is raised as an error anyway."""
  logger = logging.get_absl_logger()

  def calm(record):
    return record.levelname != 'ERROR'

  logger.addFilter(calm)
  try:
    yield
  finally:
    logger.removeFilter(calm)


def _system_error(text: str) -> int | None:
  """The system's error number in a message of TensorStore, which writes the arrays."""
  found = re.search(r"os_error_code='(\d+)'", text)
  return int(found[1]) if found else None

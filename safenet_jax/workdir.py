"""What a run leaves on disk; the only interface between its phases.

config.json       the settings of every section that a phase has used
metrics.jsonl     one JSON object per line, each with its phase and step
plan.json         the plan that the search found
evaluations.json  accuracies of the run's networks; each is to see the test images once
thin/             a thin all-ReLU network's run, to compare with the plan
client_ledger.json  bytes and seconds of private inferences by two processes
ledger.json       the same of one inference that was simulated
checkpoints/      orbax checkpoints, one folder per phase
"""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from safenet_jax import atomic_files


class Workdir:
  """A run's directory, which is made when the first phase claims it."""

  def __init__(self, path: str | os.PathLike[str]):
    self.path = pathlib.Path(path).absolute()

  def __truediv__(self, name: str) -> pathlib.Path:
    return self.path / name

  def claim(self, sections: Mapping[str, Any]) -> None:
    """Records a phase's settings, or checks them against those recorded.

    Args:
      sections: name of a section to a JSON-like dict of its settings.

    Raises:
      ValueError: the directory belongs to a run with other settings, or holds
        files that no run of this package has written. Nothing is changed.
    """
    path = self / 'config.json'
    if not path.exists() and self.path.is_dir() and any(self.path.iterdir()):
      raise ValueError(
        f'{self.path} is not empty and has no config.json, want a new directory or a workdir'
      )
    recorded = json.loads(path.read_text()) if path.exists() else {}
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
    if wanted.keys() - recorded.keys():
      self.path.mkdir(parents=True, exist_ok=True)
      self.write_json('config.json', recorded | wanted)

  def write_json(self, name: str, value: Any) -> None:
    """Writes a JSON file in one step: whatever happens, the old or the new file is there."""
    atomic_files.write_json(self / name, value)

  def read_json(self, name: str, phase: str) -> Any:
    """Reads a JSON file that `phase` writes; FileNotFoundError says to run that first."""
    try:
      return json.loads((self / name).read_text())
    except FileNotFoundError:
      raise FileNotFoundError(f'no {name} in {self.path}: run {phase} first') from None

  def log(self, phase: str, step: int, **metrics) -> None:
    """Appends one line to metrics.jsonl."""
    if jax.process_index() == 0:
      with open(self / 'metrics.jsonl', 'a') as file:
        file.write(json.dumps({'phase': phase, 'step': step, **metrics}) + '\n')

  def metrics(self, phase: str | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, of one phase if given."""
    path = self / 'metrics.jsonl'
    if not path.exists():
      return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if phase in (None, line['phase'])]

  def rewind(self, phase: str, step: int) -> None:
    """Drops a phase's lines at or after `step`: a resumed run writes them again."""
    path = self / 'metrics.jsonl'
    if jax.process_index() or not path.exists():
      return
    kept = []
    for text in path.read_text().splitlines():
      try:
        line = json.loads(text)
      except json.JSONDecodeError:
        continue  # cut off by a crash in the middle of a write
      if line['phase'] != phase or line['step'] < step:
        kept.append(text + '\n')
    atomic_files.write_text(path, ''.join(kept))

  def checkpoints(self, phase: str) -> 'Checkpoints':
    """The checkpoints of one phase."""
    return Checkpoints(self.path / 'checkpoints' / phase)


class Checkpoints:
  """The latest state of one phase; all phases of this package keep their checkpoints so."""

  def __init__(self, path: pathlib.Path):
    # Not asynchronous, so that a checkpoint is complete before its step is logged.
    self._manager = ocp.CheckpointManager(
      path, options=ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    )

  def save(self, step: int, tree: Any) -> None:
    """Saves a pytree of arrays; `step` counts the steps that are done.

    If several devices hold an array, each holds all of it. Arrays are saved as numpy
    arrays, so that a run may continue on other devices.
    """
    self._manager.save(step, args=ocp.args.StandardSave(jax.tree.map(np.asarray, tree)))

  def restore(self, like: Any) -> tuple[int, Any] | None:
    """The latest (step, pytree), shaped `like` the given one, or None."""
    step = self._manager.latest_step()
    if step is None:
      return None
    shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    found = self._manager.restore(step, args=ocp.args.StandardRestore(shapes))

    # Orbax commits arrays to devices, and jitted functions would compile again for them.
    def uncommitted(leaf, old):
      leaf = np.asarray(leaf)
      return leaf if isinstance(old, np.ndarray) else jnp.asarray(leaf)

    return step, jax.tree.map(uncommitted, found, like)

  def close(self) -> None:
    """Ends the background work of the checkpoint library."""
    self._manager.close()

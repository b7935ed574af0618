"""The scores of a run's networks: evaluations.json, one list that all commands append to."""

from typing import Any

from safenet_jax.data import Dataset
from safenet_jax.models.network import Network
from safenet_jax.search import fit
from safenet_jax.search.members import Member, Task
from safenet_jax.workdir import Workdir

NAME = 'evaluations.json'


def records(workdir: Workdir, phase: str = '', split: str = 'test') -> list[dict[str, Any]]:
  """The scores of one phase on one split, oldest first; without `phase`, all scores."""
  found = workdir.read_json(NAME, 'evaluate') if (workdir / NAME).exists() else []
  return [r for r in found if not phase or (r['phase'], r['split']) == (phase, split)]


def score(
  workdir: Workdir,
  phase: str,
  split: str,
  member: Member,
  task: Task,
  network: Network,
  images: Dataset,
  force: bool = False,
) -> dict[str, Any]:
  """Scores a member with `network`, records the score and returns the record.

  Raises:
    ValueError: the test images have scored this phase before, and `force` is False.
  """
  seen = records(workdir, phase, split)
  repeated = split == 'test' and bool(seen)
  if repeated and not force:
    raise ValueError(
      f'the test images have scored {phase} already ({seen[0]["accuracy"]:.2%}): '
      'numbers chosen on them are no test; --force scores them again and marks it'
    )
  accuracy = float(fit.evaluate(member, task.replace(network=network), *getattr(images, split)))
  record = {
    'phase': phase,
    'split': split,
    'images': len(getattr(images, split).labels),
    'accuracy': accuracy,
    'repeated': repeated,
  }
  workdir.write_json(NAME, [*records(workdir), record])
  return record


def tested(
  workdir: Workdir, phase: str, member: Member, task: Task, network: Network, images: Dataset
) -> dict[str, Any]:
  """The phase's score on the test images: the last one on record, else scored now."""
  seen = records(workdir, phase)
  return seen[-1] if seen else score(workdir, phase, 'test', member, task, network, images)

"""Training one member for epochs, with a log, checkpoints and exact resume."""

from collections.abc import Callable
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from safenet_jax import data
from safenet_jax.models import compilation
from safenet_jax.search import members
from safenet_jax.search.members import Member, Task
from safenet_jax.workdir import Workdir

# Steps in one jitted call at most: often enough for a progress bar.
MAX_CHUNK = 40


@compilation.jit(donate_argnames='member')
def train_chunk(key, member, task, batches, rates, blends):
  """A chunk of `fit`: `member.train`, compiled; the member is donated."""
  return members.train(key, member, task, batches, rates=rates, blends=blends)


@compilation.jit
def _finish(key, member, task):
  member = members.recalibrate(key, member, task)
  return member, members.accuracy(member, task, *task.validation)


evaluate = compilation.jit(members.accuracy)


def steps_per_epoch(images: int, batch_size: int) -> int:
  """How many whole batches a number of images makes; ValueError if there is none."""
  steps = images // batch_size
  if not steps:
    raise ValueError(f'batch size {batch_size}, want at most the {images} training images')
  return steps


def fit(
  key: jax.Array,
  member: Member,
  task: Task,
  workdir: Workdir,
  *,
  phase: str,
  epochs: int,
  warmup_epochs: float = 0.0,
  anneal_epochs: float = 0.0,
  keep_best: bool = False,
  kept: bool = False,
  progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> Member:
  """Trains for `epochs` epochs on a cosine schedule, then recalibrates batch norm.

  The same call on the same workdir resumes after the last epoch that was finished.
  Its result is that of a call that was never interrupted. With no epochs the weights stay as
  they are; batch norm is recalibrated, and the member is scored.

  Args:
    key: all batches and augmentations are drawn with it.
    member: at the start; its learning rate is the schedule's peak.
    task: the shared data.
    workdir: gets one line and one checkpoint per epoch under `phase`.
    phase: name of this training.
    epochs: passes over the training set, 0 or more.
    warmup_epochs: linear warm-up before the cosine decay to zero.
    anneal_epochs: epochs over which replaced channels go from ReLU to the polynomial.
    keep_best: return the epoch with the highest validation accuracy instead of the last one; of
      equal ones the later. Its checkpoint is under `<phase>_best`.
    kept: with no epochs, batch norm keeps its statistics: the member is scored as it is.
    progress: called as (steps done, steps in all, last metrics) after a chunk of
      steps. From the second chunk on, when nothing is compiled any more, the
      metrics have its images/s. The log has no times, so that a resumed run
      writes the same log.

  Returns:
    The trained member with its validation accuracy. If the member keeps an
    average of its weights, that average is its weights now.

  Raises:
    FloatingPointError: the loss became NaN or infinite; names the step.
  """
  epoch_steps = steps_per_epoch(task.train.labels.size, task.training.batch_size)
  total = epochs * epoch_steps
  # The largest chunk that divides an epoch has one compiled shape.
  chunk = max(c for c in range(1, min(MAX_CHUNK, epoch_steps) + 1) if epoch_steps % c == 0)
  chunk = epoch_steps if chunk < 8 else chunk
  schedule = optax.warmup_cosine_decay_schedule(
    0.0 if warmup_epochs else 1.0,
    1.0,
    # Of epochs with few steps, a warm-up that is shorter may be rounded to all of them.
    min(max(1, round(warmup_epochs * epoch_steps)), max(total, 2) - 1),
    max(total, 2),
    0.0,
  )
  anneal_steps = anneal_epochs * epoch_steps

  checkpoints = workdir.checkpoints(phase)
  found = checkpoints.restore({'member': member})
  done, member = (found[0], found[1]['member']) if found else (0, member)
  best = _Best(workdir, phase, member, done) if keep_best else None
  # Donated below, and a restored array may still belong to the caller.
  member = jax.tree.map(jnp.copy, member)
  workdir.rewind(phase, done + 1 if found else 0)

  metrics: dict[str, float] = {}
  speed: dict[str, float] = {}
  compiled = False
  for epoch in range(done // epoch_steps, epochs):
    epoch_key = jax.random.fold_in(key, epoch)
    order = data.epoch_order(epoch_key, task.train.labels.size, task.training.batch_size)
    losses = []
    for first in range(0, epoch_steps, chunk):
      steps = epoch * epoch_steps + first + np.arange(chunk)
      blends = np.clip(1 - steps / anneal_steps, 0, 1) if anneal_steps else np.zeros(chunk)
      begun = time.perf_counter()
      member, chunk_losses = train_chunk(
        jax.random.fold_in(epoch_key, first),
        member,
        task,
        order[first : first + chunk],
        schedule(steps),
        jnp.asarray(blends, jnp.float32),
      )
      chunk_losses = np.asarray(chunk_losses)
      if compiled:
        seconds = time.perf_counter() - begun
        speed = {'images/s': chunk * task.training.batch_size / seconds}
      compiled = True
      if not np.isfinite(chunk_losses).all():
        step = int(steps[np.argmin(np.isfinite(chunk_losses))])
        raise FloatingPointError(
          f'{phase}: the loss is {chunk_losses[step - steps[0]]} at step {step}'
        )
      losses.append(chunk_losses)
      metrics['loss'] = float(chunk_losses.mean())
      if progress:
        progress(int(steps[-1]) + 1, total, metrics | speed)
    finished, accuracy = _finish(jax.random.fold_in(epoch_key, epoch_steps), member, task)
    metrics = {
      'loss': float(np.concatenate(losses).mean()),
      'validation_accuracy': float(accuracy),
      'learning_rate': float(member.learning_rate * schedule(steps[-1])),
    }
    if not math.isfinite(metrics['loss']):
      raise FloatingPointError(f'{phase}: the loss is {metrics["loss"]} in epoch {epoch}')
    finished = members.averaged(finished).replace(accuracy=accuracy)
    if best:
      finished = best.offer(int(steps[-1]) + 1, finished)
    member = finished if epoch + 1 == epochs else member.replace(accuracy=accuracy)
    workdir.log(phase, int(steps[-1]) + 1, epoch=epoch + 1, **metrics)
    checkpoints.save(int(steps[-1]) + 1, {'member': member})
    if progress:
      progress(int(steps[-1]) + 1, total, metrics | speed)
  if not epochs and not found:
    if kept:
      member = member.replace(accuracy=evaluate(member, task, *task.validation))
    else:
      finished, accuracy = _finish(key, member, task)
      member = members.averaged(finished).replace(accuracy=accuracy)
    workdir.log(phase, 0, epoch=0, validation_accuracy=float(member.accuracy))
    checkpoints.save(0, {'member': member})
  checkpoints.close()
  if best:
    best.close()
  return member


class _Best:
  """The member with the highest accuracy so far, on the disk before its epoch is done."""

  def __init__(self, workdir: Workdir, phase: str, like: Member, done: int):
    """Takes up what epochs until step `done` left, shaped `like` the given member."""
    self._checkpoints = workdir.checkpoints(f'{phase}_best')
    found = self._checkpoints.restore({'member': like}) if done else None
    self._member: Member | None = found[1]['member'] if found else None

  def offer(self, step: int, member: Member) -> Member:
    """The best one, the member of this step among them; a repeated epoch's is the same."""
    if self._member is not None and member.accuracy < self._member.accuracy:
      return self._member
    # Arrays that recalibration leaves as they are belong to the next step, which reuses them.
    self._member = jax.tree.map(jnp.copy, member)
    if self._checkpoints.step < step:
      self._checkpoints.save(step, {'member': self._member})
    return self._member

  def close(self) -> None:
    self._checkpoints.close()

"""The phases from an untrained network to a planned one.

  train        trains the all-ReLU network
  search_plan  finds which of its channels become polynomials, and trains the result on
  finetune     trains a plan that was written by hand instead

These three take plain arguments and return what the next phase takes. Below them is what they are
made of: functions of one member, which the commands in `experiments/` call as well.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import os
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np

from safenet_jax import ranges
from safenet_jax.approximation import activation, plans
from safenet_jax.data import Dataset
from safenet_jax.models import weights
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.search import fit, members, pbt, schedule, score, strategy
from safenet_jax.search import teacher as teachers
from safenet_jax.search.members import Member, Task
from safenet_jax.search.planners import algorithms
from safenet_jax.search.training import record, Training
from safenet_jax.workdir import Workdir

# Small batches without augmentation: right for a few thousand small images and a few epochs.
TRAINING = Training(batch_size=64, augment=False)
# The same, and half of the loss comes from the soft labels of the all-ReLU network.
DISTILLED = dataclasses.replace(TRAINING, distillation=0.5)
# A phase's number is part of its key.
PHASES = ('init', 'pretrain', 'search', 'finetune', 'control')

Progress = Callable[[int, int, dict[str, Any]], None]


class Trained(NamedTuple):
  """An all-ReLU network that was trained.

  variables: its weights and batch-norm statistics, {'params', 'batch_stats'}.
  accuracy: share of the validation images that it classifies right.
  """

  variables: dict[str, Any]
  accuracy: float


class Planned(NamedTuple):
  """A network some of whose channels are polynomials, and that was trained so.

  plan: ratio and degree of every activation layer.
  variables: its weights and batch-norm statistics, {'params', 'batch_stats'}.
  approximation: the polynomials of every activation layer, as the network and
    `quantize` take them.
  accuracy: share of the validation images that it classifies right.
  replaced: share of the network's ReLUs that the plan replaces.
  """

  plan: plans.Plan
  variables: dict[str, Any]
  approximation: tuple[activation.Approximation, ...]
  accuracy: float
  replaced: float


def train(
  network: Network,
  images: Dataset,
  *,
  start: dict[str, Any] | None = None,
  epochs: int = 8,
  learning_rate: float = 0.1,
  warmup_epochs: float = 0.5,
  training: Training = TRAINING,
  teacher: teachers.Teacher | None = None,
  seed: int = 0,
  workdir: Workdir | str | os.PathLike[str] | None = None,
  progress: Progress | None = None,
) -> Trained:
  """Trains a network with ReLUs everywhere, from random weights or from those that are given.

  Args:
    network: the one to train.
    images: what it is trained on, and validated on.
    start: its weights, as of `load_variables` or `from_onnx`; None draws them.
    epochs: passes over the training images; with 0 the weights that are given stay as they are.
    learning_rate: its highest value; from there it falls to zero along a cosine.
    warmup_epochs: epochs in which it rises to that value first.
    training: the options of a training step.
    teacher: a trained network to learn from, if `training.distillation` is not 0.
    seed: of the first weights and of the order of the images.
    workdir: a directory for logs and checkpoints; the same call resumes from it. A path is
      checked and locked first; a `Workdir` is taken as it is.
    progress: called as (steps done, steps in all, last metrics).

  Raises:
    ValueError: a setting out of its range (`ranges.RANGES`), images that the network does not
      take, no teacher to distil, neither epochs nor weights, or a directory of other settings.
    FloatingPointError: the loss became NaN or infinite; names the step.
  """
  settings = {
    'epochs': epochs,
    'learning_rate': learning_rate,
    'warmup_epochs': warmup_epochs,
    'training': record(training),
  }
  _check(network, images, settings, training, seed, 'pretrain')
  if training.distillation and teacher is None:
    raise ValueError(f'distillation {training.distillation} and no teacher, want one')
  if start is not None:
    weights.check(network, start)
  elif not epochs:
    raise ValueError('epochs 0, want weights to start with, or at least 1')
  with _place(workdir, 'train', network, images, settings, seed) as place:
    first = key(seed, 'init')
    member = members.untrained(first, learning_rate, network, training, start)
    task = Task.of(network, images, members.variables(member), training, teacher=teacher)
    member = fit.fit(
      key(seed, 'pretrain'),
      member,
      task.without_polynomials(),
      place,
      phase='pretrain',
      epochs=epochs,
      warmup_epochs=warmup_epochs,
      kept=True,
      progress=progress,
    )
  return Trained(members.variables(member), float(member.accuracy))


def search_plan(
  network: Network,
  trained: dict[str, Any],
  images: Dataset,
  *,
  algorithm: str = 'gates',
  accuracy_drop: float = 0.02,
  relu_budget: int = 0,
  population: int = 6,
  iterations: int = 20,
  node_cycles: int = 2,
  joint_cycles: int = 4,
  validation_images: int = 1000,
  epochs: int = 4,
  learning_rate: float = 0.02,
  training: Training = DISTILLED,
  seed: int = 0,
  workdir: Workdir | str | os.PathLike[str] | None = None,
  report: Progress | None = None,
  progress: Progress | None = None,
) -> Planned:
  """Searches a plan that saves much and loses little accuracy, and trains its network on.

  With the defaults, a search of a network with T activation layers trains on 6 x (2 T + 4) x 20
  batches.

  Args:
    network: whose ReLUs to replace.
    trained: its weights, of `train` or `load_variables`.
    images: what it is trained on; the search sees training and validation images.
    algorithm: one of `search.planners.algorithms.NAMES`; 'btpbt' is the paper's.
    accuracy_drop: how far below the all-ReLU network's accuracy a plan may be in the search. The
      result is trained on afterwards, and may then lie above or below that threshold.
    relu_budget: for algorithm 'budget', how many ReLUs may be left per image. That algorithm
      ignores accuracy_drop.
    population: how many networks are trained side by side; gates train one, for as long.
    iterations: batches that each of them trains on between two selections.
    node_cycles, joint_cycles: selections in each node of the tree, and in the joint search at its
      end. Other algorithms get as many in all.
    validation_images: the search scores on the first so many of them, or on all.
    epochs: how long the network is trained on after the search; with 0 its weights are those
      that the search left.
    learning_rate: of the search, and the highest of the training after it.
    training: the options of a training step. The all-ReLU network is the teacher.
    seed: of everything that is drawn.
    workdir: as of `train`; it may be the same one.
    report: called as (cycles done, cycles in all, the cycle's report) while it searches.
    progress: called as (steps done, steps in all, last metrics) while it trains after that.

  Raises:
    ValueError: an argument out of its range, weights or images that are not the network's, or
      a directory of other settings.
    RuntimeError: all members diverged, again and again.
  """
  settings = {
    'algorithm': algorithm,
    'accuracy_drop': accuracy_drop,
    'relu_budget': relu_budget,
    'population': population,
    'iterations': iterations,
    'node_cycles': node_cycles,
    'joint_cycles': joint_cycles,
    'validation_images': validation_images,
    'epochs': epochs,
    'learning_rate': learning_rate,
    'training': record(training),
  }
  build = functools.partial(
    algorithms.build,
    algorithm,
    score.activations(network),
    node_cycles=node_cycles,
    joint_cycles=joint_cycles,
    relu_budget=relu_budget,
  )
  _check(network, images, settings, training, seed)
  evolution = pbt.Evolution(population, iterations)
  build(evolution)  # refuses bad arguments first
  weights.check(network, trained)
  taught = teachers.own(network, trained, images, training)
  with _place(workdir, 'search_plan', network, images, settings, seed) as place:
    first = members.all_relu(trained, learning_rate, network, training)
    task = Task.of(
      network, images, trained, training, teacher=taught, validation_images=validation_images
    )
    found = search(
      key(seed, 'search'),
      members.fitted(first, network, images),
      task,
      place,
      build=build,
      evolution=evolution,
      accuracy_drop=accuracy_drop,
      learning_rate=learning_rate,
      report=report,
    )
    task = Task.of(network, images, trained, training, teacher=taught, channel_ranks=found.ranks)
    member = tune(
      key(seed, 'finetune'),
      found.member,
      task,
      place,
      epochs=epochs,
      learning_rate=learning_rate,
      progress=progress,
    )
  return _planned(member, task)


def finetune(
  network: Network,
  trained: dict[str, Any],
  plan: plans.Plan,
  images: Dataset,
  *,
  epochs: int = 4,
  learning_rate: float = 0.02,
  warmup_epochs: float = 0.0,
  anneal_epochs: float = 0.0,
  training: Training = DISTILLED,
  seed: int = 0,
  workdir: Workdir | str | os.PathLike[str] | None = None,
  progress: Progress | None = None,
) -> Planned:
  """Replaces the channels of a plan by polynomials and trains the network on.

  Args:
    network: whose ReLUs to replace.
    trained: its weights, of `train` or `load_variables`.
    plan: for every activation layer, of `make_plan`.
    images: what it is trained on, and validated on.
    epochs: passes over the training images; with 0 the weights stay as they are.
    learning_rate: its highest value; from there it falls to zero along a cosine.
    warmup_epochs: epochs in which it rises to that value first.
    anneal_epochs: epochs over which replaced channels go from ReLU to the polynomial.
    training: the options of a training step. The all-ReLU network is the teacher.
    seed: of the order of the images.
    workdir: as of `train`; one in which a plan was searched is taken.
    progress: called as (steps done, steps in all, last metrics).

  Raises:
    ValueError: a plan, weights or images that are not the network's, a setting out of its
      range, or a directory of other settings.
    FloatingPointError: the loss became NaN or infinite; names the step.
  """
  plans.check(plan, len(activation_channels(network)))
  settings = {
    'plan': [np.asarray(plan.ratio).tolist(), np.asarray(plan.degree).tolist()],
    'epochs': epochs,
    'learning_rate': learning_rate,
    'warmup_epochs': warmup_epochs,
    'anneal_epochs': anneal_epochs,
    'training': record(training),
  }
  _check(network, images, settings, training, seed)
  weights.check(network, trained)
  with _place(workdir, 'finetune', network, images, settings, seed) as place:
    taught = teachers.own(network, trained, images, training)
    task = Task.of(network, images, trained, training, teacher=taught)
    first = members.create(trained, plan, learning_rate, network, training)
    member = tune(
      key(seed, 'finetune'),
      members.fitted(first, network, images),
      task,
      place,
      epochs=epochs,
      learning_rate=learning_rate,
      warmup_epochs=warmup_epochs,
      anneal_epochs=anneal_epochs,
      progress=progress,
    )
  return _planned(member, task)


def _check(network, images: Dataset, settings, training: Training, seed, section: str = '') -> None:
  """ValueError for what a phase cannot work with, before it writes anything."""
  ranges.check_type('network', network, Network)
  ranges.check_type('images', images, Dataset)
  ranges.check(settings | {'seed': seed}, section)
  members.check_fit(network, images.train.images.shape[1:], images.classes)
  fit.steps_per_epoch(len(images.train.labels), training.batch_size)


@contextlib.contextmanager
def _place(workdir, phase: str, network, images, settings, seed: int) -> Iterator[Workdir]:
  """Where a phase writes; without a directory, a temporary one."""
  if isinstance(workdir, Workdir):
    yield workdir
  elif workdir is None:
    with tempfile.TemporaryDirectory() as folder:
      yield Workdir(folder)
  else:
    place = Workdir(workdir)
    given = {
      'network': repr(network.layers),
      'images': [images.name, *(len(split.labels) for split in (images.train, images.validation))],
      'seed': seed,
    }
    place.claim({phase: given | settings})
    try:
      yield place
    finally:
      place.release()


def _planned(member: Member, task: Task) -> Planned:
  sizes = score.activations(task.network)
  return Planned(
    member.plan,
    members.variables(member),
    members.approximation(member, task),
    float(member.accuracy),
    int(score.replaced(member.plan, sizes).sum()) / sum(sizes.counts),
  )


def key(seed: int, phase: str) -> jax.Array:
  """The key of one phase of PHASES in a run with this seed; all 64 bits of a seed count."""
  # JAX itself would take the low 32 bits alone.
  start = jax.random.key(seed % 2**32)
  if high := seed >> 32:
    start = jax.random.fold_in(start, high)
  return jax.random.fold_in(start, PHASES.index(phase))


class Found(NamedTuple):
  """What a search found.

  member: the winner, with its plan, weights, accuracy and score.
  batches: the most that its weights can have been trained on, its ancestors' included.
  ranks: of the channels, those that its gates learned or the task's.
  """

  member: Member
  batches: int
  ranks: tuple[jax.Array, ...]


def search(
  key: jax.Array,
  first: Member,
  task: Task,
  workdir: Workdir,
  *,
  build: Callable[[pbt.Evolution], algorithms.Search],
  evolution: pbt.Evolution,
  accuracy_drop: float,
  learning_rate: float,
  report: Progress | None = None,
) -> Found:
  """Searches a plan from a trained all-ReLU member.

  Args:
    key: of the whole search.
    first: the all-ReLU member, its polynomials fitted.
    task: the shared data. Its validation images score members, and also give A_t.
    workdir: gets log and checkpoints.
    build: the algorithm for an evolution, see `algorithms.build`.
    evolution: the settings of the population; its A_t is set here.
    accuracy_drop: how far A_t is below the accuracy of `first`.
    learning_rate: what members start with.
    report: called as (cycles done, cycles in all, the cycle's report).
  """
  baseline = fit.evaluate(first, task, *task.validation)
  start = members.restart(first, learning_rate, task.network, task.training)
  start = start.replace(accuracy=baseline, score=baseline)
  evolution = dataclasses.replace(evolution, threshold=float(baseline) - accuracy_drop)
  found = build(evolution)
  chosen = strategy.resolve(found.evolution, start, task, workdir)
  winner, cycles = schedule.run(
    key,
    start,
    task,
    found.steps,
    dataclasses.replace(found.evolution, strategy=chosen),
    workdir,
    proposer=found.proposer,
    report=report,
  )
  winner, ranks = members.settled(winner, task)
  return Found(winner, found.longest_line(cycles) * evolution.iterations, ranks)


def tune(
  key: jax.Array,
  member: Member,
  task: Task,
  workdir: Workdir,
  *,
  epochs: int,
  learning_rate: float,
  warmup_epochs: float = 0.0,
  anneal_epochs: float = 0.0,
  phase: str = 'finetune',
  progress: Progress | None = None,
) -> Member:
  """`fit.fit` from a member's weights, its optimiser anew; the best epoch is kept."""
  return fit.fit(
    key,
    members.restart(member, learning_rate, task.network, task.training),
    task,
    workdir,
    phase=phase,
    epochs=epochs,
    warmup_epochs=warmup_epochs,
    anneal_epochs=anneal_epochs,
    keep_best=True,
    progress=progress,
  )

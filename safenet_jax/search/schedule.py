"""Running a schedule of nodes to its end, with a log, checkpoints and exact resume."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import plans
from safenet_jax.search import gates, pbt, population, score, supernet
from safenet_jax.search.members import Gated, Member, Task
from safenet_jax.search.planners import proposer as proposers
from safenet_jax.workdir import Workdir

MAX_RESTARTS = 3


class Progress(NamedTuple):
  """Where a search stands; all of it is checkpointed after every cycle.

  state: the population of the running node.
  candidate: the member that the running node started from.
  winner: the best candidate of all finished nodes.
  first: the member that the search started from.
  agent: state of the algorithm's proposer, () without one.
  position: int32 [4]: index of the node, of the cycle in it, how often the node was
    restarted, and its last cycles in a row that found no better feasible member.
  cycles: int32 [nodes]: how many cycles each finished node was trained for.
  """

  state: population.State
  candidate: Member
  winner: Member
  first: Member
  agent: Any
  position: np.ndarray
  cycles: np.ndarray


def start(
  key: jax.Array,
  first: Member,
  task: Task,
  steps: list[pbt.Step],
  evolution: pbt.Evolution,
  proposer: proposers.Proposer | None = None,
) -> Progress:
  """The beginning of a search from one (all-ReLU) member."""
  if evolution.vary_momentum:
    first = first.replace(momentum=jnp.float32(task.training.momentum))
  if evolution.pace is not None:
    sizes = score.activations(task.network)
    first = Gated.of(first, gates.start(sizes, evolution.degrees, evolution.pace))
  agent = proposer.init(jax.random.fold_in(key, 2_000_000)) if proposer else ()
  zeros = np.zeros(4, np.int32), np.zeros(len(steps), np.int32)
  progress = Progress(None, first, first, first, agent, *zeros)  # type: ignore
  return _enter(key, progress, task, steps, evolution, proposer)


def node_of(step: pbt.Step, candidate: Member, task: Task) -> pbt.Node:
  """A step as a `pbt.Node`.

  If it starts from the candidate, its floor is what the candidate replaces in its active layers.
  """
  sizes = score.activations(task.network)
  active = jnp.asarray(step.active)
  kept = jnp.where(active, score.replaced(candidate.plan, sizes), 0).sum()
  floor = kept if step.start == 'candidate' else step.floor
  return pbt.Node(
    jnp.asarray(step.group, jnp.int32),
    active,
    jnp.asarray(floor, jnp.int32),
    jnp.asarray(step.enforced),
  )


def _enter(key, progress: Progress, task, steps, evolution, proposer) -> Progress:
  """The progress with the first population of the node at its position."""
  candidate, first = progress.candidate, progress.first
  index, _, restarts, _ = map(int, progress.position)
  step = steps[index]
  node = node_of(step, candidate, task)
  random = step.start == 'random'
  key = jax.random.fold_in(jax.random.fold_in(key, index), 1_000_000 + restarts)
  if step.fresh:
    candidate = candidate.replace(
      optimizer_state=first.optimizer_state, learning_rate=first.learning_rate
    )
  proposed = None
  if step.proposed:
    if proposer is None:
      raise ValueError(f'node {step.name} has proposed plans, want a proposer')
    proposed = proposer.propose(key, progress.agent, candidate.plan, index, evolution.population)
  elif step.draws > 1:
    count = step.draws * evolution.population
    drawn = population.draw_plans(
      key, candidate, task, node, evolution=evolution, random=random, count=count
    )
    proposed = supernet.choose(
      jax.random.fold_in(key, 1), candidate, drawn, task, evolution=evolution
    )
  state = population.begin(
    key,
    candidate,
    task,
    node,
    jnp.float32(0.5**restarts),
    evolution=evolution,
    random=random,
    proposed=proposed,
  )
  return progress._replace(state=state)


def advance(
  key: jax.Array,
  progress: Progress,
  task: Task,
  steps: list[pbt.Step],
  evolution: pbt.Evolution,
  proposer: proposers.Proposer | None = None,
) -> tuple[Progress, dict[str, Any]]:
  """Runs one cycle of a schedule; deterministic in its arguments.

  If every member diverges, the node is restarted at half the learning rate. After
  MAX_RESTARTS restarts that raises a RuntimeError. If no member of a node was
  feasible, the next node gets the candidate that this one was given. A node that ends
  early gives its cycles to nobody.

  Returns:
    The progress after the cycle, and its report (see `cycle`) as numpy arrays.
  """
  index, number, restarts, idle = map(int, progress.position)
  step = steps[index]
  node = node_of(step, progress.candidate, task)
  best_key = float(progress.state.best_key)  # the cycle takes the state
  cycle_key = functools.reduce(jax.random.fold_in, (index, number, restarts), key)
  state, report = population.cycle(cycle_key, progress.state, task, node, evolution=evolution)
  report = {name: np.asarray(value) for name, value in report.items()}
  report |= {'node': step.name, 'best_key': float(state.best_key)}
  if number == 0 and step.draws > 1:
    each = supernet.images(progress.candidate, task)
    report['supernet_images'] = step.draws * evolution.population * each

  if np.isneginf(report['score']).all():
    if restarts == MAX_RESTARTS:
      raise RuntimeError(f'node {step.name}: every member diverged {MAX_RESTARTS + 1} times')
    logging.warning('node %s: every member diverged, restarting at half the rate', step.name)
    progress = progress._replace(position=np.asarray([index, 0, restarts + 1, 0], np.int32))
    return _enter(key, progress, task, steps, evolution, proposer), report

  idle = 0 if report['best_key'] > best_key else idle + 1
  if number + 1 < step.cycles and not 0 < step.patience <= idle:
    position = np.asarray([index, number + 1, restarts, idle], np.int32)
    return progress._replace(state=state, position=position), report

  candidate, winner, agent = state.best, progress.winner, progress.agent
  if np.isfinite(state.best_key):
    before = population.selection_key(winner, node, score.activations(task.network), evolution)
    if not step.enforced or float(state.best_key) > float(before):
      winner = candidate
  if step.proposed and proposer:
    degrees = np.searchsorted(plans.DEGREES, report['degree'])
    trained = plans.Plan(jnp.asarray(report['ratio']), jnp.asarray(degrees, jnp.int32))
    agent = proposer.learn(agent, trained, report)
  position = np.asarray([index + 1, 0, 0, 0], np.int32)
  cycles = np.array(progress.cycles)
  cycles[index] = number + 1
  if index + 1 < len(steps):
    candidate = {'winner': winner, 'first': progress.first}.get(steps[index + 1].start, candidate)
  progress = Progress(state, candidate, winner, progress.first, agent, position, cycles)
  if index + 1 < len(steps):
    progress = _enter(key, progress, task, steps, evolution, proposer)
  return progress, report


def run(
  key: jax.Array,
  first: Member,
  task: Task,
  steps: list[pbt.Step],
  evolution: pbt.Evolution,
  workdir: Workdir,
  *,
  proposer: proposers.Proposer | None = None,
  phase: str = 'search',
  report: Callable[[int, int, dict[str, Any]], None] | None = None,
) -> tuple[Member, list[int]]:
  """Runs a schedule to its end.

  Every cycle is logged and checkpointed under `phase`; the same call on the same
  workdir continues after the last one, with the same result.

  Args:
    key: of the whole search.
    first: the all-ReLU member that it starts from, with accuracy and score.
    task: the shared data.
    steps: what is searched, in order; see `algorithms.build`.
    evolution: the settings.
    workdir: where to log.
    proposer: gives the plans of steps that are `proposed`.
    phase: name in the log.
    report: called as (cycles done, cycles in all, the cycle's report). A node that ends early
      or is restarted changes how many there are in all.

  Returns:
    The winner, with plan, weights, accuracy and score, and how many cycles every step took.
  """
  checkpoints = workdir.checkpoints(phase)
  progress = start(key, first, task, steps, evolution, proposer)
  found = checkpoints.restore(progress._asdict())
  done = 0
  if found:
    done, progress = found[0], Progress(**found[1])
  workdir.rewind(phase, done + 1)
  while int(progress.position[0]) < len(steps):
    progress, cycle_report = advance(key, progress, task, steps, evolution, proposer)
    done += 1
    workdir.log(
      phase,
      done,
      **{
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in cycle_report.items()
      },
    )
    checkpoints.save(done, progress._asdict())
    if report:
      index, number, *_ = map(int, progress.position)
      left = sum(step.cycles for step in steps[index:]) - number
      report(done, done + left, cycle_report)
  checkpoints.close()
  # On one device again: what follows trains one member, in every process by itself.
  winner = progress.winner.replace(momentum=None)
  winner = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), winner)
  return winner, progress.cycles.tolist()

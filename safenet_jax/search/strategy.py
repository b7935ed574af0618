"""The strategy `auto`: whichever runs two training steps of the members fastest."""

import time

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp

from safenet_jax.models import compilation
from safenet_jax.search import members as members_
from safenet_jax.search import pbt, population
from safenet_jax.search.members import Member, Task
from safenet_jax.workdir import Workdir

STRATEGIES = ('map', 'vmap', 'unroll')
# With more members 'unroll', whose code is written out for each, takes minutes to compile.
MAX_UNROLLED = 8


# Training steps that are timed, and how often.
STEPS = 2
TURNS = 3


def program(
  strategy: str, first: Member, task: Task, members: int
) -> tuple[jax.stages.Wrapped, tuple]:
  """A jitted function that trains copies of a member for STEPS steps, and its arguments."""
  copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), first)

  @compilation.jit
  def train(key, copies, task):
    batches = population.draw_batches(key, task, STEPS)
    one = lambda member: members_.train_on(member, task, batches)  # noqa: E731
    return population.over_members(one, strategy)(copies)

  return train, (jax.random.key(0), copies, task)


def seconds(strategy: str, first: Member, task: Task, members: int) -> float:
  """Wall seconds of STEPS training steps of copies of a member, the fastest of TURNS calls.

  Whatever else the machine does only ever adds time.
  """
  train, arguments = program(strategy, first, task, members)
  jax.block_until_ready(train(*arguments))  # compiles
  taken = []
  for _ in range(TURNS):
    start = time.perf_counter()
    jax.block_until_ready(train(*arguments))
    taken.append(time.perf_counter() - start)
  return min(taken)


def resolve(evolution: pbt.Evolution, first: Member, task: Task, workdir: Workdir) -> str:
  """The strategy of a run; 'auto' is timed once and written to strategy.json.

  Process 0 times the members of one device and tells the others, so that all
  processes, and the same run resumed, compile the same program.
  """
  if evolution.strategy != 'auto':
    return evolution.strategy
  name = 'strategy.json'
  chosen = 0
  if jax.process_index() == 0:
    if not (workdir / name).exists():
      local = evolution.population // (evolution.mesh.size if evolution.mesh else 1)
      timed = [s for s in STRATEGIES if s != 'unroll' or local <= MAX_UNROLLED]
      found = {strategy: seconds(strategy, first, task, local) for strategy in timed}
      best = min(found, key=lambda strategy: found[strategy])
      workdir.write_json(name, {'strategy': best, 'seconds': found})
    chosen = STRATEGIES.index(workdir.read_json(name, 'search')['strategy'])
  if jax.process_count() > 1:
    chosen = int(multihost_utils.broadcast_one_to_all(jnp.int32(chosen)))
  return STRATEGIES[chosen]

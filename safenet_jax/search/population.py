"""A population in training: its state, and one jitted cycle for every node."""

from collections.abc import Callable
import functools

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from safenet_jax.approximation import plans
from safenet_jax.models import compilation
from safenet_jax.search import gates, pbt, score
from safenet_jax.search import members as members_
from safenet_jax.search.members import Member, Task


class State(struct.PyTreeNode):
  """A population and the best feasible member its node has seen.

  members: all P members; every leaf has a leading axis [P].
  best: the best feasible member of the node so far, with its weights. Until there is one
    it is the node's candidate, the member that the node started from.
  best_key: float [], the selection key of `best`, -inf for the candidate.
  origin: int32 [P]; members of one origin have the same weights and optimiser state.
  """

  members: Member
  best: Member
  best_key: jax.Array
  origin: jax.Array


def over_members(function: Callable, strategy: str) -> Callable:
  """Maps a function of one member over a leading axis.

  'map' is a loop over members. Its compile time does not grow with their number,
  and it is the fastest on CPU, together with the canonical convolution. 'unroll'
  is the same loop written out. 'vmap' batches the members, and turns their
  convolutions into batched matrix products (`models.convolution`).

  Raises:
    ValueError: another strategy.
  """
  if strategy == 'map':
    return lambda *trees: lax.map(lambda args: function(*args), trees)
  if strategy == 'vmap':
    return jax.vmap(function)
  if strategy == 'unroll':

    def unrolled(*trees):
      count = jax.tree.leaves(trees)[0].shape[0]
      results = [function(*jax.tree.map(lambda leaf, i=i: leaf[i], trees)) for i in range(count)]
      return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    return unrolled
  raise ValueError(f"unknown strategy '{strategy}', want map, vmap or unroll")


def mesh(members: int) -> jax.sharding.Mesh | None:
  """All devices of all processes as an axis `population`; None if there is one device.

  Raises:
    ValueError: the devices do not divide the members.
  """
  devices = jax.devices()
  if len(devices) == 1:
    return None
  if members % len(devices):
    raise ValueError(f'{members} members over {len(devices)} devices, want a multiple of them')
  # Axes are Explicit by default, which would put shardings into types.
  return jax.make_mesh(
    (len(devices),), ('population',), axis_types=(AxisType.Auto,), devices=devices
  )


def _replicated(tree, mesh: jax.sharding.Mesh | None):
  """The tree, whole on every device, so that selection and checkpoints need no communication."""
  if mesh is None:
    return tree
  return lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


@functools.partial(jax.jit, static_argnames=('evolution', 'random', 'count'))
def draw_plans(
  key: jax.Array,
  candidate: Member,
  task: Task,
  node: pbt.Node,
  *,
  evolution: pbt.Evolution,
  random: bool,
  count: int,
) -> plans.Plan:
  """Plans to start a node with, leaves [count, T]: at random, or else the candidate's and others
  that vary it.
  """
  sizes = score.activations(task.network)

  def plan(key, slot):
    if random:
      return pbt.random_plan(key, candidate.plan, node, sizes, slot, count, evolution.degrees)
    kept = pbt.project(candidate.plan, node, sizes)
    varied = pbt.explore(key, candidate.plan, node, sizes, evolution)
    return jax.tree.map(lambda a, b: jnp.where(slot == 0, a, b), kept, varied)

  return jax.vmap(plan)(jax.random.split(key, count), jnp.arange(count))


@functools.partial(jax.jit, static_argnames=('evolution', 'random'))
def begin(
  key: jax.Array,
  candidate: Member,
  task: Task,
  node: pbt.Node,
  rate_factor: jax.Array,
  *,
  evolution: pbt.Evolution,
  random: bool,
  proposed: plans.Plan | None = None,
) -> State:
  """The population at the start of a node: copies of its candidate, with other plans.

  Member 0 keeps the candidate's plan, and the others vary it. With `random` all plans are
  drawn at random instead. With `proposed` they are those, with leaves [P, T] for P members
  and T layers.
  """
  count = evolution.population
  if proposed is None:
    proposed = draw_plans(
      key, candidate, task, node, evolution=evolution, random=random, count=count
    )
  copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), candidate)
  members = copies.replace(
    plan=proposed,
    learning_rate=copies.learning_rate * rate_factor,
  )
  origin = jnp.zeros(count, jnp.int32)
  state = State(members, candidate, jnp.asarray(-jnp.inf, jnp.float32), origin)
  return _replicated(state, evolution.mesh)


def draw_batches(key: jax.Array, task: Task, iterations: int) -> members_.Batch:
  """The batches that all members of one cycle learn from, with a leading axis [iterations]."""
  key_indices, key_augment = jax.random.split(key)
  shape = (iterations, task.training.batch_size)
  indices = jax.random.randint(key_indices, shape, 0, task.train.labels.size)
  keys = jax.random.split(key_augment, iterations)
  return lax.map(lambda each: members_.draw(each[0], each[1], task), (keys, indices))


def _train_and_score(key, member: Member, task: Task, batches, sizes, evolution) -> Member:
  member = members_.train_on(member, task, batches)
  if isinstance(member, members_.Gated):
    member = member.replace(plan=gates.plan(member.gates, sizes))
  member = members_.recalibrate(key, member, task)
  accuracy = members_.accuracy(member, task, *task.validation)
  value = score.score(accuracy, member.plan, sizes, evolution.reduction)
  finite = members_.is_finite(member)
  return member.replace(accuracy=accuracy, score=jnp.where(finite, value, -jnp.inf))


def twins(state: State, sizes: score.Activations) -> jax.Array:
  """For every member the first one that will train as it does, int32 [P].

  Members of a population learn from the same batches. So two of them stay equal if they have
  the same weights, options and plan. What counts of a plan is how many channels it replaces in
  each layer, and the degree where there are any.
  """
  members = state.members
  replaced = jax.vmap(lambda plan: score.replaced(plan, sizes))(members.plan)
  degree = jnp.where(replaced > 0, members.plan.degree_index, -1)
  same = jnp.ones(2 * state.origin.shape, bool)
  given = state.origin, replaced, degree, members.learning_rate, members.momentum
  for leaf in jax.tree.leaves(given):
    rows = leaf.reshape(leaf.shape[0], -1)
    same &= (rows[:, None] == rows).all(-1)
  return jnp.argmax(same, axis=1).astype(jnp.int32)


def selection_key(member: Member, node: pbt.Node, sizes, evolution: pbt.Evolution) -> jax.Array:
  """What one member is sorted by in a node."""
  total = sum(sizes.counts)
  replaced = jnp.where(node.active, score.replaced(member.plan, sizes), 0).sum()
  return score.selection_key(
    member.accuracy,
    member.score,
    threshold(node, evolution),
    literal=evolution.literal,
    sorted_by=score.goal(
      evolution.objective, member.accuracy, member.score, replaced / total, node.floor / total
    ),
  )


def threshold(node: pbt.Node, evolution: pbt.Evolution) -> jax.Array:
  """The least accuracy of a feasible member in a node."""
  return jnp.where(node.enforced, evolution.threshold, 0.0)


@compilation.jit(static_argnames='evolution', donate_argnames='state')
def cycle(
  key: jax.Array, state: State, task: Task, node: pbt.Node, *, evolution: pbt.Evolution
) -> tuple[State, dict[str, jax.Array]]:
  """One PBT cycle: train, recalibrate, score, keep the best, exploit and explore.

  All members get the same batches, which each device draws once, with the teacher's logits.
  Of `twins` one is trained, where members run one after another.

  Args:
    key: consumed.
    state: donated.
    task: the shared data.
    node: what is searched; arrays, so that all nodes share one executable.
    evolution: static settings.

  Returns:
    The next state, and a report of what every member was before selection, arrays
    [P, ...] by name: ratio, degree, accuracy, score, loss, learning_rate, momentum
    (if members have their own), saving (if they have gates), key (what the member
    was sorted by), and parent (the index of the member that took its place, its own
    if it stayed).
  """
  sizes = score.activations(task.network)
  key_members, key_evolve = jax.random.split(key)

  first = twins(state, sizes)

  def run(key, members, alone, task):
    key_draw, key_recalibrate = jax.random.split(key)
    batches = draw_batches(key_draw, task, evolution.iterations)

    def one(member, alone):
      train = lambda member: _train_and_score(  # noqa: E731
        key_recalibrate, member, task, batches, sizes, evolution
      )
      return lax.cond(alone, train, lambda member: member, member)

    return over_members(one, evolution.strategy)(members, alone)

  if evolution.mesh is not None:
    shard, whole = PartitionSpec('population'), PartitionSpec()
    run = jax.shard_map(
      run,
      mesh=evolution.mesh,
      in_specs=(whole, shard, shard, whole),
      out_specs=shard,
      check_vma=False,
    )
  alone = first == jnp.arange(evolution.population)
  trained = _replicated(run(key_members, state.members, alone, task), evolution.mesh)
  members = jax.tree.map(lambda leaf: leaf[first], trained)
  if not isinstance(members, members_.Gated):
    members = members.replace(plan=state.members.plan)  # twins' plans may differ by their names

  keys = jax.vmap(lambda member: selection_key(member, node, sizes, evolution))(members)
  top = jnp.argmax(keys)
  feasible = evolution.literal | (members.accuracy[top] >= threshold(node, evolution))
  better = feasible & jnp.isfinite(keys[top]) & (keys[top] > state.best_key)
  best = jax.tree.map(lambda leaf, old: jnp.where(better, leaf[top], old), members, state.best)
  best_key = jnp.where(better, keys[top], state.best_key)

  report = {
    'ratio': members.plan.ratio,
    'degree': jax.vmap(lambda plan: plan.degree)(members.plan),
    'accuracy': members.accuracy,
    'score': members.score,
    'loss': members.loss,
    'learning_rate': members.learning_rate,
    'momentum': members.momentum,
    'key': keys,
  }
  report = {name: value for name, value in report.items() if value is not None}
  if isinstance(members, members_.Gated) and evolution.pace is not None:
    report['saving'] = members.gates.saving
    reached = members.accuracy >= threshold(node, evolution)
    move = lambda one, feasible: gates.next_cycle(one, feasible, evolution.pace)  # noqa: E731
    members = members.replace(gates=jax.vmap(move)(members.gates, reached))
  members, report['parent'] = pbt.evolve(key_evolve, members, keys, node, sizes, evolution)
  state = State(members, best, best_key, first[report['parent']])
  return _replicated((state, report), evolution.mesh)

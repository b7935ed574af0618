"""Training a population by every strategy: throughput, compile time and memory.

A strategy is how one device runs several members, see `search.strategy`. For n members and every
strategy, on a narrow CNN-7 so that it ends in minutes, the rows are:

- `train/<strategy>/P<n>`: images/s over all members. The floor is PyTorch on the CPU, where it is
  installed, which trains as many all-ReLU networks one after another;
- `relu/P<n>`: the same without polynomials, as the floor is, by `map`;
- `compile/<strategy>/P<n>`: seconds to compile. The floor is one member's;
- `memory/<strategy>/P<n>`: arguments, results and temporaries of the compiled program. The floor
  is its arguments alone;
- `auto/P<n>`: images/s of the strategy that `auto` picks. The floor is the fastest strategy's;
- `cost/flops/P<n>`, `cost/bytes/P<n>`: what XLA counts for a member in one cycle of `vmap` with a
  teacher: one batch each to train, recalibrate and score. The floor is one member's alone, so that
  the ratio is below 1 by what members share.

Runs take turns, and speeds are medians. `search/cnn7` is how many hours the training in the
paper's search would take at the speed of the most members.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp

from experiments import benchmarks
from experiments.benchmarks import Row, training
from experiments.configs import cnn7_cifar10
from safenet_jax import data
from safenet_jax.models import architectures
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.search import members, pbt, population, schedule, strategy
from safenet_jax.search.planners import btpbt
from safenet_jax.search.teacher import Teacher
from safenet_jax.workdir import Workdir

POPULATIONS = (1, 2, 4, 8)
COUNTED = (1, 8, 50)
WIDTH = 0.25


def search_images() -> int:
  """Images that Algorithm 1 trains on for CNN-7, all members together, from its config."""
  config = cnn7_cifar10.get_config()
  layers = len(activation_channels(architectures.build(config.model.name)))
  settings = config.search
  tree = btpbt.schedule(layers, settings.node_cycles, settings.joint_cycles)
  iterations = settings.iterations * sum(step.cycles for step in tree)
  return settings.population * iterations * settings.batch_size


def rows() -> Iterator[Row]:
  width, populations = (0.125, (1, 2)) if benchmarks.QUICK.value else (WIDTH, POPULATIONS)
  network = architectures.cnn7(width=width)
  first, task = training.start(network, members.Training(batch_size=training.BATCH))
  place = f'cnn7 at width {width:g}, batch {task.training.batch_size}, {jax.default_backend()}'
  alone: dict[str, float] = {}  # seconds to compile one member
  speeds: dict[str, float] = {}
  for count in populations:
    setting = f'{place}, {count} members'
    runs, compiling, memory = {}, {}, {}
    for name in strategy.STRATEGIES:
      runs[name], compiling[name], memory[name] = _compile(name, first, task, count)
    runs['relu'] = _compile('map', first, task.without_polynomials(), count)[0]
    if training.torch is not None:
      runs['torch'] = _one_after_another(network, count)
    seconds = training.alternate(runs)
    images = count * strategy.STEPS * task.training.batch_size
    speeds = {name: images / value for name, value in seconds.items()}
    row = functools.partial(Row, 'population')
    yield row(
      f'relu/P{count}',
      f'{setting}, all-ReLU; floor: PyTorch, one after another',
      speeds['relu'],
      'images/s',
      speeds.get('torch'),
    )
    for name in strategy.STRATEGIES:
      alone.setdefault(name, compiling[name])
      yield row(
        f'train/{name}/P{count}',
        f'{setting}; floor: PyTorch, one after another',
        speeds[name],
        'images/s',
        speeds.get('torch'),
      )
      yield row(
        f'compile/{name}/P{count}',
        f'{setting}; floor: one member',
        compiling[name],
        's',
        alone[name],
      )
      if memory[name]:
        yield row(
          f'memory/{name}/P{count}',
          f'{setting}; floor: members, momentum and images',
          memory[name][0],
          'MB',
          memory[name][1],
        )
    chosen = _auto(first, task, count)
    fastest = max(strategy.STRATEGIES, key=lambda name: speeds[name])
    yield Row(
      'population',
      f'auto/P{count}',
      f'{setting}; auto: {chosen}, floor: {fastest}',
      speeds[chosen],
      'images/s',
      speeds[fastest],
    )
  hours = {name: search_images() / speed / 3600 for name, speed in speeds.items()}
  torch = hours.pop('torch', None)
  del hours['relu']  # no search is all-ReLU
  yield Row(
    'population',
    'search/cnn7',
    f'{search_images():,} images of Algorithm 1 at the speed of '
    f'{place}, {count} members: training alone, no scoring; floor: PyTorch',
    min(hours.values()),
    'hours',
    torch,
  )
  yield from _costs(first, task, populations if benchmarks.QUICK.value else COUNTED, place)


def _compile(name: str, first, task, count: int):
  """A run of the compiled program, seconds to compile it, MB in all and of its arguments.

  Megabytes are () where the backend does not tell.
  """
  train, arguments = strategy.program(name, first, task, count)
  start = time.perf_counter()
  compiled = train.lower(*arguments).compile()
  seconds = time.perf_counter() - start
  used: Any = compiled.memory_analysis()
  memory: tuple[float, ...] = ()
  if used is not None:
    given = used.argument_size_in_bytes
    total = given + used.output_size_in_bytes + used.temp_size_in_bytes - used.alias_size_in_bytes
    memory = total / 1e6, given / 1e6
  return lambda: jax.block_until_ready(compiled(*arguments)), seconds, memory


def _costs(first, task, counts: Sequence[int], place: str) -> Iterator[Row]:
  """The rows `cost`; every loop of the program runs once, because XLA counts it once."""
  size = task.training.batch_size
  options = dataclasses.replace(
    task.training, distillation=0.5, recalibration_batches=1, evaluation_batch=size
  )
  task = task.replace(
    training=options,
    validation=data.Split(*(part[:size] for part in task.train)),
    teacher=Teacher(members.variables(first), task.network, task.mean, task.std),
  )
  (step,) = pbt.schedule(len(task.channel_ranks), 1)
  node = schedule.node_of(step, first, task)
  alone: dict[str, float] = {}
  for count in counts:
    evolution = pbt.Evolution(count, 1, strategy='vmap')
    key = jax.random.key(0)
    begin = functools.partial(population.begin, evolution=evolution, random=True)
    state = jax.eval_shape(begin, key, first, task, node, jnp.float32(1))
    compiled = population.cycle.lower(key, state, task, node, evolution=evolution).compile()
    for name, counted in (('flops', 'flops'), ('bytes', 'bytes accessed')):
      each = compiled.cost_analysis()[counted] / count / 1e9
      floor = alone.setdefault(name, each)
      unit = 'GFLOP' if name == 'flops' else 'GB'
      setting = f'{place}, of each of {count} members; floor: one alone'
      yield Row('population', f'cost/{name}/P{count}', setting, each, unit, floor)


def _one_after_another(network: Network, count: int) -> Callable[[], None]:
  """As many PyTorch networks, each for as many steps."""
  steps = [training.torch_step(network) for _ in range(count)]

  def run():
    for step in steps:
      for _ in range(strategy.STEPS):
        step()

  return run


def _auto(first, task, count: int) -> str:
  """What a search with strategy 'auto' would pick, timed as it would be there."""
  with tempfile.TemporaryDirectory() as folder:
    evolution = pbt.Evolution(count, strategy='auto')
    return strategy.resolve(evolution, first, task, Workdir(folder))

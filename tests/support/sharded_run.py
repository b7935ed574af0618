"""A small search in a fresh interpreter: sharded_run.py WORKDIR [PORT COUNT INDEX [LAST]].

LAST: this process dies without a word after so many cycles.
"""

import os
import sys

from experiments.lib import launcher


def main() -> None:
  path, *rest = sys.argv[1:]
  if rest:
    launcher.connect(f'localhost:{rest[0]},{rest[1]},{rest[2]}')

  import jax  # after the processes have met
  import numpy as np

  from safenet_jax.search import population, schedule, score
  from safenet_jax.search.planners import algorithms
  from safenet_jax.workdir import Workdir
  from tests.support import small_search

  task, first = small_search.task()
  evolution = small_search.evolution(mesh=population.mesh(4))
  search = algorithms.build(
    'btpbt',
    score.activations(task.network),
    evolution,
    node_cycles=1,
    joint_cycles=1,
    supernet_draws=2,
  )

  def die(done, total, report):
    del total, report
    if rest[3:] and done == int(rest[3]):
      os._exit(9)

  winner, _ = schedule.run(
    jax.random.key(3), first, task, search.steps, search.evolution, Workdir(path), report=die
  )
  print(jax.process_count(), jax.device_count(), np.asarray(winner.score).tobytes().hex())


if __name__ == '__main__':
  launcher.guarded(main)

"""Plans compared without training, with one member's weights for all of them.

The weights of a node's candidate are those of a supernet: every plan is a network that shares
them. Only the batch-norm statistics are each plan's own.

What a plan replaces costs more accuracy before training than after it. So a score without
training favours plans that replace little, and a plan is compared only with those that replace
about as much.
"""

import dataclasses

import jax
from jax import lax
import jax.numpy as jnp

from safenet_jax.approximation import plans
from safenet_jax.models import compilation
from safenet_jax.search import members as members_
from safenet_jax.search import pbt, population, score
from safenet_jax.search.members import Member, Task

# Every plan is scored on the first so many validation images.
IMAGES = 250


@compilation.jit(static_argnames='evolution')
def choose(
  key: jax.Array, candidate: Member, drawn: plans.Plan, task: Task, *, evolution: pbt.Evolution
) -> plans.Plan:
  """The plans that members start with: of every k neighbours by what they replace, the best score.

  Args:
    key: consumed.
    candidate: whose weights all plans are scored with.
    drawn: plans with leaves [P * k, T] for P members and T layers.
    task: the shared data.
    evolution: static settings.

  Returns:
    Plans with leaves [P, T], from the one that replaces least to the one that replaces most.
  """
  sizes = score.activations(task.network)
  images, labels = (part[:IMAGES] for part in task.validation)
  task = task.replace(training=dataclasses.replace(task.training, recalibration_batches=1))

  def untrained_score(plan: plans.Plan) -> jax.Array:
    # The same batch for all, so that plans differ by nothing else.
    member = members_.recalibrate(key, candidate.replace(plan=plan), task)
    accuracy = members_.accuracy(member, task, images, labels)
    return score.score(accuracy, plan, sizes, evolution.reduction)

  order = jnp.argsort(jax.vmap(lambda plan: score.replaced(plan, sizes).sum())(drawn))
  # [k, P, T]: a row has one plan of every member.
  rows = jax.tree.map(
    lambda leaf: leaf[order].reshape(evolution.population, -1, leaf.shape[1]).swapaxes(0, 1), drawn
  )
  scores = lax.map(population.over_members(untrained_score, evolution.strategy), rows)
  best = jnp.argmax(scores, 0)
  return jax.tree.map(lambda leaf: leaf[best, jnp.arange(evolution.population)], rows)


def images(candidate: Member, task: Task) -> int:
  """The images that one plan is scored with, a batch for its statistics among them."""
  recalibrated = task.training.batch_size if candidate.batch_stats else 0
  return recalibrated + min(IMAGES, task.validation.labels.size)

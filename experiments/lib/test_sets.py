"""Whole test sets in fixed point, in batches that fit memory: simulated, or in the clear."""

from collections.abc import Callable
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.formats import RangeReport
from safenet_jax.fixed_point.model import FixedPointModel, OUT_OF_RANGE
from safenet_jax.models.network import Network
from safenet_jax.protocol.simulation import simulator

Report = Callable[[int, int, dict[str, float]], None]
# Images that go through the plaintext network at once: it holds the patches of all of them.
_PLAIN = 50


class Simulated(NamedTuple):
  """logits: float64 [N, classes]; images_per_second: without compilation, None for one image."""

  logits: np.ndarray
  images_per_second: float | None


def run(
  model: FixedPointModel,
  images: np.ndarray,
  randomness: Randomness,
  *,
  batch: int,
  report: Report = lambda done, total, metrics: None,
) -> Simulated:
  """Infers all images, at most `batch` at once, and fewer if the simulator bounds memory so.

  All batches have the same size, because each size is compiled by itself. So the
  last batch may repeat images of the one before it. The first batch compiles, and
  is not timed.

  Args:
    model: the served network.
    images: uint8 [N, H, W, C].
    randomness: for both parties and the dealer.
    batch: images at once.
    report: called as (images done, images in all, {'images/s': speed}) after every batch.
  """
  count = len(images)
  size = max(1, min(batch, simulator.batch(model), count // 2))
  starts = [*range(0, count - size, size), count - size]
  logits: np.ndarray | None = None
  start, speed = 0.0, None
  for i, first in enumerate(starts):
    if i == 1:
      start = time.perf_counter()
    found = simulator.infer(model, images[first : first + size], randomness)
    if logits is None:
      logits = np.empty((count, *found.shape[1:]), found.dtype)
    logits[first : first + size] = found
    if i:
      speed = i * size / (time.perf_counter() - start)
    report(first + size, count, {} if speed is None else {'images/s': speed})
  return Simulated(np.empty((0, 0)) if logits is None else logits, speed)


def plain(model: FixedPointModel, images: np.ndarray, ranges: RangeReport) -> np.ndarray:
  """The logits of `model.run` for any number of images, a few at a time."""
  return np.concatenate(
    [model.run(images[first : first + _PLAIN], ranges) for first in range(0, len(images), _PLAIN)]
  )


class Scores(NamedTuple):
  """How a network does in float and in fixed point, over all images.

  float_correct, correct: images that are right in float, and in fixed point.
  agreement: images whose two classes are the same.
  left: images of which a value leaves its format in some activation layer.
  distrusted: images of which a logit leaves its range, so that `PublicModel.classes` gives none.
  missed: images that left, and are not distrusted.
  truncation_failure: expected failures of local truncation per image, among those that did not
    leave.
  """

  images: int
  float_correct: int
  correct: int
  agreement: int
  left: int
  distrusted: int
  missed: int
  truncation_failure: float


def score(
  model: FixedPointModel,
  network: Network,
  variables: Any,
  approximation: Any,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  report: Report = lambda done, total, metrics: None,
) -> Scores:
  """Scores what `quantize` made of a network beside that network.

  Args:
    model: the served network.
    network, variables, approximation: the float network.
    images: uint8 [N, H, W, C].
    labels: integers [N].
    report: called as (images done, images in all, {}).
  """
  forward = jax.jit(lambda x: network.apply(variables, x, approximation))
  floating, classes = np.empty(len(images), int), np.empty(len(images), int)
  left = np.zeros(len(images), bool)
  failures = 0.0
  for first in range(0, len(images), _PLAIN):
    part = slice(first, min(first + _PLAIN, len(images)))
    x = images[part]
    logits = forward(jnp.asarray(model.public.normalise(x), jnp.float32))
    floating[part] = np.asarray(logits).argmax(-1)
    ranges = RangeReport()
    classes[part] = model.public.classes(model.logits(x, ranges))
    if _left(ranges):  # rare, so that only then images are looked at one by one
      ranges = RangeReport()
      for i in range(part.start, part.stop):
        alone = RangeReport()
        model.run(images[i : i + 1], alone)
        left[i] = _left(alone)
        ranges.failures += 0.0 if left[i] else alone.failures
    failures += ranges.failures
    report(part.stop, len(images), {})
  distrusted = classes == OUT_OF_RANGE
  return Scores(
    len(images),
    int((floating == labels).sum()),
    int((classes == labels).sum()),
    int((floating == classes).sum()),
    int(left.sum()),
    int(distrusted.sum()),
    int((left & ~distrusted).sum()),
    failures / max(int((~left).sum()), 1),
  )


def _left(ranges: RangeReport) -> bool:
  """Whether a value left its format in an activation layer."""
  return any(count for name, count in ranges.exceeded.items() if name != 'logits')

"""Private inference of whole test sets by the simulator, in batches that fit memory."""

from collections.abc import Callable
import time
from typing import NamedTuple

import numpy as np

from safenet_jax.crypto.randomness import Randomness
from safenet_jax.fixed_point.formats import RangeReport
from safenet_jax.fixed_point.model import FixedPointModel
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

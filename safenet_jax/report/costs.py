"""Seconds and bytes of one private inference, from ledgers and from rows of the benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safenet_jax.protocol.estimate.estimate import Link
from safenet_jax.report.runs import Run

# A ledger's kinds of step that belong to linear layers; all others belong to the activations.
LINEAR = ('linear', 'dealt linear', 'mask', 'masked input')
# Phases that every image goes through; the others are once a connection.
PHASES = ('offline', 'online')
_COUNTED = ('bytes', 'messages', 'wall_seconds', 'cpu_seconds', 'flights', 'rounds')


class Cost(NamedTuple):
  """What one phase of one private inference cost; None where the measurement does not tell.

  seconds: wall seconds that the client waited, or of both parties in one process.
  linear_seconds: the part of them in steps of linear layers.
  """

  seconds: float
  linear_seconds: float | None
  bytes: float
  rounds: float | None

  def over(self, link: Link) -> float | None:
    """Seconds over a link: those measured, plus bytes at its rate, plus a round trip per round."""
    if self.rounds is None:
      return None
    return self.seconds + 8 * self.bytes / link.bits_per_second + self.rounds * link.round_trip


def of_phase(ledger: Mapping[str, Any], phase: str, images: int) -> Cost:
  """A phase of a ledger, as the mean of its `images` inferences, which may have shared rounds."""
  rows = [row for row in ledger['rows'] if row['phase'] == phase]
  linear = sum(row['wall_seconds'] for row in rows if row['primitive'] in LINEAR)
  sums = ledger['phases'][phase]
  return Cost(
    *(total / images for total in (sums['wall_seconds'], linear, sums['bytes'], sums['rounds']))
  )


def inference(run: Run) -> dict[str, Any] | None:
  """One private inference of a run: a ledger's record, and how many answers were right.

  It is the mean of the images of two processes. Without these it is what the simulator left,
  and None if that has not run either.
  """
  if not run.client:
    return run.ledger
  images = run.client['images']

  def mean(sums: Mapping[str, Any]) -> dict[str, Any]:
    return {k: value / images if k in _COUNTED else value for k, value in sums.items()}

  rows = [mean(row) if row['phase'] in PHASES else row for row in run.client['rows']]
  phases = {
    name: mean(sums) if name in PHASES else sums for name, sums in run.client['phases'].items()
  }
  return run.client | {'rows': rows, 'phases': phases}


def of_run(run: Run) -> tuple[str, dict[str, Cost]] | None:
  """How a run's inference was measured, and the cost of its phases; None if it was not measured.

  Two processes have measured both phases. In the simulator, a dealer hands out what the
  offline phase would make. The seconds of that are those of no protocol, and are left out.
  """
  if run.client:
    phases = {
      p: of_phase(run.client, p, run.client['images']) for p in PHASES if p in run.client['phases']
    }
    return f'two processes, mean of {run.client["images"]} images', phases
  if run.ledger:
    return 'both parties in one process', {'online': of_phase(run.ledger, 'online', 1)}
  return None


def of_benchmark(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Cost] | None:
  """The phases of `name`, '<network>/<plan>', in the benchmark rows of the suite `inference`.

  None if a quantity is not among them.
  """
  values = {row['name']: row['value'] for row in rows if row['suite'] == 'inference'}
  try:
    return {
      phase: Cost(
        values[f'{name}/{phase}_s'],
        values.get(f'{name}/{phase}_linear_s'),
        1e6 * values[f'{name}/{phase}_mb'],
        None,
      )
      for phase in ('offline', 'online')
    }
  except KeyError:
    return None

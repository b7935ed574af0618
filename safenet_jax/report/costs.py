"""Seconds and bytes of one private inference, from ledgers and from rows of the benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safenet_jax.protocol.estimate.estimate import Link
from safenet_jax.report.runs import Run

# Primitives of linear layers; every other one belongs to the activations between them.
LINEAR = ('linear', 'dealt linear', 'mask', 'masked input')


class Cost(NamedTuple):
  """One phase of one private inference; None is what the measurement does not tell.

  seconds: wall seconds that the client waited, or of both parties in one process.
  linear_seconds: the part of them in steps of linear layers.
  """

  seconds: float
  linear_seconds: float | None
  bytes: float
  rounds: float | None

  def over(self, link: Link) -> float | None:
    """Seconds over a link: those measured, the bytes at its rate, a round trip a round."""
    if self.rounds is None:
      return None
    return self.seconds + 8 * self.bytes / link.bits_per_second + self.rounds * link.round_trip


def of_phase(ledger: Mapping[str, Any], phase: str, images: int) -> Cost:
  """A phase of a ledger, the mean of its `images` inferences; rounds may be shared by some."""
  rows = [row for row in ledger['rows'] if row['phase'] == phase]
  linear = sum(row['wall_seconds'] for row in rows if row['primitive'] in LINEAR)
  sums = ledger['phases'][phase]
  return Cost(
    *(total / images for total in (sums['wall_seconds'], linear, sums['bytes'], sums['rounds']))
  )


def of_run(run: Run) -> tuple[str, dict[str, Cost]] | None:
  """How a run was measured, and its phases; None if it was not.

  Two processes count both phases. The simulator's offline phase is dealt: its
  seconds are those of no protocol, and it is left out.
  """
  if run.client:
    phases = {
      p: of_phase(run.client, p, run.client['images'])
      for p in ('offline', 'online')
      if p in run.client['phases']
    }
    return f'two processes, mean of {run.client["images"]} images', phases
  if run.ledger:
    return 'both parties in one process', {'online': of_phase(run.ledger, 'online', 1)}
  return None


def of_benchmark(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Cost] | None:
  """The phases of `name`, '<network>/<plan>', in the rows of the suite inference."""
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

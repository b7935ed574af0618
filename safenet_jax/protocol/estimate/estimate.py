"""Bytes, seconds and memory of one private inference, before anyone runs it.

Bytes, messages and rounds come from the protocol itself (`message_walk`). They are exactly
what a ledger will say.

Seconds are counts of operations, times what each operation takes on some machine
(`unit_costs`). Each party has one core, and homomorphic encryption runs in the server's
thread. A network link adds half its round trip for every flight (messages that go one way
together), and the time that its bandwidth takes for the bytes. The parties' seconds are
added up, although the parties compute at the same time in part. So the sum is rather too
high.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from safenet_jax import ranges
from safenet_jax.fixed_point.model import PublicModel
from safenet_jax.protocol.delphi import keys, message_walk
from safenet_jax.protocol.estimate import peak_memory, unit_costs
from safenet_jax.protocol.estimate.links import Link
from safenet_jax.protocol.estimate.unit_costs import UnitCosts
from safenet_jax.protocol.service import sessions


class Estimate(NamedTuple):
  """What one connection with one inference of one image will cost.

  record: as `Ledger.record` gives it, for both parties, with CPU seconds only. Phase
    'setup' takes place once a connection. Handshake and commands, some kB, are left out.
  memory: by party, the most bytes that its process holds.
  """

  record: dict[str, Any]
  memory: dict[str, int]

  def bytes(self, phase: str, party: str | None = None) -> int:
    """Bytes sent in a phase, by one party or by both."""
    return sum(
      row['bytes']
      for row in self.record['rows']
      if row['phase'] == phase and party in (None, row['party'])
    )

  def seconds(self, phase: str, link: Link | None = None) -> float:
    """Seconds that a client waits for a phase; without a link, both parties share a machine."""
    rows = [row for row in self.record['rows'] if row['phase'] == phase]
    total = sum(row['cpu_seconds'] for row in rows)
    if link is not None:
      total += 8 * sum(row['bytes'] for row in rows) / link.bits_per_second
      total += sum(row['flights'] for row in rows) * link.round_trip / 2
    return total

  def rounds(self, *phases: str) -> int:
    """Round trips of these phases together."""
    return sum(self.record['phases'][phase]['rounds'] for phase in phases)


def inference(
  model: PublicModel, mode: str = sessions.DEFAULT, costs: UnitCosts = unit_costs.DEFAULT
) -> Estimate:
  """Estimates an inference of a model.

  Args:
    model: the `public` part of what `quantize` makes.
    mode: how it is served, a name of `sessions.MODES`.
    costs: what operations take on the machine.

  Raises:
    ValueError: two parties cannot serve this model, or not in this mode; or an
      operation has no cost.
  """
  ranges.check_type('model', model, PublicModel)
  served = sessions.mode_of(mode)
  structure = served.structure(model)
  contexts = keys.contexts(structure, b'')  # no size depends on the seed
  tally = message_walk.tally(model, structure, contexts, served)
  for row, operations in tally.operations.items():
    if missing := sorted(operations.keys() - costs.seconds.keys()):
      raise ValueError(f'no unit cost of {", ".join(missing)}')
    tally.ledger.spend(*row, cpu=sum(n * costs.seconds[name] for name, n in operations.items()))
  peaks = peak_memory.peaks(structure, contexts, served, costs.memory)
  return Estimate(tally.ledger.record(), peaks)


def modes(
  model: PublicModel, costs: UnitCosts = unit_costs.DEFAULT
) -> tuple[dict[str, Estimate], dict[str, str]]:
  """An inference in every mode: estimates by mode, and for the others why they do not serve it."""
  found: dict[str, Estimate] = {}
  refused: dict[str, str] = {}
  for mode in sessions.MODES:
    try:
      found[mode] = inference(model, mode, costs)
    except ValueError as error:
      refused[mode] = str(error)
  return found, refused


def cheapest(
  found: Mapping[str, Estimate], link: Link | None, phases: Sequence[str] = ('offline', 'online')
) -> str:
  """The mode in which a client waits least for these phases, by the estimates of `modes`."""
  return min(found, key=lambda mode: sum(found[mode].seconds(phase, link) for phase in phases))


def verdict(found: Mapping[str, Estimate], refused: Mapping[str, str], link: Link) -> Iterator[str]:
  """Lines that name the cheapest mode over a link, and say why others do not serve the model."""
  if found:
    both, online = cheapest(found, link), cheapest(found, link, ['online'])
    yield f'cheapest over {link}: {both}; online alone: {online}'
  yield from (f'{mode}: not served, {reason}' for mode, reason in refused.items())

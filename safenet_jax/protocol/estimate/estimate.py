"""Bytes, seconds and memory of one private inference, before anyone runs it.

Bytes, messages and rounds are those of the protocol itself (`message_walk`): exactly what a
ledger will say. Seconds are operations times what each takes on some machine
(`unit_costs`), one party after the other, on one core each, with homomorphic
encryption in the server's thread; a link adds its latency for every flight and its
bandwidth for every byte. Parties overlap in part, so that this is rather too much.
"""

from typing import Any, NamedTuple

from safenet_jax.fixed_point.model import PublicModel
from safenet_jax.protocol.delphi import keys
from safenet_jax.protocol.estimate import message_walk, peak_memory, unit_costs
from safenet_jax.protocol.estimate.unit_costs import UnitCosts
from safenet_jax.protocol.layers.structure import Structure
from safenet_jax.protocol.service import sessions


class Link(NamedTuple):
  """bits_per_second: each way; round_trip: seconds."""

  name: str
  bits_per_second: float
  round_trip: float

  def __str__(self) -> str:
    size, unit = (1e9, 'Gbit/s') if self.bits_per_second >= 1e9 else (1e6, 'Mbit/s')
    rate = f'{self.bits_per_second / size:g} {unit}'
    return f'{self.name}, {rate}, {self.round_trip * 1e3:g} ms'


LAN = Link('LAN', 1e9, 1e-3)
WAN = Link('WAN', 100e6, 40e-3)


class Estimate(NamedTuple):
  """Of one connection with one inference of one image.

  record: as `Ledger.record` gives it, both parties, CPU seconds only; phase
    'setup' is once a connection. Handshake and commands, some kB, are left out.
  memory: the most that each party's process holds, bytes by party.
  """

  record: dict[str, Any]
  memory: dict[str, int]

  def bytes(self, phase: str, party: str | None = None) -> int:
    """What goes out in a phase, from one party or from both."""
    return sum(
      row['bytes']
      for row in self.record['rows']
      if row['phase'] == phase and party in (None, row['party'])
    )

  def seconds(self, phase: str, link: Link | None = None) -> float:
    """What a client waits for a phase; without a link on the same machine."""
    rows = [row for row in self.record['rows'] if row['phase'] == phase]
    total = sum(row['cpu_seconds'] for row in rows)
    if link is not None:
      total += 8 * sum(row['bytes'] for row in rows) / link.bits_per_second
      total += sum(row['flights'] for row in rows) * link.round_trip / 2
    return total


def inference(
  model: PublicModel, mode: str = sessions.DEFAULT, costs: UnitCosts = unit_costs.DEFAULT
) -> Estimate:
  """Estimates an inference of a model.

  Args:
    model: as both parties know it: the `public` part of what `quantize` makes.
    mode: how it is served, a name of `sessions.MODES`.
    costs: of the machine.

  Raises:
    ValueError: two parties cannot serve this model, or not in this mode; or an
      operation has no cost.
  """
  served = sessions.mode_of(mode)
  structure = Structure.of(model)
  served.check(structure)
  contexts = keys.contexts(structure)
  tally = message_walk.tally(model, structure, contexts, served)
  for row, operations in tally.operations.items():
    if missing := sorted(operations.keys() - costs.seconds.keys()):
      raise ValueError(f'no unit cost of {", ".join(missing)}')
    tally.ledger.spend(*row, cpu=sum(n * costs.seconds[name] for name, n in operations.items()))
  peaks = peak_memory.peaks(structure, contexts, served, costs.memory)
  return Estimate(tally.ledger.record(), peaks)

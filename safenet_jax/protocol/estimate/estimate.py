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

from typing import Any, NamedTuple

from safenet_jax import ranges
from safenet_jax.fixed_point.model import PublicModel
from safenet_jax.protocol.delphi import keys, message_walk
from safenet_jax.protocol.estimate import peak_memory, unit_costs
from safenet_jax.protocol.estimate.unit_costs import UnitCosts
from safenet_jax.protocol.service import sessions


class Link(NamedTuple):
  """A network between the parties.

  name: for people.
  bits_per_second: each way.
  round_trip: seconds.
  """

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

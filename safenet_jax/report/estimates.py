"""Tables of what a private inference will cost."""

from collections.abc import Iterator, Mapping, Sequence

from safenet_jax.protocol.estimate.estimate import Estimate
from safenet_jax.protocol.estimate.links import LAN, Link, WAN

# What an estimate assumes, in sentences that are shown to the user.
ASSUMED = (
  'the network is not trained, and its formats have room for values of ten standard deviations: '
  "a trained one's labels and tables are some percent larger or smaller",
  'seconds are those that both parties compute, one after the other, with one core each; over a '
  'link, the time for its bytes and round trips is added',
  'memory is that of one client with the preparation and inference of one image, where the '
  "homomorphic encryption runs in the server's own thread",
)


def layers(found: Estimate, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
  """Header and rows of an estimate by layer: MB each way and CPU seconds of both parties.

  Args:
    found: the estimate.
    names: layers in order; those that cost nothing are left out. Behind them come two rows,
      for what all layers share, and for the image and the logits.
  """
  sums: dict[str, dict[tuple[str, str], float]] = {}
  for row in found.record['rows']:
    if row['phase'] == 'setup':
      continue
    name = row['layer'] if row['layer'] in names else 'all layers'
    if row['layer'] in ('input', 'logits', 'session'):
      name = 'image, logits'
    entry = sums.setdefault(name, dict.fromkeys(_columns(), 0.0))
    entry[row['phase'], row['party']] += row['bytes'] / 1e6
    entry[row['phase'], 'seconds'] += row['cpu_seconds']
  header = ['layer'] + [
    f'{phase} {text}' for phase in ('offline', 'online') for text in ('up', 'down', 's')
  ]
  order = [*names, 'all layers', 'image, logits']
  return header, [
    [name, *(f'{sums[name][column]:.3f}' for column in _columns())]
    for name in order
    if name in sums
  ]


def _columns() -> list[tuple[str, str]]:
  kinds = 'client', 'server', 'seconds'
  return [(phase, kind) for phase in ('offline', 'online') for kind in kinds]


def totals(found: Estimate) -> tuple[list[str], list[list[str]]]:
  """Header and rows of the phases: MB each way, rounds, and seconds on several links."""
  links = None, LAN, WAN
  header = ['phase', 'up MB', 'down MB', 'rounds', 's here', 's LAN', 's WAN']
  rows, sums = [], [0.0] * 6
  for phase, title in (
    ('setup', 'setup, once a connection'),
    ('offline', 'offline'),
    ('online', 'online'),
  ):
    values = [
      found.bytes(phase, 'client') / 1e6,
      found.bytes(phase, 'server') / 1e6,
      found.record['phases'][phase]['rounds'],
      *(found.seconds(phase, link) for link in links),
    ]
    rows.append([title, *_numbers(values)])
    if phase != 'setup':
      sums = [a + b for a, b in zip(sums, values)]
  return header, [*rows, ['offline and online', *_numbers(sums)]]


def _numbers(values: Sequence[float]) -> list[str]:
  up, down, rounds, *seconds = values
  return [f'{up:.2f}', f'{down:.2f}', f'{rounds:.0f}', *(f'{value:.2f}' for value in seconds)]


def modes(found: Mapping[str, Estimate], link: Link) -> tuple[list[str], list[list[str]]]:
  """Header and rows of all modes over a link: MB of both directions, rounds, and seconds."""
  header = ['mode', 'setup MB', 'offline MB', 'online MB', 'rounds']
  header += ['offline s', 'online s', 'both s']
  rows = []
  for mode, each in found.items():
    sizes = [f'{each.bytes(phase) / 1e6:.2f}' for phase in ('setup', 'offline', 'online')]
    seconds = [each.seconds(phase, link) for phase in ('offline', 'online')]
    rows.append([mode, *sizes, str(each.rounds('offline', 'online'))])
    rows[-1] += [f'{value:.2f}' for value in (*seconds, sum(seconds))]
  return header, rows


def lines(found: Estimate) -> Iterator[str]:
  """Lines that tell the user about memory, links and assumptions."""
  held = ', '.join(f'{party} {size / 1e6:.0f} MB' for party, size in found.memory.items())
  yield f'memory at most: {held}'
  for link in (LAN, WAN):
    yield (
      f'{link.name}: {link.bits_per_second / 1e6:g} Mbit/s each way, '
      f'{link.round_trip * 1e3:g} ms a round trip'
    )
  yield from (f'assumed: {text}' for text in ASSUMED)

"""The section of one run: its accuracy, its plan, and the cost of an inference."""

from collections.abc import Iterator, Sequence
import re

from safenet_jax.approximation import plans
from safenet_jax.protocol.estimate import links
from safenet_jax.report import costs, figures, tables
from safenet_jax.report.document import Block, Heading, NOT_RUN, NOTHING, Picture, Table, Text
from safenet_jax.report.runs import Run


def blocks(run: Run, level: int = 3) -> list[Block]:
  """The section of a run: all that its workdir holds, and "not run" for what it lacks.

  Headings are of the given level.
  """
  stem = re.sub(r'\W+', '_', run.name)
  found = _accuracy(run, stem)
  if run.plan is None:
    return [*found, Text('Plan: not run.')]
  plan = run.plan
  ratio = [r / plans.GRID for r in plan['ratio']]
  found += [
    Heading(level, 'Plan'),
    Table(f'{stem}_layers', 'The plan, layer by layer', *tables.layers(plan)),
    Picture(
      f'{stem}_plan',
      'Channels replaced in every layer, and the degree of their polynomials',
      lambda axes: figures.plan(axes, ratio, plan['degree']),
      (max(6.4, 0.3 * len(ratio)), 3.6),
    ),
  ]
  return found + [Heading(level, 'Cost of one private inference'), *_cost(run, stem)]


def _accuracy(run: Run, stem: str) -> list[Block]:
  found: list[Block] = []
  if run.plan:
    found.append(
      Table(
        f'{stem}_summary',
        'What the run achieved',
        ('quantity', 'value'),
        tables.summary(run.plan, costs.inference(run), run.evaluations, run.thin),
      )
    )
    found.append(Text('The all-ReLU network was trained for as many steps as the planned one.'))
  curves = {}
  for phase in ('pretrain', 'finetune', 'control'):
    points = [
      (line['epoch'], line['validation_accuracy'])
      for line in run.log(phase)
      if 'validation_accuracy' in line
    ]
    if points:
      curves[phase] = points
  if curves:
    found.append(
      Picture(
        f'{stem}_learning_curve',
        'Validation accuracy while the networks train',
        lambda axes: figures.learning_curve(axes, curves),
      )
    )
  return found


def _cost(run: Run, stem: str) -> list[Block]:
  ledger = costs.inference(run)
  if ledger is None:
    return [Text('not run: `experiments.infer`')]
  phases = [phase for phase in costs.PHASES if phase in ledger['phases']]
  rows = [row for row in ledger['rows'] if row['phase'] in phases]
  names = list(dict.fromkeys(row['layer'] for row in rows))
  by_layer = {phase: tables.bytes_by_layer(ledger, phase, names) for phase in phases}
  return [
    Text(_how(run)),
    projections(run, stem),
    Table(
      f'{stem}_costs',
      'By phase, primitive and party; what is neither offline nor online is once a connection',
      *tables.costs(ledger),
    ),
    Picture(
      f'{stem}_cost',
      'Bytes of every layer',
      lambda axes: figures.cost_by_layer(axes, names, by_layer),
      (max(6.4, 0.3 * len(names)), 3.6),
    ),
    Text(
      f'Expected failures of local truncation per inference: {ledger["truncation_failure"]:.1e}. '
      + ' '.join(_of_test_images(run))
    ),
  ]


def _how(run: Run) -> str:
  if run.client:
    return (
      f'Private inference ran as two processes over TLS on one machine: the mean of '
      f'{run.client["images"]} test images. All of it is real, the offline phase too. Seconds are '
      'those of the client, with its waiting for the server.'
    )
  mode = run.ledger['mode'] if run.ledger else NOT_RUN
  return (
    f'Private inference ran as: {mode}. Garbled circuits, shares and online messages are real; '
    'seconds are of both parties together.'
  )


def _of_test_images(run: Run) -> Iterator[str]:
  """Sentences on what the test images did, as each kind of inference says it."""
  for found in (run.client, run.ledger):
    if found and 'out_of_range' in found:
      yield (
        f'Values out of the range of their formats on {found["images"]} test images: '
        f'{sum(found["out_of_range"].values())}.'
      )
      break
  if run.ledger:
    speed = run.ledger['images_per_second']
    yield (
      'Private inferences a second, simulated in batches: '
      f'{f"{speed:.2f}" if speed else "one image only"}.'
    )


def projections(run: Run, stem: str) -> Table:
  """A run's seconds as measured, and what the same bytes and rounds would take over two links."""
  source, phases = costs.of_run(run) or (NOT_RUN, {})
  rows: list[Sequence[str]] = []
  for phase in ('offline', 'online'):
    cost = phases.get(phase)
    if cost is None:
      rows.append([phase, f'{NOT_RUN} by two processes', *[NOTHING] * 4])
      continue
    seconds = [cost.over(link) for link in (links.LAN, links.WAN)]
    rows.append(
      [
        phase,
        f'{cost.seconds:.3f}',
        tables.size(cost.bytes),
        f'{cost.rounds:g}',
        *(f'{s:.3f}' for s in seconds if s is not None),
      ]
    )
  return Table(
    f'{stem}_links',
    f'Measured ({source}), and over a network: seconds + bytes / rate + rounds x round trip',
    ('phase', 'seconds', 'traffic', 'rounds', str(links.LAN), str(links.WAN)),
    rows,
  )

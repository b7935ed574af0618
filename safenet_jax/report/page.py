"""The report of one run: Markdown, with figures as PNG and their data as csv."""

from safenet_jax.approximation import plan as plans
from safenet_jax.report import figures
from safenet_jax.report import tables
from safenet_jax.workdir import Workdir

TEXT = """# {title}

{summary}
The all-ReLU network was trained for as many steps as the planned one. Private
inference ran as: {mode}. Garbled circuits, shares and online messages are real;
seconds are of both parties together.

![learning curve](learning_curve.png)

## Plan

{layers}
![plan](plan.png)

## Cost of one private inference

{costs}
![cost by layer](cost.png)

Values out of the range of their formats on {images} test images: {out_of_range}. Expected
failures of local truncation per inference: {truncation_failure:.1e}. Private inferences a
second, simulated in batches: {images_per_second}.
"""


def summary(workdir: Workdir) -> list[tuple[str, str]]:
  """The rows of `tables.summary` from what a workdir holds."""
  plan, ledger = workdir.read_json('plan.json', 'search'), workdir.read_json('ledger.json', 'infer')
  evaluations, thin = (
    workdir.read_json(name, 'evaluate') if (workdir / name).exists() else None
    for name in ('evaluations.json', 'thin/thin.json')
  )
  return tables.summary(plan, ledger, evaluations or (), thin)


def write(workdir: Workdir, title: str) -> None:
  """Writes report.md and its figures into a workdir that has a plan and a ledger."""
  plan, ledger = workdir.read_json('plan.json', 'search'), workdir.read_json('ledger.json', 'infer')
  curves = {}
  for phase in ('pretrain', 'finetune', 'control'):
    points = [(line['epoch'], line['validation_accuracy']) for line in workdir.metrics(phase)]
    if points:
      curves[phase] = points
  figures.save(workdir / 'learning_curve', lambda axes: figures.learning_curve(axes, curves))
  ratio = [r / plans.GRID for r in plan['ratio']]
  figures.save(workdir / 'plan', lambda axes: figures.plan(axes, ratio, plan['degree']))
  names = list(dict.fromkeys(row['layer'] for row in ledger['rows']))
  costs = {phase: tables.bytes_by_layer(ledger, phase, names) for phase in ledger['phases']}
  figures.save(workdir / 'cost', lambda axes: figures.cost_by_layer(axes, names, costs))
  speed = ledger['images_per_second']
  (workdir / 'report.md').write_text(
    TEXT.format(
      title=title,
      summary=tables.markdown(('quantity', 'value'), summary(workdir)),
      layers=tables.markdown(*tables.layers(plan)),
      costs=tables.markdown(*tables.costs(ledger)),
      mode=ledger['mode'],
      images=ledger['images'],
      truncation_failure=ledger['truncation_failure'],
      images_per_second=f'{speed:.2f}' if speed else 'one image only',
      out_of_range=sum(ledger['out_of_range'].values()),
    )
  )

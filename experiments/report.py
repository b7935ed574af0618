"""Writes a run's report: Markdown, figures as PNG, their data as csv.

  python -m experiments.report --config=experiments/configs/cnn7_fashion.py --workdir=runs/demo
"""

import rich.console
import rich.table

from experiments import launcher
from safenet_jax.report import page
from safenet_jax.report import tables


def main() -> None:
  config = launcher.CONFIG.value
  workdir = launcher.workdir(config, 'model', 'data', 'pretrain', 'search', 'secure')
  page.write(workdir, f'{config.model.name} on {config.data.name}')
  plan = workdir.read_json('plan.json', 'search')
  console = rich.console.Console()
  for title, header, rows in (
    ('plan', *tables.layers(plan)),
    ('result', ('quantity', 'value'), page.summary(workdir)),
  ):
    table = rich.table.Table(*header, title=title)
    for row in rows:
      table.add_row(*map(str, row))
    console.print(table)
  print(f'report: {workdir / "report.md"}')


if __name__ == '__main__':
  launcher.run(main)

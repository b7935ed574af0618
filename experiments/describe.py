"""Prints a network: layers, shapes, parameters, multiply-accumulates and activations.

  python -m experiments.describe --config=experiments/configs/cnn7_cifar10.py

It needs neither images nor a workdir. The last line is the total of activations.
"""

import rich.box
import rich.console
import rich.table

from experiments import launcher
from experiments import pipeline
from safenet_jax.models import network as networks
from safenet_jax.report import tables


def main() -> None:
  config = launcher.CONFIG.value
  net = pipeline.network(config)
  header, rows = tables.architecture(net)
  title = f'{config.model.name} on {config.data.name}'
  table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, pad_edge=False)
  for n, name in enumerate(header):
    table.add_column(name, justify='left' if n < 2 else 'right')
  for row in rows[:-1]:
    table.add_row(*row)
  table.add_section()
  table.add_row(*rows[-1])
  console = rich.console.Console()
  if not console.is_terminal:
    console.width = 100  # a file has no width of its own
  console.print(table)
  print(f'activations: {sum(networks.relu_counts(net))}')


if __name__ == '__main__':
  launcher.run(main, needs_workdir=False)

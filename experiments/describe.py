"""Prints a network: layers, shapes, parameters, multiply-accumulates and activations.

  python -m experiments.describe --config=experiments/configs/cnn7_cifar10.py

It needs neither images nor a workdir. The last line is the number of all activations. With a
plan it also says how many bytes and seconds, and how much memory, a private inference will take:

  python -m experiments.describe --config=experiments/configs/cnn7_cifar10.py --plan=plan.json \
    [--mode=ot] [--costs=FILE of experiments.benchmark --suite=units]

--link=wan, --link=lan or --link=RATE,RTT (bits a second, seconds) sets all modes side by side, and
names the one that is cheapest over that network.
"""

from absl import flags
import rich.box
import rich.console
import rich.table

from experiments.lib import from_config, launcher
from safenet_jax.approximation import plans
from safenet_jax.models import layers as records
from safenet_jax.models import network as networks
from safenet_jax.protocol.estimate import estimate as estimates
from safenet_jax.protocol.estimate import links, serving, unit_costs, untrained
from safenet_jax.protocol.service import sessions
from safenet_jax.report import estimates as reports
from safenet_jax.report import tables

PLAN = flags.DEFINE(
  launcher.Path(),
  'plan',
  None,
  'A plan.json; what an inference under this plan costs is printed too.',
)
MODE = flags.DEFINE_enum(
  'mode', sessions.DEFAULT, list(sessions.MODES), 'How layers are served, with --plan.'
)
COSTS = flags.DEFINE(
  launcher.Path(),
  'costs',
  None,
  'With --plan: JSON file that experiments.benchmark --suite=units wrote on your machine.',
)


class _LinkParser(flags.ArgumentParser):
  """A network between the parties, as `links.parse` reads it."""

  def parse(self, argument: str) -> links.Link:
    return links.parse(argument)


LINK = flags.DEFINE(
  _LinkParser(),
  'link',
  None,
  'With --plan: lan, wan or RATE,RTT (bits a second, seconds), to compare all modes over it.',
)


def _show(console, title, header, rows, left: int, total: bool) -> None:
  table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, pad_edge=False)
  for n, name in enumerate(header):
    table.add_column(name, justify='left' if n < left else 'right')
  for n, row in enumerate(rows):
    if total and n == len(rows) - 1:
      table.add_section()
    table.add_row(*row)
  console.print(table)


def _estimate(console, config, net, path: str) -> None:
  costs = unit_costs.DEFAULT if COSTS.value is None else unit_costs.load(COSTS.value)
  plan = plans.load(path, config.model.name, len(networks.activation_channels(net)))
  mode = MODE.value or sessions.DEFAULT
  model = untrained.model(net, plan)
  for line in serving.lines(serving.of(model)):
    console.print(line, highlight=False, soft_wrap=True)
  found = estimates.inference(model.public, mode, costs)
  names = [shape.name for shape in records.shapes(net.layers, net.input_shape)]
  title = f'one private inference under {path}, {mode}, estimated: MB and seconds'
  _show(console, title, *reports.layers(found, names), left=1, total=False)
  _show(console, '', *reports.totals(found), left=1, total=True)
  for line in reports.lines(found):
    console.print(line, highlight=False, soft_wrap=True)
  if LINK.value is not None:
    link = LINK.value
    served, refused = estimates.modes(model.public, costs)
    title = f'every mode over {link}: MB both ways, and seconds'
    _show(console, title, *reports.modes(served, link), left=1, total=False)
    for line in estimates.verdict(served, refused, link):
      console.print(line, highlight=False, soft_wrap=True)


def main() -> None:
  config = launcher.CONFIG.value
  net = from_config.network(config)
  console = rich.console.Console()
  if not console.is_terminal:
    console.width = 100  # a file has no width of its own
  title = f'{config.model.name} on {config.data.name}'
  _show(console, title, *tables.architecture(net), left=2, total=True)
  if PLAN.value is not None:
    _estimate(console, config, net, PLAN.value)
  elif COSTS.value is not None or LINK.value is not None:
    name = 'link' if COSTS.value is None else 'costs'
    raise ValueError(f'--{name} without --plan, want the plan whose inference to estimate')
  else:
    for line in serving.lines(serving.refusals(net)):
      print(line)
  print(f'activations: {sum(networks.relu_counts(net))}')


if __name__ == '__main__':
  launcher.run(main, needs_workdir=False)

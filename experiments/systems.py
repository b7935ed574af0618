"""The other systems of the paper's Table 1: trained, run privately, and checked.

  python -m experiments.systems --system=xonn --workdir=runs/systems
  python -m experiments.systems --system=all --workdir=runs/systems --quick

Each is trained, unless the workdir has its weights. Then a client and a server, two processes over
TLS on this machine, compute the classes of test images, and the result is compared with the same
network on plaintext integers. A file for each network has its ledger, and a table is printed.

--quick takes small networks whose weights come with the code, and one image where a batch need not
be more: it shows that everything runs.
"""

import pathlib

from absl import flags
import rich.console
import rich.table

from experiments.lib import launcher, machine
from experiments.lib.systems import compared_systems
from safenet_jax import atomic_files

SYSTEM = flags.DEFINE_enum(
  'system', None, ['all', *compared_systems.SYSTEMS], 'Which to run; all of them one by one.'
)
QUICK = flags.DEFINE_bool('quick', False, 'Small networks, to see that it runs.')
COUNT = flags.DEFINE_integer(
  'images', None, 'How many test images, of every system by default.', lower_bound=1
)


def main() -> None:
  known = list(compared_systems.SYSTEMS)
  if SYSTEM.value is None:
    raise ValueError(f'no --system, want all, or one of: {", ".join(known)}')
  names = known if SYSTEM.value == 'all' else [SYSTEM.value]
  if not launcher.WORKDIR.value:
    raise ValueError('no --workdir, want a directory for this run')
  workdir = pathlib.Path(launcher.WORKDIR.value)
  workdir.mkdir(parents=True, exist_ok=True)
  table = rich.table.Table(*compared_systems.COLUMNS)
  for name in names:
    for row in compared_systems.SYSTEMS[name](workdir, QUICK.value, COUNT.value):
      atomic_files.write_json(workdir / f'{row.name}.json', row.record() | machine.record())
      table.add_row(*row.cells())
  rich.console.Console(width=160).print(table)


if __name__ == '__main__':
  launcher.run(main, needs_config=False)

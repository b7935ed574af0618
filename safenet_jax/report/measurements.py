"""What `experiments.benchmark` measured, and on which machine.

A row of it may have a floor: a limit of the machine, or a peer measured in the same run.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from safenet_jax import json_files
from safenet_jax.report.document import Block, Heading, NOTHING, Table, Text

# Columns of the table of private inference, by the quantity that a row's name ends with.
INFERENCE = {
  'offline_s': 'offline (s)',
  'online_s': 'online (s)',
  'total_s': 'total (s)',
  'offline_linear_s': 'offline, linear layers (s)',
  'online_linear_s': 'online, linear layers (s)',
  'offline_mb': 'offline (MB)',
  'online_mb': 'online (MB)',
  'offline_cpu_client_s': 'offline CPU, client (s)',
  'offline_cpu_server_s': 'server (s)',
  'online_cpu_client_s': 'online CPU, client (s)',
  'online_cpu_server_s': 'server (s) ',
  'agree': 'classes as in plaintext',
}
_ROW = {'name', 'suite', 'value', 'unit', 'floor', 'ratio', 'setting'}


def load(path: pathlib.Path) -> dict[str, Any]:
  """A file of `experiments.benchmark`; ValueError if it is none."""
  found = json_files.read(path, mend='run experiments.benchmark again')
  fields = {'machine': dict, 'versions': dict, 'rows': list}
  if not isinstance(found, dict) or not all(
    isinstance(found.get(name), kind) for name, kind in fields.items()
  ):
    raise ValueError(f'{path} has no machine, versions and rows, want a file of the benchmark')
  for number, row in enumerate(found['rows'], 1):
    if not isinstance(row, dict) or not row.keys() >= _ROW:
      raise ValueError(f'{path}: row {number} lacks some of {", ".join(sorted(_ROW))}')
  return found


def blocks(files: Mapping[str, Mapping[str, Any]]) -> list[Block]:
  """The section on benchmark files, by name: machines, private inference, and all other rows."""
  found: list[Block] = [Heading(2, 'Benchmarks')]
  if not files:
    return [*found, Text('not run: `python -m experiments.benchmark --suite=all --out=FILE`')]
  found.append(
    Table(
      'benchmark_machines',
      'Where it was measured',
      ('file', 'machine', 'versions', 'commit'),
      [
        [
          name,
          _machine(file['machine']),
          _versions(file['versions']),
          file.get('commit') or 'unknown',
        ]
        for name, file in files.items()
      ],
    )
  )
  rows = [row for file in files.values() for row in file['rows']]
  inference = [row for row in rows if row['suite'] == 'inference']
  if inference:
    found.append(_inference(inference))
  others = [row for row in rows if row['suite'] != 'inference']
  if others:
    found.append(
      Table(
        'benchmark',
        'Other measurements; the floor is a limit or a peer measured in the same run',
        ('name', 'suite', 'value', 'unit', 'floor', 'ratio', 'setting'),
        [
          [
            row['name'],
            row['suite'],
            _number(row['value']),
            row['unit'],
            _number(row['floor']),
            _number(row['ratio']),
            row['setting'],
          ]
          for row in others
        ],
      )
    )
  return found


def _inference(rows: Sequence[Mapping[str, Any]]) -> Table:
  plans: dict[str, dict[str, float]] = {}
  for row in rows:
    plan, quantity = row['name'].rsplit('/', 1)
    plans.setdefault(plan, {})[quantity] = row['value']
  settings = {row['name'].rsplit('/', 1)[0]: row['setting'] for row in rows}
  return Table(
    'benchmark_inference',
    'One private inference by two processes, weights random',
    ('network/plan', *INFERENCE.values(), 'setting'),
    [
      [plan, *(_number(values.get(name)) for name in INFERENCE), settings[plan]]
      for plan, values in plans.items()
    ],
  )


def _number(value: float | None) -> str:
  return NOTHING if value is None else f'{value:,.0f}' if value >= 1e4 else f'{value:.3g}'


def _machine(machine: Mapping[str, Any]) -> str:
  memory = str(machine.get('memory') or '')
  size = f', {int(memory.split()[0]) / 2**20:.0f} GiB' if memory.endswith('kB') else ''
  return f'{machine.get("processor")}, {machine.get("cores")} cores{size}, {machine.get("system")}'


def _versions(versions: Mapping[str, Any]) -> str:
  return ', '.join(f'{name} {version}' for name, version in versions.items() if version)

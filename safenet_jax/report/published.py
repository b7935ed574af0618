"""Numbers that others published, from third_party/published, each with its source."""

import csv
import pathlib
from typing import NamedTuple

# Where third_party is: inside of an installed package, or at the root of a checkout.
_PLACES = [
  root / 'third_party' / 'published' for root in pathlib.Path(__file__).resolve().parents[1:3]
]
DIRECTORY = next((place for place in _PLACES if place.is_dir()), _PLACES[-1])

# The seconds of Tables 2 to 4, in their order.
SECONDS = (
  'offline_he_linear_s',
  'offline_mpc_act_s',
  'offline_total_s',
  'online_he_linear_s',
  'online_mpc_act_s',
  'online_total_s',
  'total_s',
)

# The columns of Table 1.
FEATURES = (
  'strong_encryption',
  'batched_he',
  'optimized_activation',
  'channel_wise',
  'mixed_precision',
  'multiple_degrees',
)


class Row(NamedTuple):
  """A system's row in one of Tables 2 to 4, as printed.

  seconds: by the names of SECONDS.
  accuracy: percent.
  """

  table: int
  dataset: str
  network: str
  system: str
  seconds: dict[str, float]
  accuracy: float


class Named(NamedTuple):
  """A value of a figure that the paper's text names.

  series, quantity: what it is the value of.
  relation: how the text gives it, such as '=', '~' or '>'.
  value: percent.
  where: the place in the text.
  """

  figure: str
  network: str
  series: str
  quantity: str
  relation: str
  value: float
  where: str


class Slip(NamedTuple):
  """Where printed numbers do not agree with each other."""

  where: str
  printed: str
  found: str


class System(NamedTuple):
  """A row of Table 1. Marks are True, False, or None where the paper has none.

  printed: seconds and bytes that papers give for it, with their source.
  """

  name: str
  reference: str
  in_table: bool
  marks: dict[str, bool | None]
  what: str
  printed: str


class Later(NamedTuple):
  """An accuracy, in percent, at a number of ReLUs; not `traced` if it has no primary source."""

  dataset: str
  relus: int
  accuracy: float
  system: str
  network: str
  source: str
  note: str

  @property
  def traced(self) -> bool:
    """Whether the source of the value is known."""
    return self.source != 'not traced'


def _read(name: str) -> list[dict[str, str]]:
  path = DIRECTORY / name
  try:
    with open(path, newline='') as file:
      return list(csv.DictReader(file))
  except FileNotFoundError:
    raise FileNotFoundError(
      f'no {path}: the report needs the folder third_party of the repository'
    ) from None


def tables() -> list[Row]:
  """Tables 2 to 4."""
  return [
    Row(
      int(row['table']),
      row['dataset'],
      row['network'],
      row['system'],
      {name: float(row[name]) for name in SECONDS},
      float(row['accuracy_percent']),
    )
    for row in _read('tables.csv')
  ]


def named(figure: str, network: str | None = None) -> list[Named]:
  """The values of a figure that the paper's text names; those of one network if it is given."""
  return [
    Named(**row | {'value': float(row['value'])})  # type: ignore[arg-type]
    for row in _read('named.csv')
    if row['figure'] == figure and network in (None, row['network'])
  ]


def slips() -> list[Slip]:
  """Numbers in the paper that do not agree with each other."""
  return [Slip(**row) for row in _read('slips.csv')]


def systems() -> list[System]:
  """Table 1, and after it the systems that only the text compares."""
  marks = {'yes': True, 'no': False, '': None}
  return [
    System(
      row['system'],
      row['reference'],
      row['in_table'] == 'yes',
      {feature: marks[row[feature]] for feature in FEATURES},
      row['is'],
      row['printed'],
    )
    for row in _read('systems.csv')
  ]


def later(dataset: str | None = None) -> list[Later]:
  """The paper's and later accuracies at a ReLU budget; those of one data set if it is given."""
  return [
    Later(
      row['dataset'],
      int(row['relus']),
      float(row['accuracy_percent']),
      row['system'],
      row['network'],
      row['source'],
      row['note'],
    )
    for row in _read('later.csv')
    if dataset in (None, row['dataset'])
  ]

"""Benchmarks: modules with `rows() -> Iterator[Row]`."""

from typing import NamedTuple


class Row(NamedTuple):
  """One measured figure; `ratio` is value over floor where there is one."""

  suite: str
  name: str
  setting: str
  value: float
  unit: str
  floor: float | None
  ratio: float | None

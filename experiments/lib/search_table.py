"""The table that a search shows on a terminal while it runs."""

from collections.abc import Callable
import contextlib
import time
from typing import Any

import jax
import numpy as np
import rich.console
import rich.live
import rich.table

from safenet_jax.approximation import plans


def remaining(seconds: float, done: int, total: int) -> str:
  """Time left as h:mm:ss, if the other cycles take as long as the `done` ones on average."""
  left = round(seconds / done * (total - done)) if done else 0
  return f'{left // 3600}:{left // 60 % 60:02}:{left % 60:02}'


def table(done: int, total: int, node: str, best: dict[str, Any] | None, left: str):
  """The rich table of one moment; `best` has score, accuracy, ratio and degree."""
  found = rich.table.Table(title=f'search: cycle {done} of {total}, node {node}')
  for name in ('best score', 'accuracy', 'time left'):
    found.add_column(name, justify='right')
  found.add_column('ratio per layer (degree)')
  if best is None:
    found.add_row('-', '-', left, 'every member diverged')
    return found
  layers = ' '.join(
    f'{ratio / plans.GRID:.0%}({degree})' if ratio else '0%'
    for ratio, degree in zip(best['ratio'], best['degree'])
  )
  found.add_row(f'{best["score"]:.4f}', f'{best["accuracy"]:.2%}', left, layers)
  return found


@contextlib.contextmanager
def search_table(console: rich.console.Console | None = None):
  """Yields report(done, total, cycle_report): a live table on a terminal, else nothing.

  The best member is that with the largest selection key seen in this session.
  """
  console = console or rich.console.Console(stderr=True)
  if not console.is_terminal or jax.process_index():
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    yield nothing
    return
  start, first = time.monotonic(), None
  best_key, best = -np.inf, None
  with rich.live.Live(console=console) as live:

    def report(done, total, cycle):
      nonlocal first, best_key, best
      first = done - 1 if first is None else first
      top = int(np.argmax(cycle['key']))
      if cycle['key'][top] > best_key:
        best_key = cycle['key'][top]
        best = {name: cycle[name][top] for name in ('score', 'accuracy', 'ratio', 'degree')}
      # Cycles that an earlier session ran took no time in this one.
      session = done - first
      left = remaining(time.monotonic() - start, session, session + total - done)
      live.update(table(done, total, cycle['node'], best, left))

    yield report

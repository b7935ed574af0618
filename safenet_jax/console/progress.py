"""Progress bars on a terminal. Without a terminal nothing is shown, and `rich` is not imported."""

from collections.abc import Callable, Iterator
import contextlib
import sys


@contextlib.contextmanager
def bars(**totals: int) -> Iterator[Callable[[str, int], None]]:
  """Shows a bar for every name, until the block ends; yields advance(name, count).

  Args:
    totals: for each name, how many steps there are.
  """
  if not sys.stderr.isatty():
    yield lambda name, count: None
    return
  import rich.console
  import rich.progress

  with rich.progress.Progress(console=rich.console.Console(stderr=True)) as shown:
    tasks = {name: shown.add_task(name, total=total) for name, total in totals.items()}
    yield lambda name, count: shown.advance(tasks[name], count)

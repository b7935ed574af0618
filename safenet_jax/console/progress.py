"""Progress bars on a terminal. Without a terminal nothing is shown, and `rich` is not imported."""

from collections.abc import Callable, Iterator
import contextlib
import sys
from typing import Any

from safenet_jax.transport.ledger import Ledger


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

  with rich.progress.Progress(
    console=rich.console.Console(stderr=True), redirect_stdout=sys.stdout.isatty()
  ) as shown:
    tasks = {name: shown.add_task(name, total=total) for name, total in totals.items()}
    yield lambda name, count: shown.advance(tasks[name], count)


class Traffic:
  """Bars of bytes whose number is known beforehand, each with the layer that is on its way.

  Use it as a context manager; `watching` is for any thread.
  """

  def __init__(self):
    self._shown: Any = None

  def __enter__(self) -> 'Traffic':
    if sys.stderr.isatty():
      import rich.console
      import rich.progress

      self._shown = rich.progress.Progress(
        rich.progress.TextColumn('{task.description} {task.fields[layer]}'),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # what a pipe gets would else go to the terminal
      )
      self._shown.start()
    return self

  def __exit__(self, *unused) -> None:
    if self._shown is not None:
      self._shown.stop()

  @contextlib.contextmanager
  def watching(self, ledger: Ledger, **totals: tuple[str, int]) -> Iterator[None]:
    """Shows the bytes of phases that a ledger counts, until the block ends.

    Args:
      ledger: that counts them.
      totals: for the name of each bar, the phase and its bytes.
    """
    if self._shown is None:
      yield
      return
    tasks = {
      phase: self._shown.add_task(name, total=total, layer='')
      for name, (phase, total) in totals.items()
      if total
    }

    def told(phase: str, layer: str, size: int) -> None:
      if phase in tasks:
        self._shown.update(tasks[phase], advance=size, layer=layer)

    ledger.watch = told
    try:
      yield
    finally:
      ledger.watch = None
      for task in tasks.values():
        self._shown.remove_task(task)

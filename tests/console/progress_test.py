"""Bars count the bytes of a phase on a terminal; without one, nothing is watched or shown."""

import io

from safenet_jax.console import progress
from safenet_jax.transport.ledger import Ledger


class Terminal(io.StringIO):
  def isatty(self):
    return True


def terminal(monkeypatch):
  """Standard error; not a fixture, because pytest puts its own in place before the call."""
  found = Terminal()
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('COLUMNS', '120')
  monkeypatch.setattr('sys.stderr', found)
  return found


def test_a_terminal_shows_the_bytes_of_each_phase_and_the_layer(monkeypatch):
  found = terminal(monkeypatch)
  ledger = Ledger()
  phases = {'prepare': ('offline', 4000), 'infer': ('online', 1000), 'nothing': ('setup', 0)}
  with progress.Traffic() as shown, shown.watching(ledger, **phases):
    ledger.count('offline', 'conv3', 'linear', 'client', 3000)
    ledger.count('setup', 'session', 'keys', 'client', 9000)  # has no bar
    done = {task.description: task.completed for task in shown._shown.tasks}
    assert done == {'prepare': 3000, 'infer': 0}
    shown._shown.refresh()
  text = found.getvalue()
  assert 'prepare conv3' in text and '3.0/4.0 kB' in text
  assert ledger.watch is None and not shown._shown.tasks


def test_without_a_terminal_nothing_is_shown(capsys):
  ledger = Ledger()
  with progress.Traffic() as shown, shown.watching(ledger, prepare=('offline', 10)):
    assert ledger.watch is None
    ledger.count('offline', 'conv3', 'linear', 'client', 10)
  assert capsys.readouterr() == ('', '')


def test_two_sessions_have_a_bar_each(monkeypatch):
  terminal(monkeypatch)
  ours, theirs = Ledger(), Ledger()
  with (
    progress.Traffic() as shown,
    shown.watching(ours, preparing=('offline', 10)),
    shown.watching(theirs, preparing=('offline', 10)),
  ):
    ours.count('offline', 'a', 'linear', 'client', 4)
    theirs.count('offline', 'b', 'linear', 'client', 7)
    assert [task.completed for task in shown._shown.tasks] == [4, 7]

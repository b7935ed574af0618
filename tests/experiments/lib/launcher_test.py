"""What is read from a command line, and the progress bar of a training."""

import io
import sys

import rich.console

from experiments.lib import launcher


def shown(reports):
  """The last lines of a bar, after reports of (seconds, done, total, metrics)."""
  clock = [0.0]
  console = rich.console.Console(
    force_terminal=True,
    color_system=None,
    width=100,
    file=io.StringIO(),
    get_time=lambda: clock[0],
  )
  with launcher.progress_bar('pretrain', console) as report:
    for seconds, *rest in reports:
      clock[0] = seconds
      report(*rest)
  return console.file.getvalue().splitlines()[-2:]


def test_a_terminal_shows_speed_time_left_loss_and_accuracy():
  metrics = {
    'loss': 0.98765,
    'validation_accuracy': 0.8251,
    'learning_rate': 0.05,
    'images/s': 1532.7,
  }
  text = ' '.join(shown([(10, 40, 351, {'loss': 2.0}), (20, 80, 351, metrics)]))
  assert text.count('pretrain') == 1  # all of it on one line
  for part in ('80/351', '0:00:20', '1,533 images/s', 'loss 0.988', 'accuracy 82.5%'):
    assert part in text
  assert 'learning_rate' not in text


def test_time_left_is_known_when_reports_come_once_a_minute_and_after_a_resumption():
  # Resumed at step 1,000 of 2,000: its steps took none of this session's time.
  reports = [(60 * n, 1000 + 40 * n, 2000, {}) for n in (1, 2, 3)]
  assert 'ETA 0:22:00' in ' '.join(shown(reports))


def test_nothing_is_shown_without_a_terminal():
  console = rich.console.Console(file=io.StringIO())
  with launcher.progress_bar('pretrain', console) as report:
    report(1, 2, {'loss': 1.0})
  assert console.file.getvalue().strip() == ''


def test_values_follow_their_flag_or_an_equals_sign(monkeypatch):
  line = ['--config', 'a.py:smoke', '--config.x=1', '--quick', '--out=o', '--config.y', '2', '-z']
  monkeypatch.setattr(sys, 'argv', ['command', *line])
  assert launcher.config_path() == 'a.py'
  assert launcher.config_arguments() == ['--config=a.py:smoke', '--config.x=1', '--config.y=2']
  assert launcher.given('out') == ['o'] and launcher.given('quick') == launcher.given('z') == ['']
  assert launcher.given('none') == []

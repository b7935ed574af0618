"""What is read from a command line, and the progress bar of a training."""

import ast
import io
import pathlib
import re
import sys
import types

from absl import flags
from ml_collections import config_dict
import pytest
import rich.console

from experiments.lib import launcher
from safenet_jax import workdir

ROOT = pathlib.Path(__file__).parents[3]


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


def test_a_path_flag_may_begin_with_the_home_directory(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  found = flags.FlagValues()
  for name in ('workdir', 'out'):  # as the launcher defines them
    flags.DEFINE(flags.FLAGS[name].parser, name, None, 'a path', flag_values=found)
  found(['command', '--workdir=~/run', '--out=a~/b'])
  assert (found.workdir, found.out) == (str(tmp_path / 'run'), 'a~/b')
  monkeypatch.setattr(sys, 'argv', ['command', '--config=~/mine.py:smoke'])
  assert launcher.config_path() == str(tmp_path / 'mine.py')


@pytest.mark.parametrize('path', sorted((ROOT / 'experiments').glob('*.py')), ids=lambda p: p.stem)
def test_every_flag_that_names_a_file_is_a_path(path):
  for call in ast.walk(ast.parse(path.read_text())):
    if isinstance(call, ast.Call) and ast.unparse(call.func) == 'flags.DEFINE_string':
      pytest.fail(
        f'{ast.unparse(call.args[0])} is no path, want flags.DEFINE(launcher.Path(), ...)'
      )


def test_a_bad_out_is_refused_before_the_work(tmp_path, monkeypatch):
  for value, reason in (
    (None, 'no --out, want --out=FILE'),
    (tmp_path, 'Is a directory, want a file'),
    (tmp_path / 'none/out.json', 'No such file or directory, want a file'),
  ):
    monkeypatch.setattr(launcher, 'OUT', types.SimpleNamespace(value=value and str(value)))
    with pytest.raises(ValueError, match=reason):
      launcher.output_file()
  monkeypatch.setattr(launcher, 'OUT', types.SimpleNamespace(value=str(tmp_path / 'out.json')))
  assert launcher.output_file() == tmp_path / 'out.json' and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'text, message',
  [
    ('import none_such_module', 'line 1: ModuleNotFoundError: .*none_such_module'),
    ('def get_config(preset):\n  return missing', 'line 2: NameError'),
    ('def get_config(:', 'line 1: SyntaxError: invalid syntax, want a config in Python'),
    ('\0', 'line 1: SyntaxError|null bytes'),
    ('x = 1', 'has no get_config'),
  ],
)
def test_a_broken_config_is_one_line_of_file_and_line(tmp_path, monkeypatch, capsys, text, message):
  path = tmp_path / 'mine.py'
  path.write_text(text)
  monkeypatch.setattr(sys, 'argv', ['command', f'--config={path}', '--workdir=x'])
  with pytest.raises(SystemExit) as caught:
    launcher._parse(True, True, sys.argv)
  error = capsys.readouterr().err
  assert caught.value.code == 2 and error.count('\n') == 1
  assert re.match(rf'error: .*({message})', error)


def settings():
  return config_dict.ConfigDict({'seed': 0, 'model': {'name': 'cnn7'}})


def test_a_command_that_only_reads_changes_nothing_and_waits_for_nobody(tmp_path, monkeypatch):
  monkeypatch.setattr(launcher, 'WORKDIR', types.SimpleNamespace(value=str(tmp_path / 'run')))
  launcher.workdir(settings(), 'model', writes=False)
  assert not (tmp_path / 'run').exists()
  writer = workdir.Workdir(tmp_path / 'run')
  writer.claim({'model': {'name': 'cnn7'}})
  launcher.workdir(settings(), 'model', writes=False)
  with pytest.raises(BlockingIOError, match='in use by process'):
    launcher.workdir(settings(), 'model')
  writer.release()
  with pytest.raises(ValueError, match=r"model\.name='cnn7', got 'vgg16'"):
    other = settings()
    other.model.name = 'vgg16'
    launcher.workdir(other, 'model', writes=False)


def test_a_full_disk_at_the_end_of_a_command_is_no_error(tmp_path):
  launcher._log_command(tmp_path / 'none', {}, 0.0)
  launcher._log_command(tmp_path, {'command': 'pretrain'}, 0.0)
  assert '"command": "pretrain"' in (tmp_path / 'commands.jsonl').read_text()

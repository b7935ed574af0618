"""The command's arguments: one or several workdirs, and the benchmarks to show."""

import sys

import pytest

from experiments import report
from experiments.lib import launcher


def test_workdirs_are_repeated_or_have_commas_between(monkeypatch):
  arguments = ['--workdir=a,b', '--out=x', '-workdir', 'c', '--workdir=b', '--benchmark=d']
  monkeypatch.setattr(sys, 'argv', ['report', *arguments])
  assert report.workdirs(launcher.given('workdir')) == ['a', 'b', 'c']
  assert report.workdirs([]) == []


def test_a_comma_in_the_name_of_a_directory_is_its_own(tmp_path):
  path = tmp_path / 'algorithm-pbt,seed-0'
  path.mkdir()
  assert report.workdirs([str(path)]) == [str(path)]


def test_the_benchmarks_kept_here_are_shown_unless_others_are_named(tmp_path):
  kept = report.benchmarks(None)
  assert kept and all(file['rows'] and file['commit'] for file in kept.values())
  assert report.benchmarks([]) == {}
  with pytest.raises(FileNotFoundError):
    report.benchmarks([str(tmp_path / 'none.json')])

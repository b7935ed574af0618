"""A file is old or new, never half of it."""

import os
import stat

import pytest

from safenet_jax import atomic_files


def mode(path):
  return stat.S_IMODE(path.stat().st_mode)


def test_a_file_takes_its_place_at_the_end_of_the_block(tmp_path):
  path = tmp_path / 'plan.json'
  path.write_text('old')
  with atomic_files.writing(path) as file:
    file.write(b'new')
    file.flush()
    assert path.read_text() == 'old'
  assert path.read_text() == 'new' and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
@pytest.mark.parametrize('place', ['block', 'fsync', 'replace'])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, place, error):
  path = tmp_path / 'plan.json'
  path.write_text('old')

  def fail(*arguments):
    raise error

  if place != 'block':
    monkeypatch.setattr(os, place, fail)
  with pytest.raises(type(error)), atomic_files.writing(path) as file:
    file.write(b'new')
    if place == 'block':
      fail()
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_of_what_json_cannot_hold(tmp_path):
  with pytest.raises(TypeError):
    atomic_files.write_json(tmp_path / 'plan.json', {'ratio': object()})
  assert not list(tmp_path.iterdir())


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_it_returns(
  tmp_path, monkeypatch
):
  order, fsync, replace = [], os.fsync, os.replace

  def forced(descriptor):
    kind = 'directory' if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 'file'
    order.append((kind, os.fstat(descriptor).st_size if kind == 'file' else None))
    fsync(descriptor)

  def renamed(*names):
    order.append(('rename', None))
    replace(*names)

  monkeypatch.setattr(os, 'fsync', forced)
  monkeypatch.setattr(os, 'replace', renamed)
  atomic_files.write_text(tmp_path / 'log', 'four')
  assert order == [('file', 4), ('rename', None), ('directory', None)]


def test_a_private_file_is_its_owners_alone_and_others_follow_the_umask(tmp_path):
  old = os.umask(0o027)
  try:
    with atomic_files.writing(tmp_path / 'key', private=True) as file:
      file.write(b'secret')
    atomic_files.write_text(tmp_path / 'log', 'open')
  finally:
    os.umask(old)
  assert mode(tmp_path / 'key') == 0o600 and mode(tmp_path / 'log') == 0o640


def test_an_error_names_the_file_and_not_its_partial_one(tmp_path, monkeypatch):
  def full(descriptor):
    raise OSError(28, 'No space left on device')

  with pytest.raises(FileNotFoundError) as caught:
    atomic_files.write_text(tmp_path / 'none' / 'plan.json', 'new')
  assert caught.value.filename == str(tmp_path / 'none' / 'plan.json')
  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left') as caught:
    atomic_files.write_text(tmp_path / 'plan.json', 'new')
  assert caught.value.filename == str(tmp_path / 'plan.json')


def test_a_check_says_whether_a_file_can_be_written_and_changes_nothing(tmp_path):
  path = tmp_path / 'plan.json'
  atomic_files.check(path)
  assert not list(tmp_path.iterdir())
  path.write_text('old')
  atomic_files.check(path)
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]
  for wrong, error in (
    (tmp_path, IsADirectoryError),
    (tmp_path / 'none' / 'plan.json', FileNotFoundError),
    (path / 'below', NotADirectoryError),
  ):
    with pytest.raises(error) as caught:
      atomic_files.check(wrong)
    assert caught.value.filename == str(wrong)


def test_a_device_is_written_to_and_not_replaced():
  atomic_files.write_text(os.devnull, 'new')
  assert stat.S_ISCHR(os.stat(os.devnull).st_mode)

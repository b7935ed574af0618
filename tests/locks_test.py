"""One process at a time holds a directory, until it releases it or dies."""

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys

import pytest

from safenet_jax import locks

# Takes the lock of a directory, says so, and waits.
HOLDER = """
import pathlib, sys
from safenet_jax import locks
lock = locks.Lock(pathlib.Path(sys.argv[1]))
print('held', flush=True)
sys.stdin.read()
"""


def test_a_second_holder_is_refused_by_host_and_process_until_the_first_dies(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLDER, str(tmp_path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  with holder:
    try:
      assert holder.stdout.readline() == 'held\n'
      name = f'process {holder.pid} on {socket.gethostname()}'
      with pytest.raises(BlockingIOError, match=f'is in use by {re.escape(name)}, want another'):
        locks.Lock(tmp_path)
    finally:
      holder.kill()
  assert (tmp_path / locks.NAME).read_text() == name  # and it locks nothing
  locks.Lock(tmp_path).release()
  assert (tmp_path / locks.NAME).read_text() == ''


def test_of_two_holders_in_one_process_the_second_is_refused(tmp_path):
  lock = locks.Lock(tmp_path)
  with pytest.raises(BlockingIOError, match=f'process {os.getpid()} on'):
    locks.Lock(tmp_path)
  lock.release()
  locks.Lock(tmp_path).release()


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
  def none(*arguments):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(fcntl, 'flock', none)
  locks.Lock(tmp_path).release()
  assert f'{tmp_path}: no locks here (No locks available)' in caplog.text


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
  with pytest.raises(OSError, match='No such file') as caught:
    locks.Lock(tmp_path / 'none')
  assert caught.value.filename == str(tmp_path / 'none' / locks.NAME)

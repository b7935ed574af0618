"""Correlated transfers: threads take turns in a session, and it ends with a fork."""

import os
import threading
import time

import numpy as np

from safenet_jax.crypto import randomness
from safenet_jax.crypto.oblivious_transfer import bit_planes, correlated_transfer
from tests.support import fresh, transfers


def test_threads_take_turns_in_a_session(monkeypatch):
  sender, receiver, _ = transfers.make_session('softspoken')
  labels, inside, most, results = bit_planes.Streams.labels, [], [], {}

  def watched(*arguments):
    inside.append(None)
    # Time for the other threads to come in, had they not to wait.
    time.sleep(0.05)
    most.append(len(inside))
    found = labels(*arguments)
    inside.pop()
    return found

  def extend(tag):
    message, t = receiver.extend(tag, choices, 1000)
    results[tag] = sender.extend(tag, message, 1000), t

  choices = transfers.random_choices(1000)
  # The parties take turns too, or the sender would be counted with the receiver.
  monkeypatch.setattr(bit_planes.Streams, 'labels', watched)
  monkeypatch.setattr(sender, '_lock', receiver._lock)
  threads = [threading.Thread(target=extend, args=(b'%d' % k,)) for k in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert most == [1] * 8
  assert len(results) == 4
  for q, t in results.values():
    assert transfers.correlated(q, t, choices).all()


def test_a_session_forked_before_it_is_finished_is_refused_in_the_child():
  fresh.run(check_unfinished_fork)


def check_unfinished_fork():
  source = randomness.SystemRandomness()
  receiver = correlated_transfer.CorrelatedReceiver(source)
  sender = correlated_transfer.CorrelatedSender(np.array([1, 2], np.uint64))
  points = sender.choose(receiver.announcement, source)
  child = os.fork()
  if child == 0:
    refusals = 0
    for step in (lambda: receiver.correct(points), lambda: sender.finish(np.zeros(0, np.uint8))):
      try:
        step()
      except ValueError as error:
        refusals += 'fork' in str(error)
    os._exit(refusals)
  assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
  sender.finish(receiver.correct(points))


def test_fork_gives_other_secrets_and_ends_the_session():
  fresh.run(check_fork)


def check_fork():
  source = randomness.SystemRandomness()
  # Both processes would continue this key stream, were it not for the fork rule.
  source.bytes(1)
  old = transfers.make_session('softspoken')[1]
  reading, writing = os.pipe()
  child = os.fork()
  if child == 0:
    try:
      correlated_transfer.CorrelatedReceiver(source)
      try:
        old.extend(b'tag', np.zeros(16, np.uint8), 128)
        refused = b'used'
      except ValueError as error:
        refused = b'refused' if 'fork' in str(error) else b'other'
      fresh = correlated_transfer.CorrelatedReceiver(source)
      os.write(writing, refused + b' ' + fresh.announcement.hex().encode())
    finally:
      os._exit(0)
  os.close(writing)
  with os.fdopen(reading, 'rb') as pipe:
    refused, announcement = pipe.read().split()
  os.waitpid(child, 0)
  parent = [
    correlated_transfer.CorrelatedReceiver(source).announcement.hex().encode() for _ in range(3)
  ]
  assert refused == b'refused'
  assert announcement not in parent
  old.extend(b'tag', np.zeros(16, np.uint8), 128)

"""Changed messages in whole sessions, of both parties and modes: an error of one line, or none.

Messages of recorded sessions are changed by seeded dice, in what they announce or in their
payload only, one or several in a session, and given to a whole client or server. Most keep
tag, types and shapes, so that they reach what reads the payload of a layer's message.
"""

import collections
import ctypes
import dataclasses
import gc
import os
import pathlib
import random
import threading
import time

import numpy as np
import pytest

from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import frames
from safenet_jax.transport.frames import ProtocolError
from tests.support import models, mutations, replay

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 2), np.uint8)
CASES = {
  'delphi': (models.model, 'delphi', 'logits'),
  'chain': (models.chained, 'delphi', 'logits'),
  'gazelle': (models.model, 'gazelle', 'logits'),
  'max pools': (models.pooled, 'delphi', 'class'),
  'minionn': (models.model, 'minionn', 'logits'),
  'gazelle class': (models.model, 'gazelle', 'class'),
  'ot': (models.model, 'ot', 'logits'),
}
# Of all cases and parties together. The network's time for a message is milliseconds.
QUICK, FULL = 2_000, 100_000
_SECONDS, _GROWTH = 10.0, 48 << 20


@pytest.fixture(scope='module', params=CASES)
def recording(request):
  make, mode, output = CASES[request.param]
  with servers.Server(make(), context=None, options=servers.ServerOptions(mode=mode)) as server:
    yield replay.Recording(server, IMAGES, output)


@pytest.mark.parametrize('resumed', [False, True])
@pytest.mark.parametrize('party', replay.PARTIES)
def test_an_unchanged_recording_is_replayed_to_its_end(recording, party, resumed):
  """Or a changed one would end where nobody looks."""
  heard = recording.heard[party]
  for _ in range(2):
    outcome = recording.replay(party, _kept(heard, resumed), resumed=resumed)
    assert outcome.error is None and all(outcome.reached)
    if party == 'client':
      np.testing.assert_array_equal(outcome.result, recording.result)


def _kept(messages, resumed):
  return [m for m in messages if not (resumed and m.tag in replay.SETUP)]


@dataclasses.dataclass
class Tally:
  """Of changed messages: how many were read, which reached a layer, and how sessions ended."""

  messages: int = 0
  reached: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  errors: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  sessions: int = 0
  slowest: float = 0.0


def changed(dice, heard, donors):
  """The messages of a session of which some are changed, and whether its keys are recorded."""
  resumed = dice.random() > 0.03
  kept = _kept(heard, resumed)
  places = [i for i, m in enumerate(kept) if (m.tag in replay.LAYERS) == resumed]
  if dice.random() < 0.03:
    places = [i for i, m in enumerate(kept) if m.tag == 'command'] or places
  share = dice.choice((0.0, 0.5, 1.0))
  chosen = {dice.choice(places)} | {i for i in places if dice.random() < share}
  for i in chosen:
    change = mutations.structure if dice.random() < 0.1 else mutations.payload
    kept[i] = kept[i]._replace(frame=change(dice, kept[i].frame, donors), changed=True)
  return kept, resumed


def fuzz(recording, party, count, seed):
  """Sessions until the party has read so many changed messages, of every layer's kind one."""
  dice, tally = random.Random(seed), Tally()
  kinds = {m.tag for m in recording.heard[party]} & set(replay.LAYERS)
  donors = [m.frame for heard in recording.heard.values() for m in heard]
  grown = 0
  # The session's own masks decide which changes are noticed, so the seed alone does not say how
  # often the last kinds of a session are reached.
  while tally.messages < count or (tally.reached.keys() < kinds and tally.messages < 8 * count):
    messages, resumed = changed(dice, recording.heard[party], donors)
    start = time.process_time()  # whatever else the machine does
    try:
      outcome = recording.replay(party, messages, resumed=resumed)
    except Exception as error:
      told = [m.tag for m in messages if m.changed]
      raise AssertionError(f'seed {seed}, session {tally.sessions}: {told} changed') from error
    tally.slowest = max(tally.slowest, time.process_time() - start)
    tally.sessions += 1
    if outcome.error is not None:
      line = str(outcome.error)
      assert isinstance(outcome.error, ProtocolError) and line.isprintable() and len(line) < 700
      tally.errors[line.split(',')[0][:40]] += 1
    for message, begun, reached in zip(messages, outcome.begun, outcome.reached):
      tally.messages += message.changed and begun
      if message.changed and reached and message.tag in replay.LAYERS:
        tally.reached[message.tag] += 1
    # From here on nothing new should be kept.
    if not grown and tally.messages >= count // 5:
      grown = -resident()
  return tally, grown + resident()


def resident():
  gc.collect()
  # What was freed between pieces that are still used stays resident otherwise.
  getattr(ctypes.CDLL(None), 'malloc_trim', int)(0)
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.parametrize('count', [QUICK, pytest.param(FULL, marks=pytest.mark.slow)])
@pytest.mark.parametrize('party', replay.PARTIES)
def test_changed_messages_end_in_one_line_or_are_taken(recording, party, count, request):
  """Nothing else comes out, nothing takes long, nothing is kept."""
  threads = threading.active_count()
  count = -(-count // (len(CASES) * len(replay.PARTIES)))
  start = time.monotonic()
  tally, growth = fuzz(recording, party, count, seed=count)
  reached = sum(tally.reached.values())
  print(
    f'{request.node.name}: {tally.messages} messages in {tally.sessions} sessions, '
    f'{reached / tally.messages:.1%} reached a layer, {time.monotonic() - start:.1f} s, '
    f'slowest {tally.slowest:.2f} s, resident {growth / 2**20:+.1f} MiB',
    tally.reached,
    tally.errors.most_common(12),
    sep='\n',
  )
  assert tally.messages >= count and reached >= tally.messages / 2
  # Every message of a layer was changed and read, and half of the sessions noticed something.
  assert tally.reached.keys() == {m.tag for m in recording.heard[party]} & set(replay.LAYERS)
  assert sum(tally.errors.values()) > tally.sessions / 10
  assert tally.slowest < _SECONDS and growth < _GROWTH
  assert threading.active_count() <= threads


def test_an_error_that_is_not_of_the_protocol_would_show(recording, monkeypatch):
  """Without the place where a layer's refusal becomes the peer's fault."""
  monkeypatch.setattr(frames, 'checked', lambda function, *args, **kw: function(*args, **kw))
  for party in replay.PARTIES:
    with pytest.raises(AssertionError, match='changed') as caught:
      fuzz(recording, party, 200, seed=0)
    assert isinstance(caught.value.__cause__, ValueError)

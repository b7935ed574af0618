"""A party that dies at any message leaves a peer that ends cleanly, and nothing to use twice."""

import logging
import shutil
import signal
import threading
import time

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import bfv
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import preparation_files, sessions, store
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import tls
from safenet_jax.transport.frames import ProtocolError
from tests.support import journals, models, mortals, parties, party_processes

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 2), np.uint8)
# What both parties take in each mode, from the hello to the goodbye.
MESSAGES = {'delphi': 26, 'gazelle': 26, 'minionn': 27, 'ot': 29}
# A peer that waited for its timeout would take twice as long.
_SECONDS, _TIMEOUT = 300.0, 600.0


@pytest.fixture(autouse=True)
def quick_contexts(monkeypatch):
  """Public parameters, made once: they hold no secret."""
  monkeypatch.setattr(bfv, 'Context', parties.context)


@pytest.fixture
def journal(tmp_path, monkeypatch):
  found = journals.Journal(tmp_path / 'journal')
  found.watch(monkeypatch)
  return found


def right(logits):
  model = models.smallest()
  expected = model.logits(IMAGES)
  return np.abs(logits - expected).max() < 0.05 < np.ptp(expected)


def session(server, directory, prepare=1):
  """A client that prepares an inference, and uses one; how many messages there were."""
  with clients.Client(
    *server.address, context=None, directory=directory, timeout=_TIMEOUT
  ) as client:
    client.prepare(prepare)
    assert right(client.infer(IMAGES))
  return client._channel.count


def end_of(server, directory, death, prepare=1):
  """What the client ends with in a session in which a party dies; None after its goodbye."""
  with mortals.dying(death):
    try:
      session(server, directory, prepare)
    except (mortals.KilledError, ProtocolError) as error:
      return error
  return None


def ends(caplog):
  """Events of the log that tell of a session's end with an error, of the peer or of its own."""
  found = [record.getMessage().split()[0] for record in caplog.records]
  return [event for event in found if event in ('event=session_failed', 'event=session_error')]


def until(condition):
  end = time.monotonic() + _SECONDS
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.002)


@pytest.mark.parametrize('party', ['client', 'server'])
@pytest.mark.parametrize(
  'mode, first',
  [
    # What a preparation takes is nearly the same in all modes: from the inference on.
    ('delphi', 0),
    ('gazelle', 15),
    ('ot', 19),
    pytest.param('gazelle', 0, marks=pytest.mark.slow),
    pytest.param('ot', 0, marks=pytest.mark.slow),
    pytest.param('minionn', 17, marks=pytest.mark.slow),
  ],
)
def test_a_death_at_any_message_ends_the_peer_and_uses_nothing_twice(
  mode, first, party, journal, tmp_path, caplog
):
  caplog.set_level(logging.INFO)
  # Gazelle's preparations die with their client.
  directory = tmp_path / 'prepared' if sessions.MODES[mode].kept_in_files else None
  options = servers.ServerOptions(mode=mode, timeout=_TIMEOUT)
  with (
    servers.Server(models.smallest(), context=None, options=options) as server,
    clients.Client(*server.address, context=None) as bystander,
  ):
    with mortals.dying(mortals.alive):
      assert session(server, directory) == MESSAGES[mode]
    bystander.prepare(MESSAGES[mode])
    if directory:
      with clients.Client(*server.address, context=None, directory=directory) as client:
        client.prepare(MESSAGES[mode])
    until(lambda: server._listener.running == 1)
    threads = threading.active_count()
    for number in range(first, MESSAGES[mode]):
      caplog.clear()
      start = time.monotonic()
      error = end_of(server, directory, mortals.before(party, number))
      until(lambda: ends(caplog) and server._listener.running == 1)
      assert time.monotonic() - start < _SECONDS
      if party == 'client':
        assert isinstance(error, mortals.KilledError)
        assert ends(caplog) == ['event=session_failed']  # a ProtocolError of the server's
      else:
        # Before the goodbye the client has its logits, if they are on their way already.
        last = number == MESSAGES[mode] - 1
        assert isinstance(error, ProtocolError) or (last and error is None)
        assert ends(caplog) == ['event=session_error']
      assert right(bystander.infer(IMAGES))
      if directory:
        # Where the server gave up after it had granted claims, or as it waited for a command, one
        # might have been on its way.
        doubts = 'send description', 'receive accept', 'receive command'
        in_doubt = party == 'server' and any(f'could {doubt}' in caplog.text for doubt in doubts)
        with clients.Client(*server.address, context=None, directory=directory) as again:
          assert bool(again.prepared) != in_doubt
          again.prepare((MESSAGES[mode] - number) * in_doubt)
          assert right(again.infer(IMAGES))
    until(lambda: threading.active_count() <= threads)
  assert not journal.repeated()
  # It is not empty: these were all used by both parties, and some were lost.
  kinds = journal.kinds()
  assert kinds['client preparation'] > MESSAGES[mode] - first
  assert kinds['client block'] <= 2 * kinds['client preparation']
  assert kinds['pads'] > kinds['server labels of server'] >= kinds['client block']


# The client dies before the first answer of the online phase.
BEFORE_AN_ANSWER = mortals.before('client', MESSAGES['delphi'] - 4)


def test_without_marked_files_the_server_still_grants_nothing_twice(journal, tmp_path, monkeypatch):
  monkeypatch.setattr(preparation_files.os, 'rename', shutil.copy)
  options = servers.ServerOptions(mode='delphi')
  with servers.Server(models.smallest(), context=None, options=options) as server:
    error = end_of(server, tmp_path / 'prepared', BEFORE_AN_ANSWER)
    assert 'receive activation' in str(error)
    assert end_of(server, tmp_path / 'prepared', mortals.alive, prepare=0) is None
  assert not journal.repeated() and journal.kinds()['client preparation'] == 2


def test_a_server_that_kept_what_it_gave_out_would_still_use_it_once(
  journal, tmp_path, monkeypatch
):
  """The last guard is the material's own, when both stores forget what they gave.

  So the tests above fail without these defences.
  """
  monkeypatch.setattr(preparation_files.os, 'rename', shutil.copy)
  monkeypatch.setattr(store.ServerStore, '_pop', lambda self, name: self._found[name])
  with servers.Server(models.smallest(), context=None) as server:
    for prepare, death in ((1, BEFORE_AN_ANSWER), (0, mortals.alive)):
      assert end_of(server, tmp_path / 'prepared', death, prepare) is not None
  assert journal.repeated() == {'client preparation', 'client mask'}


QUICK = [('client', 'send', 'masked'), ('server', 'send', 'activation')]
PLACES = [
  ('client', 'receive', 'linear'),
  ('client', 'send', 'shares'),
  ('client', 'receive', 'prepared'),
  ('client', 'send', 'command'),
  ('client', 'send', 'input'),
  ('client', 'receive', 'activation'),
  ('client', 'receive', 'logits'),
  ('server', 'send', 'tables'),
  ('server', 'send', 'prepared'),
  ('server', 'receive', 'input'),
  ('server', 'receive', 'masked'),
  ('server', 'send', 'logits'),
]


@pytest.mark.parametrize(
  'party, operation, tag',
  QUICK + [pytest.param(*place, marks=pytest.mark.slow) for place in PLACES],
)
def test_after_a_sigkill_the_other_process_ends_and_a_restart_goes_on(
  party, operation, tag, tmp_path
):
  path, directory = tmp_path / 'journal', tmp_path / 'prepared'
  files = tls.insecure_test_certificate(tmp_path / 'tls')
  with party_processes.started() as start:

    def serve(place=None):
      process, pipe = start(
        party_processes.serve, models.smallest(), files, journal=path, place=place
      )
      return process, pipe.recv()

    def infer(address, place=None):
      return start(
        party_processes.infer,
        address,
        files.certificate,
        IMAGES,
        directory=directory,
        stock=3,
        journal=path,
        place=place,
      )

    place = operation, tag
    server, address = serve(place if party == 'server' else None)
    client, pipe = infer(address, place if party == 'client' else None)
    if party == 'client':
      with pytest.raises(EOFError):
        pipe.recv()
      client.join(30)
      assert client.exitcode == -signal.SIGKILL and server.is_alive()
    else:
      assert isinstance(pipe.recv(), ProtocolError)
      server.join(30)
      client.join(30)
      assert server.exitcode == -signal.SIGKILL and client.exitcode == 0
      _, address = serve()
    client, pipe = infer(address)
    left, logits = pipe.recv()
    client.join(30)
    assert client.exitcode == 0 and right(logits)
    # The server's new life is a new model: then nothing that was prepared is used.
    expected = 0 if party == 'server' else _survivors(tag)
    assert left == expected
    assert not journals.Journal(path).repeated()


def _survivors(tag):
  """Of three preparations, those in files when the client died before this message."""
  if tag in ('linear', 'shares', 'prepared', 'command'):
    return 0
  return 2

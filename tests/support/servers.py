"""A small server for tests, its honest client, and its log."""

import time

import numpy as np

from safenet_jax.crypto import randomness
from safenet_jax.protocol.service import description, handshake
from safenet_jax.transport import accounts, tls
from safenet_jax.transport import channel as channels
from safenet_jax.transport import listener as listeners
from tests.support import models

SERVED = description.describe(models.model(), randomness.InsecureSeededRandomness(0))


def session(channel, guest=None):
  """A handshake, and doubled numbers until the client says goodbye."""
  handshake.server(channel, SERVED)
  while True:
    (number,) = channel.receive('number', [('int64', ())])
    if number < 0:
      return
    channel.send('doubled', 2 * number)


def listening(files, serve_session=session, limits=None, **options):
  options = {'timeout': 300.0, 'handshake_timeout': 300.0, 'place_seconds': 0.0} | options
  options['accounts'] = accounts.Accounts(accounts.limits(**(limits or {})))
  return listeners.Listener(
    '127.0.0.1', 0, serve_session, context=tls.server_context(*files), **options
  )


def connect(server, files, **options):
  return channels.connect(
    *server.address, context=tls.client_context(files.certificate), timeout=300, **options
  )


def double(channel, number):
  channel.send('number', np.int64(number))
  return int(channel.receive('doubled', [('int64', ())])[0])


def inference(server, files):
  """An honest client from its connection to its goodbye."""
  with connect(server, files) as channel:
    assert handshake.client(channel).description == SERVED
    result = double(channel, 21)
    channel.send('number', np.int64(-1))
    return result


def lines(caplog, event):
  return [r.getMessage() for r in caplog.records if f'event={event} ' in r.getMessage() + ' ']


def until(condition):
  """Waits for what happens in another thread."""
  end = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)

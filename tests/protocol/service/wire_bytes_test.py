"""The ledger's bytes are those that a proxy between the two parties sees."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest

from safenet_jax.fixed_point import formats
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport import tls
from tests.support import models, proxies

PHASES = 'handshake', 'setup', 'offline', 'online', 'session'
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 2), dtype=np.uint8)


def sent(record, *phases):
  """Bytes of each party in some phases."""
  return tuple(
    sum(row['bytes'] for row in record['rows'] if row['phase'] in phases and row['party'] == party)
    for party in ('client', 'server')
  )


def difference(after, before):
  return tuple(a - b for a, b in zip(after, before))


@contextlib.contextmanager
def inference(files, mode):
  """A server, and yields a client whose connection goes through a proxy, and the proxy."""
  server_context = client_context = None
  if files:
    server_context = tls.server_context(*files)
    client_context = tls.client_context(files.certificate)
  records = []
  with servers.Server(
    models.calibrated(),
    context=server_context,
    options=servers.ServerOptions(mode=mode),
    on_record=records.append,
  ) as server:
    proxy = proxies.Proxy(server.address)
    with clients.Client(*proxy.address, context=client_context) as client:
      yield client, proxy, records
    proxy.close()


@pytest.mark.parametrize('mode', ['delphi', 'gazelle', 'minionn', 'ot'])
def test_in_the_clear_every_byte_is_in_the_ledger_and_in_its_phase(mode):
  def seen():
    return proxy.up.bytes, proxy.down.bytes

  def counted(*phases):
    return sent(client.ledger.record(), *phases)

  with inference(None, mode) as (client, proxy, records):
    client.prepare(2)
    assert seen() == counted('handshake', 'setup', 'offline', 'session')
    client.infer(IMAGES)  # a third is prepared on the way
    assert seen() == counted(*PHASES)
    client.prepare(1)
    before, online = seen(), counted('session', 'online')
    offline = counted('handshake', 'setup', 'offline')
    client.infer(IMAGES[:1])
    # An inference that is prepared is its command and the online phase, and nothing else.
    assert difference(seen(), before) == difference(counted('session', 'online'), online)
    assert offline == counted('handshake', 'setup', 'offline') and min(offline) > 0
  # Its goodbye too; and the server has the same bytes in the same phases.
  ours, (theirs,) = client.ledger.record(), records
  assert set(ours['phases']) == set(PHASES)
  assert sent(ours, *PHASES) == seen()
  for phase in PHASES:
    assert sent(theirs, phase) == sent(ours, phase)
    parties = ours['phases'][phase]['sent']
    assert sent(ours, phase) == tuple(parties.get(p, 0) for p in ('client', 'server'))


def test_a_ledger_says_where_everything_went_and_how_likely_a_failure_is():
  with inference(None, 'delphi') as (client, _, records):
    client.infer(IMAGES[:1])
  joined = ledgers.join(client.ledger.record(), records[0])
  counted = {'bytes', 'messages', 'flights', 'wall_seconds', 'cpu_seconds'}
  for record in (client.ledger.record(), records[0], joined):
    assert all(
      row.keys() == {'phase', 'layer', 'primitive', 'party'} | counted for row in record['rows']
    )
    # Every layer of the network, in both phases.
    for phase in ('offline', 'online'):
      layers = {row['layer'] for row in record['rows'] if row['phase'] == phase}
      assert layers >= {'activation0', 'activation1'}
    # Nobody sees a failure; what calibration expects is a power of two that all may know.
    assert record['truncation_failure'] == models.calibrated().public.truncation_failure
  bits = models.calibrated().public.truncation_bits
  report = formats.RangeReport()
  models.calibrated().run(IMAGES, report)
  assert 2.0 ** -(bits + 4) < report.truncation_failure < 2.0 ** -(bits - 3) < 1e-3
  assert joined['phases']['online']['sent'].keys() == {'client', 'server'}


def test_without_polynomials_nothing_is_truncated_locally():
  public = models.calibrated().public
  forms = {
    name: dataclasses.replace(form, polynomial=0) for name, form in public.activations.items()
  }
  assert public.truncation_failure > 0
  assert dataclasses.replace(public, activations=forms).truncation_failure == 0


def test_under_tls_records_are_all_that_is_added(files):
  with inference(files, 'delphi') as (client, proxy, _):
    client.prepare(2)
    client.infer(IMAGES[:2])
  record = client.ledger.record()
  frames = sum(row['messages'] for row in record['rows'])
  for count, mine in zip((proxy.up, proxy.down), sent(record, *PHASES)):
    assert count.bytes == (
      count.handshake + count.contents + proxies.RECORD_OVERHEAD * count.records
    )
    # The rest of the handshake is encrypted too: certificates, and `Finished`.
    certificates = count.contents - mine
    assert 32 <= certificates < 2000 and 0 < count.handshake < 2000
    # A large frame goes out in buffers of its own, in records of at most 2^14 bytes.
    assert count.records <= 5 * frames + math.ceil(mine / (1 << 14))

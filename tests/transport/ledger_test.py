"""The ledger of a real party: every byte of its socket, its own seconds."""

import json
import socket
import threading
import time

import numpy as np
import pytest

from safenet_jax.report import tables
from safenet_jax.transport import ledger as ledgers
from safenet_jax.transport import tls
from safenet_jax.transport.channel import Channel
from tests.support import peers


class CountingSocket(socket.socket):
  """Counts what really goes through it."""

  sent = received = 0

  def sendmsg(self, buffers, *args):
    count = super().sendmsg(buffers, *args)
    self.sent += count
    return count

  def recv_into(self, *args):
    count = super().recv_into(*args)
    self.received += count
    return count


def conversation(client, server):
  """Two rounds offline and one online, of both parties."""
  tables_ = np.arange(300_000, dtype=np.uint64)

  def garbler():
    with server.scope(phase='offline', layer='conv0'):
      with server.scope(primitive='transfer'):
        server.receive('choices', [(bytes, (100,))])
        server.send('answers', bytes(200))
      with server.scope(primitive='garbling'):
        server.receive('ready')
        server.send('tables', tables_, tables_[:5].astype(np.uint8))
    with server.scope(phase='online', layer='conv0', primitive='labels'):
      server.receive('masked', [('uint64', (2, 3))])
      server.send('labels', bytes(7))
    server.flush()

  def evaluator():
    with client.scope(phase='offline', layer='conv0'):
      with client.scope(primitive='transfer'):
        client.send('choices', bytes(100))
        client.receive('answers', [(bytes, (200,))])
      with client.scope(primitive='garbling'):
        client.send('ready')
        client.receive('tables', [('uint64', tables_.shape), ('uint8', (5,))])
    with client.scope(phase='online', layer='conv0', primitive='labels'):
      client.send('masked', np.zeros((2, 3), np.uint64))
      client.receive('labels', [(bytes, (7,))])

  for found in peers.both(garbler, evaluator):
    assert found is None, found


def test_counts_equal_the_bytes_that_a_socket_sees():
  with peers.sockets() as pair:
    counting = [CountingSocket(fileno=end.detach()) for end in pair]
    client, server = (Channel(s, party=p) for s, p in zip(counting, ('client', 'server')))
    conversation(client, server)
    ends = [client.ledger.record(), server.ledger.record()]
    up, down = counting[0].sent, counting[0].received
    assert (up, down) == (counting[1].received, counting[1].sent)
    for record in ends:
      by_party = dict.fromkeys(('client', 'server'), 0)
      for row in record['rows']:
        by_party[row['party']] += row['bytes']
      assert by_party == {'client': up, 'server': down}
    client.close()
    server.close()


def test_messages_and_rounds_are_counted_by_phase_layer_and_primitive(tmp_path):
  files = tls.insecure_test_certificate(tmp_path)
  with peers.channels(files) as (client, server):
    conversation(client, server)
    ours, theirs = client.ledger.record(), server.ledger.record()
  for record in (ours, theirs, ledgers.join(ours, theirs)):
    rows = {(r['phase'], r['layer'], r['primitive'], r['party']): r for r in record['rows']}
    assert {key[:3] for key in rows if rows[key]['messages']} == {
      ('offline', 'conv0', 'transfer'),
      ('offline', 'conv0', 'garbling'),
      ('online', 'conv0', 'labels'),
    }
    assert all(
      rows['offline', 'conv0', 'garbling', party]['messages'] == 1 for party in ('client', 'server')
    )
    assert rows['offline', 'conv0', 'garbling', 'server']['bytes'] - 2_400_005 in range(16, 80)
    assert record['phases']['offline']['messages'] == 4
    assert record['phases']['offline']['rounds'] == 2
    assert record['phases']['online']['rounds'] == 1
    rows_ = [r for r in record['rows'] if r['phase'] == 'offline']
    assert record['phases']['offline']['sent'] == {
      party: sum(r['bytes'] for r in rows_ if r['party'] == party) for party in ('client', 'server')
    }
    assert record['truncation_failure'] is None  # no model is known


def test_seconds_are_those_of_the_party_that_spends_them():
  with peers.channels() as (client, server):
    with client.scope(phase='offline', layer='a', primitive='work'):
      end = time.thread_time() + 0.2
      while time.thread_time() < end:
        pass
    with server.scope(phase='offline', layer='a', primitive='work'):
      time.sleep(0.2)
    client_row, server_row = (end.ledger.record()['rows'][0] for end in (client, server))
    joined = ledgers.join(client.ledger.record(), server.ledger.record())
  assert client_row['party'] == 'client' and client_row['cpu_seconds'] >= 0.19
  assert server_row['party'] == 'server' and server_row['cpu_seconds'] < 0.1
  assert client_row['wall_seconds'] >= 0.19 and server_row['wall_seconds'] >= 0.19
  assert joined['rows'] == [client_row, server_row]


def test_nested_steps_are_not_counted_twice(monkeypatch):
  ledger, now = ledgers.Ledger(), [0.0]
  monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
  with ledger.step('p', 'l', 'outer', 'client'):
    now[0] += 1.0
    with ledger.step('p', 'l', 'inner', 'client'):
      now[0] += 4.0
    now[0] += 2.0
  inner, outer = ledger.record()['rows']
  assert inner['primitive'] == 'inner' and inner['wall_seconds'] == 4.0
  assert outer['wall_seconds'] == 3.0


def test_a_step_that_fails_is_counted_and_the_scope_ends():
  with peers.channels() as (client, _):
    with pytest.raises(KeyError), client.scope(phase='offline', layer='a', primitive='b'):
      raise KeyError
    with client.scope(primitive='c'):
      pass
    keys = [(row['phase'], row['primitive']) for row in client.ledger.record()['rows']]
  assert keys == [('offline', 'b'), ('session', 'c')]


def test_a_thread_clock_leaves_other_threads_out_and_takes_the_sender_in(tmp_path):
  """Sessions that share a process must not count each other's seconds."""
  done = threading.Event()

  def spin():
    while not done.is_set():
      sum(range(1000))

  threading.Thread(target=spin).start()
  data = np.zeros(8 << 20, np.uint64)
  files = tls.insecure_test_certificate(tmp_path)
  try:
    with peers.sockets(files) as (ours, theirs):
      thread_clock, process_clock = (
        ledgers.Ledger(cpu_clock=clock) for clock in (time.thread_time, time.process_time)
      )
      client = Channel(ours, party='client', ledger=thread_clock)
      server = Channel(theirs, party='server', ledger=process_clock)

      def send():
        with client.scope(phase='x', layer='x', primitive='stream'):
          client.send('x', data)
        time.sleep(0.2)
        with client.scope(phase='x', layer='x', primitive='idle'):
          time.sleep(0.1)
        client.flush()

      def receive():
        with server.scope(phase='x', layer='x', primitive='stream'):
          server.receive('x', [('uint64', data.shape)])

      assert peers.both(send, receive) == [None, None]
      client.close()
      server.close()
  finally:
    done.set()
  record = thread_clock.record()
  seconds = {r['primitive']: r['cpu_seconds'] for r in record['rows'] if r['party'] == 'client'}
  assert seconds['idle'] < 0.03
  assert seconds['stream'] > 0.01  # encrypting 64 MB, in the thread that sends
  assert record['cpu_clock'] == 'thread' and process_clock.record()['cpu_clock'] == 'process'


def test_another_clock_is_refused():
  with pytest.raises(ValueError, match='want time.process_time or time.thread_time'):
    ledgers.Ledger(cpu_clock=time.time)


def test_the_saved_record_is_read_by_the_report(tmp_path):
  path = tmp_path / 'ledger.json'
  with peers.channels() as (client, server):
    conversation(client, server)
    record = ledgers.join(client.ledger.record(), server.ledger.record())
  ledgers.save(record, path)
  assert list(tmp_path.iterdir()) == [path]
  loaded = json.loads(path.read_text())
  assert loaded['rows'] == record['rows']
  header, rows = tables.costs(loaded)
  assert ['offline', 'garbling', 'server', '2.40 MB', '1'] in [row[:5] for row in rows]
  assert tables.bytes_by_layer(loaded, 'offline', ['conv0'])[0] > 2_400_000

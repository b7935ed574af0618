"""Messages between two parties: what they hold, how long they wait, how they end."""

import ssl
import subprocess
import sys
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from safenet_jax.transport import channel as channels
from safenet_jax.transport import frames
from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from tests.support import peers

DTYPES = ['uint8', 'uint16', 'uint32', 'uint64', 'int8', 'int16', 'int32', 'int64']
MEGABYTES = 64


def test_every_dtype_goes_both_ways(security):
  arrays = [peers.words(30).astype(dtype).reshape(5, 6) for dtype in DTYPES]
  expected = [(dtype, (5, 6)) for dtype in DTYPES] + [(bytes, (4,)), ('uint8', (0, 3))]
  with peers.channels(security) as ends:
    for sender, receiver in (ends, ends[::-1]):
      sender.send('all', *arrays, b'\0abc', np.empty((0, 3), np.uint8))
      *found, raw, empty = receiver.receive('all', expected)
      assert raw == b'\0abc' and empty.shape == (0, 3)
      for array, got in zip(arrays, found, strict=True):
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=70_000)), max_size=12))
def test_messages_keep_their_order(messages):
  with peers.channels() as (client, server):
    for upward, content in messages:
      (client if upward else server).send('m', content, np.frombuffer(content, np.uint8))
    for upward, content in messages:
      receiver = server if upward else client
      raw, array = receiver.receive('m', [(bytes, (len(content),)), ('uint8', (len(content),))])
      assert raw == content and array.tobytes() == content


def test_what_was_sent_may_change_after_a_flush(security):
  array = peers.words(500_000)
  sent = array.copy()

  def send(channel):
    channel.send('x', array)
    channel.flush()
    array[:] = 0

  with peers.channels(security) as (client, server):
    _, (got,) = peers.both(
      lambda: send(client), lambda: server.receive('x', [('uint64', sent.shape)])
    )
  np.testing.assert_array_equal(got, sent)


def test_both_sides_stream_at_once_without_waiting_for_each_other(security):
  """Neither reads before all its own is sent; the sockets hold a fraction of it."""
  block, blocks = peers.words(1 << 17), MEGABYTES

  def stream(channel):
    for _ in range(blocks):
      channel.send('block', block)
    for _ in range(blocks):
      (got,) = channel.receive('block', [('uint64', block.shape)])
      np.testing.assert_array_equal(got, block)
    return True

  with peers.channels(security, timeout=300) as (client, server):
    assert peers.both(lambda: stream(client), lambda: stream(server)) == [True, True]


def exchange(end, block):
  """Sends a message and receives the peer's, both at once."""
  end.send('x', block)
  return end.receive('x', [('uint64', block.shape)])


def test_messages_that_cross_are_larger_than_any_queue():
  block = peers.words(MEGABYTES << 17)
  with peers.channels(queue_bytes=1 << 16, timeout=300) as ends:
    found = peers.both(*(lambda end=end: exchange(end, block) for end in ends))
  for (got,) in found:
    assert (got[::1000] == block[::1000]).all()


def test_more_than_the_queue_holds_ends_with_an_error_instead_of_a_deadlock():
  def stream(channel):
    for _ in range(40):
      channel.send('x', peers.words(1 << 17))

  with peers.channels(queue_bytes=1 << 20, timeout=0.5, slowest=1e8) as ends:
    found = peers.both(*(lambda end=end: stream(end) for end in ends))
  # The one that gives up first hangs up on the other.
  assert all(isinstance(error, ProtocolError) for error in found)
  assert any('timeout: the peer takes nothing' in str(error) for error in found)


def test_large_messages_get_time_for_their_size():
  with peers.sockets() as (ours, theirs):
    channel = Channel(ours, party='client', timeout=0.2, slowest=0.2)
    late = peers.frame(['x', [['uint8', [60]]]], bytes(60))
    threading.Timer(0.5, theirs.sendall, (late,)).start()
    channel.receive('x', [('uint8', (60,))])
    channel.close()


def test_bytes_of_unknown_length_have_a_limit():
  with peers.channels(timeout=300) as (client, server):
    client.send('d', b'12345')
    assert server.receive_bytes('d', 5) == b'12345'
    client.send('d', b'123456')
    with pytest.raises(ProtocolError, match=r"'d' has bytes\[6\], want bytes\[5\]"):
      server.receive_bytes('d', 5)


def test_a_refusal_is_the_error_of_the_other_side(security):
  """Also when it comes while more is on its way, which would reset the connection."""
  with peers.channels(security, timeout=300) as (client, server):
    client.send('hello', peers.words(100_000))
    server.refuse('no\n' + 'x' * 500)
    with pytest.raises(channels.RefusedError) as caught:
      client.receive('answer')
  line = str(caught.value)
  assert line.startswith('the server refused: no?xxx') and len(line) <= 220


def test_who_refuses_still_takes_what_is_on_its_way(monkeypatch):
  """A reset could overtake the reason, so the peer hangs up first."""
  monkeypatch.setattr(channels, '_LINGER', 300.0)
  with peers.sockets() as (ours, theirs):
    refusing = threading.Thread(target=Channel(ours, party='server').refuse, args=('no',))
    refusing.start()
    while theirs.recv(1000):
      pass
    for _ in range(3):
      theirs.sendall(bytes(1000))
      time.sleep(0.05)
    theirs.close()
    refusing.join(200)
    assert not refusing.is_alive()


class Exclusive(ssl.SSLSocket):
  """Notes when two threads are in OpenSSL with the same connection."""

  users = 0
  clashes = 0

  def send(self, *args):
    return self._alone(super().send, *args)

  def recv_into(self, *args):
    return self._alone(super().recv_into, *args)

  def _alone(self, operation, *args):
    self.users += 1
    self.clashes += self.users > 1
    try:
      time.sleep(1e-4)  # lets the other thread come
      return operation(*args)
    finally:
      self.users -= 1


def test_openssl_is_in_one_connection_once_at_a_time(files, monkeypatch):
  monkeypatch.setattr(ssl.SSLContext, 'sslsocket_class', Exclusive)
  block = peers.words(1 << 16)
  with peers.sockets(files) as pair:
    ends = [Channel(sock, party=party) for sock, party in zip(pair, ('client', 'server'))]
    peers.both(*(lambda end=end: exchange(end, block) for end in ends))
    assert all(isinstance(sock, Exclusive) and not sock.clashes for sock in pair)
    for end in ends:
      end.close()


def test_abort_wakes_a_receiver_and_a_sender(security):
  def stream(channel):
    channel.send('x', peers.words(5 << 20))
    channel.flush()

  for operation in (lambda channel: channel.receive('x'), stream):
    with peers.sockets(security) as (ours, _):
      channel = Channel(ours, party='client', timeout=300)
      threading.Timer(0.2, channel.abort, ('stopped',)).start()
      start = time.monotonic()
      with pytest.raises(ProtocolError, match='stopped'):
        operation(channel)
      assert time.monotonic() - start < 200  # the timeout is longer
      channel.close()


def test_nothing_goes_in_the_clear_after_an_abort(files):
  """SSLSocket.shutdown would leave a plain socket to the thread that sends."""
  with peers.sockets(files) as (ours, _):
    channel = Channel(ours, party='client', timeout=300)
    channel.send('x', peers.words(5 << 20))
    channel.abort('stopped')
    assert ours._sslobj is not None
    channel.close()


def test_close_sends_what_is_queued(security):
  array = peers.words(1 << 20)
  with peers.channels(security) as (client, server):

    def send():
      client.send('x', array)
      client.close()

    _, (got,) = peers.both(send, lambda: server.receive('x', [('uint64', array.shape)]))
    np.testing.assert_array_equal(got, array)
    with pytest.raises(ProtocolError, match='the channel is closed'):
      client.send('x')
    with pytest.raises(ProtocolError, match='closed the connection'):
      server.receive('x')


def test_no_thread_is_left_behind(security):
  before = threading.active_count()
  for _ in range(3):
    with peers.channels(security) as (client, server):
      client.send('x', b'1')
      server.receive('x', [(bytes, (1,))])
  assert threading.active_count() == before


def test_the_party_is_client_or_server():
  with peers.sockets() as (ours, _), pytest.raises(ValueError, match='want client or server'):
    Channel(ours, party='garbler')


def test_a_channel_needs_no_jax():
  code = (
    'import sys; from safenet_jax.transport import channel, listener, tls; '
    'from safenet_jax.protocol.service import handshake; '
    'assert "jax" not in sys.modules and "flax" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_a_frame_costs_its_header_only():
  _, first, _ = frames.encode('labels', [np.empty((12, 16384, 2), np.uint64)])
  assert len(first) < 64

"""What a peer that vanishes, stalls, lies or sends garbage does to a channel: an error."""

import socket
import struct
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from safenet_jax.transport.channel import Channel
from safenet_jax.transport.frames import ProtocolError
from safenet_jax.transport.stream import HungUpError
from tests.support import peers
from tests.support.peers import frame


@pytest.mark.parametrize(
  'raw, message',
  [
    (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(20), 'does not speak this protocol'),
    (frame(['other', [['uint64', [4]]]], announced=32), "got message other, want 'x'"),
    (frame(['x', [['uint32', [4]]]], announced=16), r"'x' has uint32\[4\], want uint64\[4\]"),
    (frame(['x', [['uint64', [5]]]], announced=40), r"'x' has uint64\[5\], want uint64\[4\]"),
    (frame(['x', [['uint64', [2, 2]]]], announced=32), r"'x' has uint64\[2, 2\]"),
    (frame(['x', []]), "'x' has nothing, want"),
    (frame(['x', [['uint64', [4]]]], announced=31), '31 bytes whose header announces'),
    (frame(['x', [['uint64', [1 << 50]]]], announced=1 << 53), r'uint64\[1125899906842624\]'),
    (frame(['x\n\x1b[2J', []]), r'got message x\?\?\[2J, want'),
  ],
)
def test_another_message_is_refused_before_its_payload_is_read(raw, message):
  """The payloads never come: waiting for one would be a timeout."""
  with peers.sockets() as (ours, theirs):
    channel = Channel(ours, party='client', timeout=300)
    theirs.sendall(raw)
    with pytest.raises(ProtocolError, match=message) as caught:
      channel.receive('x', [('uint64', (4,))])
    assert '\n' not in str(caught.value)
    with pytest.raises(ProtocolError):  # and the channel stays dead
      channel.send('y')
    channel.close()


@settings(deadline=None, max_examples=40)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 100))
def test_fuzzed_frames_end_in_a_protocol_error(noise, position):
  raw = bytearray(frame(['x', [['uint64', [4]]]], bytes(32)))
  raw[position : position + len(noise)] = noise
  with peers.sockets() as (ours, theirs):
    channel = Channel(ours, party='client', timeout=300)
    theirs.sendall(raw)
    theirs.shutdown(socket.SHUT_WR)
    try:
      (got,) = channel.receive('x', [('uint64', (4,))])
      assert got.shape == (4,)  # the noise hit the payload only
      channel.receive('x', [('uint64', (4,))])
    except ProtocolError as error:
      assert '\n' not in str(error)
    else:
      raise AssertionError('a second message out of nothing')
    channel.close()


@pytest.mark.parametrize('length', [0, 5, 16, 20, 40])
def test_a_peer_that_vanishes_in_a_frame_is_a_protocol_error(security, length):
  raw = frame(['x', [['uint64', [4]]]], bytes(32))
  with peers.sockets(security) as (ours, theirs):
    channel = Channel(ours, party='client', timeout=300)
    theirs.sendall(raw[:length])
    theirs.close()
    with pytest.raises(HungUpError, match='closed the connection|is gone'):
      channel.receive('x', [('uint64', (4,))])
    channel.close()


def test_a_reset_connection_is_a_protocol_error():
  with peers.sockets() as (ours, theirs):
    channel = Channel(ours, party='client', timeout=300)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    theirs.close()
    with pytest.raises(HungUpError, match='gone|closed'):
      for _ in range(100):
        channel.send('x', peers.words(10_000))
    channel.close()


@pytest.mark.parametrize('length', [0, 5, 20, 40])
def test_a_stalled_peer_is_a_timeout(security, length):
  raw = frame(['x', [['uint64', [4]]]], bytes(32))
  with peers.sockets(security) as (ours, theirs):
    channel = Channel(ours, party='client', timeout=0.3)
    theirs.sendall(raw[:length])
    start = time.monotonic()
    with pytest.raises(ProtocolError, match='timeout: the peer sends nothing'):
      channel.receive('x', [('uint64', (4,))])
    assert time.monotonic() - start > 0.25
    channel.close()


def test_a_peer_that_trickles_is_a_timeout():
  """Every byte comes in time, the message does not."""
  raw = frame(['x', [['uint8', [50]]]], bytes(50))
  with peers.sockets() as (ours, theirs):
    channel = Channel(ours, party='client', timeout=0.5)

    def trickle():
      for byte in raw:
        try:
          theirs.send(bytes([byte]))
        except OSError:
          return
        time.sleep(0.1)

    thread = threading.Thread(target=trickle)
    thread.start()
    with pytest.raises(ProtocolError, match='timeout'):
      channel.receive('x', [('uint8', (50,))])
    channel.close()
    thread.join()


def test_a_peer_that_takes_nothing_is_a_timeout(security):
  """A receiver learns it too, long before it would have given up itself."""
  with peers.sockets(security) as (ours, _):
    channel = Channel(ours, party='client', timeout=0.3, slowest=1e8)
    channel.send('x', peers.words(5_000_000))
    with pytest.raises(ProtocolError, match='timeout: the peer takes nothing'):
      channel.receive('y', [('uint8', (2 * 10**9,))])
    with pytest.raises(ProtocolError, match='timeout: the peer takes nothing'):
      channel.flush()
    channel.close()


def test_a_peer_cannot_refuse_at_length():
  with peers.sockets() as (ours, theirs):
    channel = Channel(ours, party='client', timeout=300)
    theirs.sendall(frame(['refused', [['bytes', [201]]]], b'x' * 201))
    with pytest.raises(ProtocolError, match='got message refused'):
      channel.receive('x')
    channel.close()

"""An emulated link: what it delays, at which rate, and how it ends. Times are real.

Times are bounded from below exactly. From above they are bounded by what a link that sends and
waits message by message, or one direction after the other, would take; and there the best of many
tries counts, for a machine may be busy.
"""

import contextlib
import resource
import socket
import threading
import time

import pytest

from safenet_jax.transport import channel as channels
from safenet_jax.transport.frames import ProtocolError
from tests.support import peers


@contextlib.contextmanager
def ends(rtt, bandwidth, count=1):
  """(client, server) pairs of connected sockets with one link between them."""
  with contextlib.ExitStack() as stack:
    listening = stack.enter_context(socket.create_server(('127.0.0.1', 0)))
    address = stack.enter_context(channels.shaped(rtt, bandwidth, listening.getsockname()))
    pairs = []
    for _ in range(count):
      client = stack.enter_context(socket.create_connection(address))
      server, _ = listening.accept()
      pairs.append((client, stack.enter_context(server)))
    for sock in (sock for pair in pairs for sock in pair):
      sock.settimeout(300)
    yield pairs if count > 1 else pairs[0]


def read(sock, size):
  left = size
  while left:
    count = len(sock.recv(min(left, 1 << 20)))
    assert count
    left -= count


def seconds(function, *args):
  start = time.monotonic()
  function(*args)
  return time.monotonic() - start


def takes(least, most, function, *args):
  """Never less; and no more at the best of many times."""
  for _ in range(100):
    found = seconds(function, *args)
    assert found >= least
    if found < most:
      return True
  return False


def transfer(sender, receiver, size):
  peers.both(lambda: sender.sendall(bytes(size)), lambda: read(receiver, size))


def test_a_round_trip_takes_its_time():
  def trip():
    client.sendall(b'x')
    read(server, 1)
    server.sendall(b'x')
    read(client, 1)

  with ends(rtt=0.05, bandwidth=1e9) as (client, server):
    assert takes(0.05, 0.1, trip)


def test_to_open_a_connection_takes_a_round_trip():
  def opening():
    with socket.create_connection(address) as client:
      client.sendall(b'x')
      server, _ = listening.accept()
      with server:
        read(server, 1)

  with (
    socket.create_server(('127.0.0.1', 0)) as listening,
    channels.shaped(0.3, 1e9, listening.getsockname()) as address,
  ):
    # What the client sends at once follows the opening, and takes half a round trip.
    assert takes(0.44, 0.9, opening)


def test_bytes_take_their_bandwidth_in_each_direction_at_once():
  size, rate = 500_000, 20e6
  wanted = 8 * size / rate
  with ends(rtt=0.0, bandwidth=rate) as (client, server):
    bounds = 0.95 * wanted, 1.9 * wanted  # one after the other would take twice as long
    up, down = (client, server, size), (server, client, size)
    assert takes(*bounds, transfer, *up)
    assert takes(*bounds, transfer, *down)
    assert takes(*bounds, peers.both, lambda: transfer(*up), lambda: transfer(*down))


def test_connections_share_the_bandwidth():
  size, rate = 250_000, 20e6
  with ends(rtt=0.0, bandwidth=rate, count=2) as pairs:
    both = [lambda pair=pair: transfer(*pair, size) for pair in pairs]
    wanted = 2 * 8 * size / rate
    assert takes(0.95 * wanted, 1.9 * wanted, peers.both, *both)


def test_messages_are_under_way_together():
  """Twenty messages, ten of which at any time: waiting for each would take six seconds."""
  with ends(rtt=0.6, bandwidth=1e9) as (client, server):

    def send():
      for _ in range(20):
        client.sendall(bytes(1000))
        time.sleep(0.03)

    assert takes(0.3 + 19 * 0.03, 6.0, peers.both, send, lambda: read(server, 20_000))


def test_waiting_takes_no_cpu():
  def used():
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return times.ru_utime + times.ru_stime

  def run(pause):
    before = used()
    with ends(rtt=0.01, bandwidth=1e6) as (client, server):
      client.sendall(bytes(round(pause * 125_000)))
      time.sleep(pause)
      read(server, round(pause * 125_000))
    return used() - before

  # Less what it takes to start: a link that spins would take all of the second.
  assert run(1.0) - run(0.0) < 0.3


def test_an_end_is_passed_on_after_all_bytes():
  with ends(rtt=0.05, bandwidth=20e6) as (client, server):
    client.sendall(bytes(100_000))
    client.shutdown(socket.SHUT_WR)
    read(server, 100_000)
    assert server.recv(1) == b''
    server.sendall(b'answer')  # the other direction goes on
    server.close()
    assert client.recv(10) == b'answer' and client.recv(10) == b''


def test_what_was_sent_last_still_arrives_when_the_link_is_closed():
  with socket.create_server(('127.0.0.1', 0)) as listening:
    with channels.shaped(0.2, 1e9, listening.getsockname()) as address:
      client = socket.create_connection(address)
      server, _ = listening.accept()
      client.sendall(b'goodbye')
      client.close()
    with server:
      assert server.recv(100) == b'goodbye' and server.recv(100) == b''


def test_a_link_ends_although_a_connection_does_not():
  with ends(rtt=0.001, bandwidth=1e9) as (client, server):
    client.sendall(b'x')
    # What is closed with bytes that nobody read resets its peer instead of ending it.
    assert server.recv(1) == b'x'
    duplicate = client.dup()
  with duplicate:
    duplicate.settimeout(300)
    assert duplicate.recv(1) == b''


def test_a_receiver_that_takes_nothing_stops_its_sender():
  with ends(rtt=0.001, bandwidth=1e9) as (client, server):
    client.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
      while sent < 1 << 28:
        sent += client.send(bytes(1 << 16))
    client.settimeout(300)
    threading.Timer(0.1, server.close).start()
    with pytest.raises(OSError, match='reset|pipe'):
      while True:
        client.sendall(bytes(1 << 16))


def test_nobody_behind_the_link_is_the_end_of_a_connection():
  with socket.create_server(('127.0.0.1', 0)) as listening:
    gone = listening.getsockname()
  with channels.shaped(0.001, 1e9, gone) as address:
    channel = channels.connect(*address, context=None, timeout=5)
    with pytest.raises(ProtocolError, match='closed the connection|gone'):
      channel.receive('x')
    channel.close()


@pytest.mark.parametrize(
  'rtt, bandwidth', [(-1, 1e9), (0.1, 0), (float('inf'), 1), (0, float('nan'))]
)
def test_a_link_is_of_finite_numbers(rtt, bandwidth):
  with (
    pytest.raises(ValueError, match='want finite positive'),
    channels.shaped(rtt, bandwidth, ('127.0.0.1', 1)),
  ):
    pass

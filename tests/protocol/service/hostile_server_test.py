"""What a server can make its clients allocate, and how long it can keep them: bounded."""

import contextlib
import dataclasses
import json
import math
import subprocess
import sys
import threading
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from safenet_jax.models import layers as records
from safenet_jax.models.layers import (
  Activation,
  AveragePool,
  Concat,
  Conv,
  Dense,
  Flatten,
  Gather,
  MaxPool,
  Residual,
)
from safenet_jax.protocol.delphi import keys
from safenet_jax.protocol.service import budget, bundle, description, handshake, sessions
from safenet_jax.protocol.service import client as clients
from safenet_jax.protocol.service import server as servers
from safenet_jax.transport import record_codec
from safenet_jax.transport.frames import ProtocolError
from tests.support import described, parties, peers
from tests.support.described import form, maxima, public

GIB = 1 << 30
END = Flatten(), Dense(3)
ACT = Activation()


def conv(features, kernel=3, stride=1):
  return Conv(features, kernel, stride, batch_norm=False)


def relus(height, width, channels, kernel=3, **changes):
  """A convolution with ReLUs on a map."""
  layers = conv(channels, kernel), ACT, *END
  return public(layers, (height, width, 1), [form(channels, 0, (height, width), **changes)])


def wire(model, **service):
  """A description as a server would send it, without a check of its own."""
  return record_codec.encode(described.described(model, **service), description._RECORDS)


def take(raw, max_memory=4 * GIB, max_bytes=4 * GIB):
  """What a client does with a description before its first command."""
  found = description.decode(raw)
  structure = description.structure(found)
  contexts = {m: parties.context(p) for m, p in keys.parameters(structure, b'').items()}
  return budget.budget(found, structure, contexts, max_memory=max_memory, max_bytes=max_bytes)


@contextlib.contextmanager
def little_memory(most):
  """The block takes little memory, whatever the sizes are that it reads of."""
  tracemalloc.start()
  try:
    yield
    assert tracemalloc.get_traced_memory()[1] < most
  finally:
    tracemalloc.stop()


def tower(depth):
  """So many activations on one map."""
  layers = conv(1), *[ACT] * depth, *END
  return public(layers, (4, 4, 1), [form(1, 0, (4, 4))] * depth)


def gathers(count):
  """Maps of 2^24 values from one channel."""
  layers = conv(1), ACT, *[Gather((0,) * 16384)] * count, Gather((0,)), *END
  return public(layers, (32, 32, 1), [form(1, 0, (32, 32))])


def pooled(*windows):
  """Max pools of these windows, with the widest circuits."""
  layers, forms, side = [], [], math.prod(windows)
  for window in windows:
    layers += conv(1), ACT, MaxPool(window)
    forms.append(maxima(1, (side, side), window, sign_bits=55))
    side //= window
  names = [f'max_pool{i}' for i in range(len(windows))]
  return public((*layers, *END), (math.prod(windows),) * 2 + (1,), forms, names)


HOSTILE = {
  # Once 32 GiB, for a description of 607 bytes.
  'kernel as large as the map': (
    relus(65536, 16, 16, kernel=65536),
    'conv0 pads to 8591835121 values, want at most 16777216',
  ),
  'kernel of more than a ciphertext': (
    relus(4096, 16, 16, kernel=2000),
    'needs more than 4096 coefficients',
  ),
  'kernel larger than the map': (
    public((conv(3, 65536), *END), (8, 8, 3)),
    'conv0 has kernel 65536, want at most 16 on its map',
  ),
  'stride larger than the map': (
    public((conv(3, 3, 17), *END), (8, 8, 3)),
    'conv0 has stride 17, want at most 16 on its map',
  ),
  'halo larger than its pixels': (
    public((conv(1, 61), ACT, AveragePool(64), *END), (1024, 1024, 1), [form(1, 0, (1024, 1024))]),
    'needs .* GiB of memory, more than max_memory=4 GiB',
  ),
  'image that a stride makes small': (
    public((conv(1, 3, 65536), *END), (65536, 65536, 1)),
    'the image has 4294967296 values',
  ),
  'too many ReLUs': (relus(2048, 2048, 2), 'GiB of memory, more than max_memory=4 GiB'),
  'too many polynomials': (
    public((conv(16), ACT, *END), (1024, 1024, 1), [form(0, 16, (1024, 1024), 3)]),
    'GiB of memory, more than max_memory=4 GiB',
  ),
  'too many layers': (tower(1025), 'more than 1024 layers'),
  'too many values': (gathers(5), 'values in all, want at most'),
  'additions of nothing': (
    public((conv(1), ACT, Residual(()), *END), (4, 4, 1), [form(1, 0, (4, 4))]),
    'a residual without a branch',
  ),
  'copies side by side': (
    public((conv(1), ACT, *[Concat(((), ()))] * 25, *END), (4, 4, 1), [form(1, 0, (4, 4))]),
    'has 536870912 values, want 1 to 16777216',
  ),
  'a pool of an activation that is read elsewhere': (
    public(
      (conv(1), ACT, Residual((AveragePool(2, 1, ((1, 0), (1, 0))),)), *END),
      (4, 4, 1),
      [form(1, 0, (4, 4), pool=AveragePool(2, 1, ((1, 0), (1, 0))))],
      ['average_pool0'],
    ),
    'average_pool0 is absorbed by no activation',
  ),
  # Once 64 GiB, for one of 572 bytes.
  'padding larger than the map': (
    public((AveragePool(32768, 32768, ((32767,) * 2,) * 2), conv(1), *END), (65536, 16, 1)),
    'average_pool0 pads to 8591638500 values',
  ),
  'numbers of values of all windows': (
    public((AveragePool(2048, 1, ((0, 0), (2047, 0)), False), conv(1), *END), (4096, 16, 1)),
    'have no common multiple up to 1024',
  ),
  'more elements of a field than a word holds': (
    public(
      (conv(1), ACT, AveragePool(136), *END),
      (136, 136, 1),
      [form(0, 1, (136, 136), 3, pool=AveragePool(136))],
      ['average_pool0'],
    ),
    'average_pool0 adds 18496 elements of a field of',
  ),
  'a line of 65536 numbers': (
    public((Gather((7,) * 65536), *END), (4, 4, 1)),
    'gather0 got 1 channels',
  ),
  'circuits of large windows': (pooled(16, 16), 'maxima of 12032 bits, want at most 4096'),
  'bits of no ReLU': (
    public((conv(1), ACT, *END), (4, 4, 1), [form(0, 1, (4, 4), select_bits=1 << 40)]),
    'and 1099511627776 bits, want up to 64',
  ),
  'degree 1': (
    public((conv(1), ACT, *END), (4, 4, 1), [form(0, 1, (4, 4), degree=1)]),
    'of degree 1',
  ),
  'degree 5': (
    public((conv(1), ACT, *END), (4, 4, 1), [form(0, 1, (4, 4), degree=5)]),
    'of degree 5',
  ),
  'deviation 0': (dataclasses.replace(relus(4, 4, 1), std=(0.0,)), 'deviations'),
  'mean NaN': (dataclasses.replace(relus(4, 4, 1), mean=(math.nan,)), 'want a finite number'),
  'shift to the left': (relus(4, 4, 1, shift=-200), 'fraction bits'),
  'no room behind the shift': (relus(4, 4, 1, output_fraction=-40), 'selects 24 bits'),
  'integer of 63 bits': (relus(4, 4, 1, input_fraction=1 << 63), 'want a smaller integer'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_description_is_refused_in_one_line_and_little_memory(name):
  model, message = HOSTILE[name]
  raw = wire(model)
  parties.context(keys.bfv.ring_parameters(56))
  with little_memory(1 << 24), pytest.raises(ProtocolError, match=message) as caught:
    take(raw)
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize('outputs', [('logits',), ('logits', 'class')])
def test_classes_are_a_part_of_the_budget(outputs):
  model = public((conv(1), ACT, Flatten(), Dense(10_000)), (8, 8, 1), [form(1, 0, (8, 8))])
  found = take(wire(model, outputs=outputs)).needs
  # The comparison alone: some 700,000 ANDs of 32 bytes, and a label for each of 240,000 bits.
  assert (found.held > 25_000_000) == (found.traffic > 25_000_000) == ('class' in outputs)


def sizes(*most):
  """Sizes, small ones most often."""
  return st.one_of(st.integers(1, 8), *(st.integers(1, n) for n in most))


def pool(window, stride, before, behind, counts):
  """A pool whose padding is smaller than its window."""
  return AveragePool(window, stride, ((before % window, behind % window),) * 2, counts)


linears = st.builds(conv, sizes(64, 65536), sizes(64, 65536), sizes(4, 65536))
pools = st.builds(
  pool, sizes(64, 65536), sizes(64, 65536), sizes(64, 65536), sizes(64, 65536), st.booleans()
)
blocks = st.lists(st.tuples(linears, st.sampled_from((0, 1, 2, 3))), min_size=1, max_size=6)


@settings(deadline=None, max_examples=40)
@given(
  st.tuples(sizes(300, 65536), sizes(300, 65536), sizes(70, 65536)),
  blocks,
  st.lists(pools, max_size=1),
  sizes(300, 65536),
  st.sampled_from(tuple(sessions.MODES)),
)
def test_any_description_is_refused_or_within_its_limits(shape, layers, first, classes, mode):
  """Whatever a server describes, nothing large is allocated before the client agrees."""
  found, forms, at = list(first), [], shape
  if first:
    try:
      at = records.output_shape(first, shape)
    except ValueError:
      return  # windows that do not fit
  for each, degree in layers:
    at = (-(-at[0] // each.stride), -(-at[1] // each.stride), each.features)
    half = at[2] // 2 if degree > 1 else 0
    forms.append(form(at[2] - half, half, at[:2], max(degree, 2)))
    found += each, ACT
  model = public((*found, Flatten(), Dense(classes)), shape, forms)
  raw = wire(model, mode=mode)
  with little_memory(1 << 26):
    try:
      taken = take(raw)
    except ProtocolError as error:
      assert '\n' not in str(error) and len(str(error)) < 300
    else:
      assert taken.images >= 1
      assert taken.needs.memory(taken.images, 0) <= 4 * GIB and taken.needs.traffic <= 4 * GIB
      assert taken.needs.memory(taken.images + 1, 0) > 4 * GIB


CASES = {
  'padding': public(
    (AveragePool(256, 256, ((255, 255), (255, 255))), conv(1), ACT, *END),
    (512, 16, 1),
    [form(1, 0, (3, 2))],
  ),
  'ReLUs': relus(32, 32, 32),
  'cubics': public((conv(64), ACT, *END), (32, 32, 3), [form(0, 64, (32, 32), 3)]),
  'values': public(
    (conv(1), ACT, Gather((0,) * 4096), Gather((0,) * 9), *END), (16, 16, 1), [form(1, 0, (16, 16))]
  ),
}
CLIENT = """
import sys
import numpy as np
from safenet_jax.console import process_memory
from safenet_jax.protocol.service import client as clients
with clients.Client('127.0.0.1', int(sys.argv[1]), context=None) as client:
  client.infer(np.zeros((3, *client.description.model.input_shape), np.uint8))
  print([process_memory.memory().peak, client._budget.needs.memory(3, 0)])
"""


@pytest.mark.parametrize('name', CASES)
def test_a_client_takes_no_more_memory_than_it_expects(name):
  model = described.with_weights(CASES[name])
  with servers.Server(model, context=None) as server:
    command = [sys.executable, '-c', CLIENT, str(server.address[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
  peak, expected = json.loads(done.stdout)
  assert peak <= expected < 3 * peak


@contextlib.contextmanager
def serving(raw):
  """A server of one client that sends this description; gives what `Client` connects to."""
  with peers.channels(timeout=10) as (client, server):

    def session():
      with contextlib.suppress(ProtocolError):
        server.receive('hello', [(bytes, (handshake._VERSION.size,))])
        server.send('description', raw)
        server.receive('accept', [(bytes, (16,))])
        server.receive_bytes('command', 10_000)

    thread = threading.Thread(target=session)
    thread.start()
    yield client
    client.close()
    thread.join()


def connect(monkeypatch, channel, **options):
  monkeypatch.setattr(clients.channels, 'connect', lambda *unused, **_: channel)
  return clients.Client('127.0.0.1', 1, context=None, **options)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'max_memory': GIB // 16}, r"the server's model needs 0\.\d+ GiB of memory, more than max_m"),
    ({'max_bytes': 1000}, r'needs 0\.\d+ GiB of messages a prediction, more than max_bytes=9.31e'),
    ({'keep_prepared': 1 << 16}, r'needs [\d.]+ GiB of memory, more than max_memory=4 GiB'),
  ],
)
def test_a_client_refuses_what_is_more_than_its_limits(options, message, monkeypatch):
  with serving(wire(relus(4, 4, 8))) as channel, pytest.raises(ProtocolError, match=message):
    connect(monkeypatch, channel, **options)


def test_fewer_images_go_at_once_where_memory_is_little(monkeypatch):
  raw = wire(relus(16, 16, 16), batch=1000)
  most = take(raw).needs.memory(3, 0)
  with serving(raw) as channel, connect(monkeypatch, channel, max_memory=most) as client:
    assert client.batch == 3
    with pytest.raises(ValueError, match='5000 preparations in memory need .* GiB, more than max_'):
      client.prepare(5000)


def test_what_is_kept_in_a_directory_takes_no_memory(monkeypatch, tmp_path):
  raw, counted = wire(relus(16, 16, 16)), []
  monkeypatch.setattr(clients.Client, '_prepare', lambda *found: counted.append(found[-2]))
  with serving(raw) as channel, connect(monkeypatch, channel, directory=tmp_path) as client:
    client.prepare(5000)
  assert counted == [5000]


def test_a_bundle_of_a_stranger_has_the_same_bounds(tmp_path):
  path = tmp_path / 'bundle'
  for model, message in (
    (HOSTILE['kernel larger than the map'][0], 'conv0 has kernel 65536'),
    (public((conv(65536, 5), conv(8192, 5), *END), (1, 1, 99)), 'weights, want at most'),
    (HOSTILE['a line of 65536 numbers'][0], 'gather0 got 1 channels'),
  ):
    header = record_codec.encode(bundle.Bundle(model, ()), bundle._RECORDS)
    prefix = bundle._PREFIX.pack(bundle._MAGIC, bundle.VERSION, len(header))
    path.write_bytes(prefix + header + bytes(100))
    with little_memory(1 << 24), pytest.raises(ValueError, match=message) as caught:
      bundle.load(path)
    assert len(str(caught.value)) < 400


def test_a_server_cannot_stretch_its_messages_for_ever(monkeypatch):
  """Each comes before its own deadline, and all together too late."""
  now = [0.0]
  monkeypatch.setattr(clients.channels.time, 'monotonic', lambda: now[0])
  with peers.channels(timeout=10) as (client, server):

    def late():
      now[0] += 9.0
      server.send('tick')
      client.receive('tick')

    with client.within(3, 0):
      for _ in range(3):
        late()
      now[0] += 9.0
      with pytest.raises(ProtocolError, match='timeout: the peer sends nothing'):
        client.receive('tick')

"""The layout of frames: what is sent comes back, and nothing else is accepted."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import msgpack
import numpy as np
import pytest

from safenet_jax.transport import frames
from safenet_jax.transport.frames import ProtocolError

DTYPES = [np.dtype(f'{kind}{size}') for kind in 'ui' for size in (1, 2, 4, 8)]
TAGS = st.text(st.characters(codec='utf-8'), min_size=1, max_size=64)
ARRAYS = st.sampled_from(DTYPES).flatmap(
  lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)


def decode(first, payload):
  """Header and values, as a receiver has them."""
  length, size = frames.decode_prefix(first[: frames.PREFIX.size])
  header = frames.decode_header(first[frames.PREFIX.size :], size)
  assert len(first) == frames.PREFIX.size + length
  raw, values = b''.join(payload), []
  for part in header.parts:
    array = part.empty()
    frames.view(array)[:] = raw[: part.size]
    raw = raw[part.size :]
    values.append(part.value(array))
  assert not raw
  return header, values


@settings(deadline=None)
@given(TAGS, st.lists(st.one_of(ARRAYS, st.binary(max_size=50)), max_size=5))
def test_what_is_encoded_is_decoded(tag, values):
  header, first, payload = frames.encode(tag, values)
  found, decoded = decode(first, payload)
  assert found == header and found.tag == tag
  for value, got in zip(values, decoded, strict=True):
    if isinstance(value, bytes):
      assert got == value
    else:
      assert got.dtype == value.dtype and got.shape == value.shape
      np.testing.assert_array_equal(got, value)


@pytest.mark.parametrize(
  'value',
  [
    np.arange(12, dtype='>u8').reshape(3, 4),
    np.arange(24, dtype='<i4').reshape(4, 6)[::2, 1::2].T,
    np.arange(4, dtype=np.uint64).reshape(2, 2).T,
    np.uint64(7),
    bytearray(b'abc'),
    memoryview(b'abc'),
  ],
)
def test_any_layout_of_an_array_arrives(value):
  _, first, payload = frames.encode('x', [value])
  _, (got,) = decode(first, payload)
  if isinstance(value, (bytearray, memoryview)):
    assert got == bytes(value)
  else:
    np.testing.assert_array_equal(got, value)


def test_large_arrays_are_not_copied():
  array = np.arange(10_000, dtype=np.uint64)
  _, _, payload = frames.encode('x', [array])
  assert np.shares_memory(np.frombuffer(payload[0], np.uint8), array)


@pytest.mark.parametrize(
  'value',
  [
    np.ones(3),
    np.array(['a']),
    np.array([None]),
    np.array([True]),
    [1, 2],
    'text',
    3,
    None,
  ],
)
def test_other_values_are_refused_by_the_sender(value):
  with pytest.raises(ValueError, match='want bytes or one of uint8'):
    frames.encode('x', [value])


@pytest.mark.parametrize('tag', ['', 'x' * 65])
def test_a_tag_has_a_bounded_length(tag):
  with pytest.raises(ValueError, match='want 1 to 64 characters'):
    frames.encode(tag, [])


def test_a_header_has_a_bounded_length():
  with pytest.raises(ValueError, match='want a header up to 4096 bytes'):
    frames.encode('x', [b''] * 1000)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 1 << 64))
def test_garbage_is_a_protocol_error(raw, size):
  """Whatever is decoded without one is what an honest peer would have sent."""
  if len(raw) >= frames.PREFIX.size:
    with pytest.raises(ProtocolError):
      frames.decode_prefix(raw[: frames.PREFIX.size])
  try:
    header = frames.decode_header(raw, size)
  except ProtocolError as error:
    assert '\n' not in str(error) and len(str(error)) < 400
  else:
    assert msgpack.packb(header) == raw and header.size == size


NESTED = st.recursive(
  st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.text(),
    st.sampled_from(['uint8', 'uint64', 'bytes', 'float64', 'object', '|O']),
    st.binary(),
    st.floats(),
  ),
  lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(deadline=None, max_examples=300)
@given(NESTED, st.integers(0, 100))
def test_msgpack_of_another_structure_is_a_protocol_error(value, size):
  raw = msgpack.packb(value)
  try:
    header = frames.decode_header(raw, size)
  except ProtocolError:
    return
  assert header.size == size and all(
    part.dtype in ('bytes', 'uint8', 'uint64') for part in header.parts
  )


@pytest.mark.parametrize(
  'found, size, message',
  [
    (['x', [['float64', [1]]]], 8, 'dtype float64'),
    (['x', [['object', [1]]]], 8, 'dtype object'),
    (['x', [['uint8', [-1]]]], 0, 'shape'),
    (['x', [['uint8', [True]]]], 1, 'shape'),
    (['x', [['uint8', [1.0]]]], 1, 'shape'),
    (['x', [['bytes', [2, 2]]]], 4, 'shape'),
    (['x', [['uint8', [1] * 9]]], 1, 'shape'),
    (['x', [['uint8', [2]]]], 1, 'header announces 2'),
    (['x', [['uint64', [1 << 63] * 8]]], 1, 'header announces'),
    ([7, []], 0, 'without a tag'),
    (['x' * 65, []], 0, 'without a tag'),
    (['x'], 0, 'whose header is not'),
    (['x', 3], 0, 'whose header is not'),
    (['x', {}], 0, 'shortest form'),
  ],
)
def test_a_lying_header_is_one_line(found, size, message):
  with pytest.raises(ProtocolError, match=message):
    frames.decode_header(msgpack.packb(found), size)


def test_a_deeply_nested_header_is_a_protocol_error():
  for raw in (b'\x91' * 4096, b'\x92\xa1x\x91\x92\xa5uint8' + b'\x91' * 900 + b'\x01'):
    with pytest.raises(ProtocolError):
      frames.decode_header(raw, 0)


@pytest.mark.parametrize(
  'raw, message',
  [
    (b'GET / HTTP/1.1\r\n', 'does not speak this protocol'),
    (struct.pack('!4sHHQ', b'SNjx', 2, 10, 0), 'frames of version 2, want 1'),
    (struct.pack('!4sHHQ', b'SNjx', 1, 0, 0), 'header of 0 bytes'),
    (struct.pack('!4sHHQ', b'SNjx', 1, 4097, 0), 'header of 4097 bytes'),
  ],
)
def test_a_wrong_prefix_is_one_line(raw, message):
  with pytest.raises(ProtocolError, match=message):
    frames.decode_prefix(raw)


@given(st.text())
def test_what_a_peer_says_is_printed_on_one_bounded_line(text):
  line = frames.printable(text)
  assert len(line) <= 200 and line.isascii() and (line.isprintable() or not line)


def test_the_wire_format_is_fixed():
  """Both ends of a connection may be of different releases."""
  _, first, payload = frames.encode('ab', [np.array([1, 256], np.uint16), b'xy'])
  assert first.hex() == (
    '534e6a7800010018000000000000000692a261629292a675696e743136910292a562797465739102'
  )
  assert b''.join(payload) == b'\x01\x00\x00\x01xy'

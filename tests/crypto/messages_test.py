import numpy as np
import pytest

from safenet_jax.crypto import messages


def test_identifiers_depend_on_every_part_and_where_it_ends():
  parts = [(b'a', b'bc'), (b'ab', b'c'), (b'abc',), (b'abc', b''), (b'', b'abc'), (b'bc', b'a'), ()]
  found = {messages.identifier(*part) for part in parts}
  assert len(found) == len(parts)
  assert all(len(one) == messages.BYTES for one in found)


def test_an_identifier_is_known():
  # SHA-256 of eight bytes of length, lowest first, and 'abc'.
  assert messages.identifier(b'abc').hex() == 'ce91dc5eec0139adf091900d225971d6'


def test_a_message_is_read_under_its_own_identifier_only():
  mine, other = messages.identifier(b'1'), messages.identifier(b'2')
  assert messages.read('reply', mine + b'body', mine) == b'body'
  for wrong in (other + b'body', mine[:-1], b''):
    with pytest.raises(ValueError, match='reply .* of another session, key or step'):
      messages.read('reply', wrong, mine)


def test_bytes_of_words_count_the_identifier():
  assert messages.Words(bytes(16), np.zeros((3, 5), np.uint64)).nbytes == 16 + 8 * 15

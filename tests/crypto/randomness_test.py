import os
import signal
import threading

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from safenet_jax.crypto import randomness
from tests.support import fresh

_CHUNK = 1 << 16


def _chi_square(counts):
  expected = counts.sum() / len(counts)
  return ((counts - expected) ** 2 / expected).sum()


def test_the_stream_is_aes_128_in_counter_mode():
  # AES-128 of counters 0 and 1 under the zero key: GCM specification, test case 1.
  stream = randomness.InsecureSeededRandomness(0).bytes(32)
  assert stream.hex() == '66e94bd4ef8a2c3b884cfa59ca342b2e58e2fccefa7e3061367f1d57a4e7455a'


def test_a_seed_repeats_and_another_does_not():
  streams = [randomness.InsecureSeededRandomness(seed).bytes(64) for seed in (1, 1, 2, 1 << 64)]
  assert streams[0] == streams[1]
  assert len(set(streams)) == 3


@given(st.lists(st.integers(0, 40), max_size=8))
def test_the_stream_does_not_depend_on_how_it_is_read(sizes):
  source = randomness.InsecureSeededRandomness(3)
  pieces = b''.join(source.bytes(size) for size in sizes)
  assert pieces == randomness.InsecureSeededRandomness(3).bytes(sum(sizes))


@pytest.mark.parametrize('size', [_CHUNK - 1, _CHUNK, _CHUNK + 1, 3 * _CHUNK + 5])
def test_long_reads_never_repeat_a_block(size):
  source = randomness.InsecureSeededRandomness(4)
  stream = source.bytes(size)
  again = randomness.InsecureSeededRandomness(4)
  assert stream == b''.join(again.bytes(1000) for _ in range(size // 1000)) + again.bytes(
    size % 1000
  )
  blocks = np.frombuffer(stream[: size // 16 * 16], 'V16')
  assert len(set(blocks.tolist())) == len(blocks)


def test_system_streams_differ():
  assert len({randomness.SystemRandomness().bytes(16) for _ in range(100)}) == 100


def test_a_forked_child_leaves_its_parents_stream():
  fresh.run(check_fork)


def check_fork():
  source = randomness.SystemRandomness()
  source.bytes(16)
  children = [drawn_in_a_child(source) for _ in range(2)]
  streams = [*children, source.bytes(64)]
  blocks = [stream[i : i + 16] for stream in streams for i in range(0, 64, 16)]
  assert len(set(blocks)) == 12


def test_a_child_forked_while_a_thread_draws_does_not_wait_for_that_thread():
  fresh.run(check_fork_under_the_lock)


def check_fork_under_the_lock():
  source = randomness.SystemRandomness()
  with source._lock:
    drawn_in_a_child(source)


def drawn_in_a_child(source):
  """64 bytes of the source, drawn in a forked child."""
  reader, writer = os.pipe()
  child = os.fork()
  if child == 0:
    signal.alarm(30)  # ends a child that waits for ever
    try:
      os.write(writer, source.bytes(64))
    finally:
      os._exit(0)
  os.close(writer)
  with os.fdopen(reader, 'rb') as pipe:
    found = pipe.read()
  assert os.waitpid(child, 0)[1] == 0 and len(found) == 64
  return found


@pytest.mark.parametrize('modulus', [2, 3, 5, 6, 7, 11, 16])
def test_residues_are_uniform(modulus):
  residues = randomness.InsecureSeededRandomness(5).residues(modulus, 200_000)
  assert residues.dtype == np.uint64 and residues.max() == modulus - 1
  counts = np.bincount(residues.astype(np.int64), minlength=modulus)
  # For up to 15 degrees of freedom one false alarm in 10^5; a word reduced by
  # the modulus would give tens of thousands.
  assert _chi_square(counts) < 50


class _Script(randomness.Randomness):
  """Hands out given words."""

  def __init__(self, *words):
    self._words = list(words)

  def fill(self, out):
    out[...] = [self._words.pop(0) for _ in range(out.size)]


def test_words_beyond_the_modulus_are_drawn_again_not_reduced():
  # Two bits of each word count; 3 is no residue, so its place waits for the next.
  residues = _Script(3, 4 + 1, 3, 2, 7, 0).residues(3, 3)
  np.testing.assert_array_equal(residues, [2, 1, 0])


def test_residues_of_a_prime_fill_its_range():
  modulus = 2061584302081
  residues = randomness.InsecureSeededRandomness(6).residues(modulus, (500, 400))
  assert residues.shape == (500, 400) and residues.max() < modulus
  counts, _ = np.histogram(residues, bins=16, range=(0, modulus))
  assert _chi_square(counts) < 50


@pytest.mark.parametrize('bits', [1, 7, 41, 64])
def test_ring_elements_use_exactly_their_bits(bits):
  elements = randomness.InsecureSeededRandomness(7).ring(bits, (100, 40))
  assert elements.shape == (100, 40) and elements.dtype == np.uint64
  ones = np.unpackbits(elements.reshape(-1, 1).view(np.uint8), axis=1, bitorder='little').mean(0)
  assert not ones[bits:].any()
  # Six standard deviations of 4000 fair coins.
  assert np.abs(ones[:bits] - 0.5).max() < 0.048


@pytest.mark.parametrize('shape', [1, 9, (3, 5), (0,), ()])
def test_bits_and_words_have_the_asked_shape(shape):
  source = randomness.InsecureSeededRandomness(8)
  assert source.bits(shape).shape == source.words(shape).shape == np.empty(shape).shape


def test_bits_are_fair_zeros_and_ones():
  bits = randomness.InsecureSeededRandomness(9).bits(40_000)
  assert bits.dtype == np.uint8 and set(bits.tolist()) == {0, 1}
  assert abs(bits.mean() - 0.5) < 0.015  # six standard deviations


def test_the_whole_array_is_filled():
  out = np.zeros((_CHUNK // 8 + 3, 2), np.uint64)
  randomness.InsecureSeededRandomness(10).fill(out)
  assert out.all()


@pytest.mark.parametrize(
  'mistake',
  [
    lambda source: source.fill(np.zeros((4, 4), np.uint64)[:, ::2]),
    lambda source: source.ring(0, 3),
    lambda source: source.ring(65, 3),
    lambda source: source.residues(1, 3),
    lambda source: source.residues((1 << 64) + 1, 3),
    lambda source: randomness.InsecureSeededRandomness(-1),
  ],
)
def test_callers_mistakes_raise(mistake):
  with pytest.raises(ValueError, match='want'):
    mistake(randomness.InsecureSeededRandomness(11))


def test_threads_that_share_a_source_never_get_the_same_bytes():
  source = randomness.SystemRandomness()
  update, found = source._update, []
  other = threading.Thread(target=lambda: found.append(source.bytes(16)))

  def interrupted(*buffers):
    """Gives the other thread its turn before anything is taken out of the scratch."""
    update(*buffers)
    if other.ident is None:
      other.start()
      other.join(0.5)  # in vain, because it waits for this thread

  source._update = interrupted
  mine = source.bytes(16)
  other.join()
  assert len(found) == 1 and found[0] != mine

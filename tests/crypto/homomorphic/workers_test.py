from concurrent import futures
import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from safenet_jax.crypto.homomorphic import bfv, encrypted_convolution, packing, workers
from safenet_jax.crypto.randomness import SystemRandomness
from tests.support import fresh, plain_convolution, traps

PARAMETERS = bfv.ring_parameters()
# Two output ciphertexts, one, and one.
SHAPES = [
  packing.Convolution(32, 32, 1, 6, 3),
  packing.Convolution(8, 8, 3, 4, 3, 2),
  packing.Convolution(1, 1, 64, 10, 1),
]
KERNELS = [
  np.random.default_rng(1).integers(-100, 100, (*layer.kernel_shape[:3], 1))
  * np.ones(layer.channels_out, np.int64)
  for layer in SHAPES
]


@pytest.fixture(scope='module')
def secret():
  return bfv.SecretKey(bfv.Context(PARAMETERS))


@pytest.fixture(scope='module')
def pool():
  with workers.Workers(2, list(zip([PARAMETERS] * 3, SHAPES, KERNELS))) as pool:
    yield pool


def check(pool, secret, layer, kernel, index=0):
  """The pool answers an honest client rightly."""
  randomness = SystemRandomness()
  r = randomness.ring(56, layer.input_shape)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  message, u = pool.reply(secret.public_key(), index, upload, b'tag')
  c = encrypted_convolution.decrypt_map(secret, layer, message, b'tag')
  want = plain_convolution.convolved(r, kernel, layer)
  # What replies leave out makes one in 2000 wrong by one.
  assert ((c + u - want + np.uint64(1)) % np.uint64(2**56)).max() <= 2


def until(condition):
  while not condition():
    time.sleep(0.01)


def pids(pool):
  return [worker.process.pid for worker in pool._workers]


@pytest.fixture(scope='module')
def trapped(tmp_path_factory):
  """A layer in two parts, its kernel, a pool for it, and the file of its trap."""
  trap = tmp_path_factory.mktemp('workers') / 'trap'
  layer = traps.Convolution(trap, 32, 32, 1, 6, 3)
  with workers.Workers(2, [(PARAMETERS, layer, KERNELS[0])]) as pool:
    yield layer, KERNELS[0], pool, trap


@pytest.mark.parametrize('index', range(len(SHAPES)))
def test_workers_together_answer_like_one_server(secret, pool, index):
  check(pool, secret, SHAPES[index], KERNELS[index], index)


def test_two_workers_and_two_replies_repeat_nothing(secret):
  """Both workers have the same weights, get the same upload and are new."""
  layer, randomness = SHAPES[0], SystemRandomness()
  r = randomness.ring(56, layer.input_shape)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  pieces, shares = [], []
  with workers.Workers(2, [(PARAMETERS, layer, KERNELS[0])]) as pool:
    for _ in range(2):
      message, u = pool.reply(secret.public_key(), 0, upload, b'tag')
      half = len(message) // 2
      pieces += [message[start : start + half] for start in (0, half)]
      shares += [u[..., :3], u[..., 3:]]
  for one in range(4):
    for other in range(one):
      same = np.frombuffer(pieces[one], np.uint8) == np.frombuffer(pieces[other], np.uint8)
      assert abs(same.mean() - 1 / 256) < 2e-3  # six deviations of so many bytes
      assert (shares[one] == shares[other]).mean() < 1e-3


def test_what_is_malformed_raises_and_the_pool_goes_on(secret, pool):
  before = pids(pool)
  with pytest.raises(ValueError, match='upload of'):
    pool.reply(secret.public_key(), 1, b'short', b'tag')
  with pytest.raises(ValueError, match='bytes'):
    pool.reply(b'short', 1, b'', b'tag')
  with pytest.raises(ValueError, match='layer'):
    pool.reply(secret.public_key(), 3, b'', b'tag')
  check(pool, secret, SHAPES[1], KERNELS[1], 1)
  assert pids(pool) == before


def test_another_key_counts_at_once(secret, pool):
  check(pool, secret, SHAPES[2], KERNELS[2], 2)
  check(pool, bfv.SecretKey(secret.context), SHAPES[2], KERNELS[2], 2)


def test_layers_have_parameters_of_their_own_and_masks_may_be_drawn():
  randomness, layer, kernel = SystemRandomness(), SHAPES[0], KERNELS[0]
  kinds = [bfv.ring_parameters(bits) for bits in (28, 36, 28)]
  secrets = [bfv.SecretKey(bfv.Context(kind)) for kind in kinds]
  with workers.Workers(2, [(kind, layer, kernel) for kind in kinds]) as pool:
    for index, (secret, bits) in enumerate(zip(secrets, (28, 36, 28))):
      upload, r = encrypted_convolution.draw_map(secret, layer, randomness, b'tag')
      message, u = pool.reply(secret.public_key(), index, upload, b'tag', drawn=True)
      c = encrypted_convolution.decrypt_map(secret, layer, message, b'tag')
      want = plain_convolution.convolved(r, kernel, layer)
      assert ((c + u - want + np.uint64(1)) % np.uint64(2**bits)).max() <= 2


def test_any_error_of_a_worker_ends_the_request_only(secret, trapped):
  layer, kernel, pool, trap = trapped
  before = pids(pool)
  trap.write_text('raise')
  with pytest.raises(RuntimeError, match='a worker failed: RuntimeError.*transparent'):
    check(pool, secret, layer, kernel)
  trap.unlink()
  check(pool, secret, layer, kernel)
  assert pids(pool) == before


def test_a_key_of_zeros_and_weights_of_zeros_end_no_worker(secret):
  """Some versions of the scheme make a ciphertext of this that SEAL refuses."""
  layer, kernel = SHAPES[2], np.zeros_like(KERNELS[2])
  key, randomness = bytes(len(secret.public_key())), SystemRandomness()
  public = bfv.PublicKey(secret.context, key)
  r = randomness.ring(56, layer.input_shape)
  upload = encrypted_convolution.encrypt_map(secret, layer, r, randomness, b'tag')
  identifier = encrypted_convolution._upload_identifier(public.fingerprint, layer, b'tag', False)
  with workers.Workers(1, [(PARAMETERS, layer, kernel)]) as pool:
    before = pids(pool)
    with contextlib.suppress(RuntimeError):
      pool.reply(key, 0, identifier + upload[len(identifier) :], b'tag')
    check(pool, secret, layer, kernel)  # the honest client's reply, all zeros, is no exception
    assert pids(pool) == before


def test_a_worker_killed_during_a_request_is_replaced_and_the_request_answered(
  secret, trapped, caplog
):
  layer, kernel, pool, _ = trapped
  before = pids(pool)
  os.kill(before[1], signal.SIGSTOP)  # the request stays in it

  with futures.ThreadPoolExecutor() as threads:
    answered = threads.submit(check, pool, secret, layer, kernel)
    until(lambda: pool._workers[1]._owed or answered.done())
    os.kill(before[1], signal.SIGKILL)
    answered.result()
  assert [before[0]] == [pid for pid in pids(pool) if pid in before]
  assert [record.getMessage() for record in caplog.records] == ['event=worker_ended code=-9']


def test_a_request_that_ends_workers_twice_is_refused_and_the_next_one_answered(
  secret, trapped, monkeypatch
):
  layer, kernel, pool, trap = trapped
  starts = []
  start = workers._Worker._start

  def noted(worker):
    start(worker)
    starts.append((worker, worker._started))

  monkeypatch.setattr(workers._Worker, '_start', noted)
  trap.write_text('end')
  with pytest.raises(ValueError, match='a worker ended in each of 2 tries'):
    check(pool, secret, layer, kernel)
  assert len(starts) == 2  # each worker ended in the first try
  trap.unlink()
  check(pool, secret, layer, kernel)
  assert len(starts) == 4
  for (one, first), (other, second) in zip(starts, starts[2:]):
    assert one is other and second - first >= workers._PAUSE


def test_ends_between_requests_do_not_count_as_tries(secret, trapped):
  layer, kernel, pool, trap = trapped
  for worker in pool._workers:
    worker.process.kill()
    worker.process.wait()
  trap.write_text('end once')
  check(pool, secret, layer, kernel)
  assert not trap.exists()


def test_signals_to_stop_leave_workers_to_their_server(secret, trapped):
  layer, kernel, pool, _ = trapped
  before = pids(pool)
  for pid in before:
    for number in (signal.SIGINT, signal.SIGTERM):
      os.kill(pid, number)
  check(pool, secret, layer, kernel)
  assert pids(pool) == before


def test_an_interrupted_request_leaves_no_answer_to_the_next_one(secret, trapped, monkeypatch):
  layer, kernel, pool, _ = trapped

  def interrupted(worker):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(workers._Worker, 'answer', interrupted)
    check(pool, secret, layer, kernel)
  check(pool, secret, layer, kernel)


def test_workers_end_with_their_pool_and_with_its_process(secret):
  with workers.Workers(1, [(PARAMETERS, SHAPES[2], KERNELS[2])]) as pool:
    process = pool._workers[0].process
  assert process.returncode is not None
  with pytest.raises(RuntimeError, match='closed'):
    check(pool, secret, SHAPES[2], KERNELS[2])
  code = 'from tests.crypto.homomorphic import workers_test; workers_test.leave_a_pool()'
  # Returns when the last process that has the output's pipe has ended.
  found = subprocess.run(
    [sys.executable, '-c', code], cwd=fresh.ROOT, stdout=subprocess.PIPE, timeout=60
  )
  assert found.returncode == -signal.SIGKILL and found.stdout == b'made\n'


def leave_a_pool():
  """A process that is killed before it can close its pool."""
  pool = workers.Workers(1, [(PARAMETERS, SHAPES[2], KERNELS[2])])
  print('made', flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
  pool.close()


def test_closing_ends_a_request_that_hangs(secret):
  with (
    workers.Workers(1, [(PARAMETERS, SHAPES[2], KERNELS[2])]) as pool,
    futures.ThreadPoolExecutor() as threads,
  ):
    os.kill(*pids(pool), signal.SIGSTOP)
    answered = threads.submit(check, pool, secret, SHAPES[2], KERNELS[2])
    until(lambda: pool._workers[0]._owed or answered.done())
    pool.close()
    with pytest.raises(RuntimeError, match='closed'):
      answered.result()


def test_a_kernel_that_cannot_be_served_raises_at_the_start():
  with pytest.raises(ValueError, match='kernel'):
    workers.Workers(1, [(PARAMETERS, SHAPES[2], KERNELS[1])])


def test_workers_that_end_at_their_start_raise(monkeypatch, capfd):
  monkeypatch.setattr(workers.sys, 'path', [])
  with pytest.raises(RuntimeError, match='a worker ended with 1 as it started'):
    workers.Workers(1, [])
  assert 'ModuleNotFoundError' in capfd.readouterr().err


def test_no_workers_raise():
  with pytest.raises(ValueError, match='0 workers, want 1 or more'):
    workers.Workers(0, [])

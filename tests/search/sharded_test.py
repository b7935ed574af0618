"""Members over devices and processes: same digits, clear ends, the same command goes on."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax.search import members, population
from safenet_jax.search import strategy as strategies
from safenet_jax.workdir import Workdir
from tests.support import small_search

ROOT = pathlib.Path(__file__).parent.parent.parent


def launch(path, *arguments, devices=1):
  return subprocess.Popen(
    [sys.executable, '-m', 'tests.support.sharded_run', str(path), *map(str, arguments)],
    cwd=ROOT,
    env=dict(os.environ, JAX_PLATFORMS='cpu', JAX_NUM_CPU_DEVICES=str(devices)),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def launch_two(path, *last):
  """Two processes on one workdir; `last` goes to the second."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  return launch(path, port, 2, 0), launch(path, port, 2, 1, *last)


def finish(process, code=0):
  output, errors = process.communicate(timeout=300)
  assert process.returncode == code, errors[-3000:]
  return output, errors


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The log of a search on one device, and what it printed of the winner."""
  path = tmp_path_factory.mktemp('one')
  output, _ = finish(launch(path))
  return (path / 'metrics.jsonl').read_text(), output.split()[-1]


def test_two_devices_give_the_scores_of_one_to_all_digits(tmp_path, whole):
  output, _ = finish(launch(tmp_path, devices=2))
  assert output.split() == ['1', '2', whole[1]]
  assert (tmp_path / 'metrics.jsonl').read_text() == whole[0]


def test_a_lost_process_ends_the_other_and_the_same_command_continues(tmp_path, whole):
  first, lost = launch_two(tmp_path, 1)
  finish(lost, code=9)
  _, errors = finish(first, code=2)
  assert 'error: process 0 ended: ' in errors
  assert 'the same command continues the run' in errors
  done = Workdir(tmp_path).metrics()
  assert 1 <= len(done) < whole[0].count('\n')

  # Two processes from there: what they finish is what one device finds alone.
  for process in launch_two(tmp_path):
    output, _ = finish(process)
    assert output.split()[-3:] == ['2', '2', whole[1]]
  assert (tmp_path / 'metrics.jsonl').read_text() == whole[0]


def test_members_that_devices_do_not_divide_are_refused(monkeypatch):
  monkeypatch.setattr(jax, 'devices', lambda: [None] * 4)
  with pytest.raises(ValueError, match='6 members over 4 devices, want a multiple'):
    population.mesh(6)


def test_one_device_needs_no_mesh(monkeypatch):
  monkeypatch.setattr(jax, 'devices', lambda: [None])
  assert population.mesh(5) is None


def test_the_automatic_strategy_is_the_fastest_and_is_kept(tmp_path, monkeypatch):
  task, first = small_search.task()
  took = {'map': 0.3, 'vmap': 0.1, 'unroll': 0.2}
  monkeypatch.setattr(strategies, 'seconds', lambda name, *_: took[name])
  automatic = small_search.evolution(strategy='auto')
  assert strategies.resolve(automatic, first, task, Workdir(tmp_path)) == 'vmap'
  took['vmap'] = 9.0
  assert strategies.resolve(automatic, first, task, Workdir(tmp_path)) == 'vmap'
  assert (
    strategies.resolve(small_search.evolution(strategy='unroll'), first, task, None) == 'unroll'
  )


def test_many_members_are_not_written_out(tmp_path, monkeypatch):
  task, first = small_search.task()
  timed = []
  monkeypatch.setattr(strategies, 'seconds', lambda name, *_: timed.append(name) or 1.0)
  strategies.resolve(
    small_search.evolution(strategy='auto', population=50), first, task, Workdir(tmp_path)
  )
  assert timed == ['map', 'vmap']


def test_two_steps_of_members_are_timed():
  task, first = small_search.task()
  assert 0 < strategies.seconds('map', first, task, 2) < 60


def test_vmapped_members_train_without_grouped_convolutions():
  task, first = small_search.task()
  copies = jax.tree.map(
    lambda leaf: (
      jnp.stack([leaf, leaf * 1.1]) if leaf.dtype == jnp.float32 else jnp.stack([leaf, leaf])
    ),
    first,
  )
  batches = jnp.arange(16).reshape(2, 8)
  keys = jax.random.split(jax.random.key(0), 2)

  def train(strategy):
    one = lambda key, member: members.train(key, member, task, batches)[0]  # noqa: E731
    return jax.jit(population.over_members(one, strategy))

  text = train('vmap').lower(keys, copies).as_text()
  assert 'dot_general' in text and 'stablehlo.convolution' not in text
  assert 'stablehlo.convolution' in train('map').lower(keys, copies).as_text()
  for ours, theirs in zip(
    jax.tree.leaves(train('vmap')(keys, copies)), jax.tree.leaves(train('map')(keys, copies))
  ):
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)

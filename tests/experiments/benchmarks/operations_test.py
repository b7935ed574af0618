"""The profile of a training step on a network small enough for a test."""

from absl import flags
from absl.testing import flagsaver
import jax
import pytest

from experiments.benchmarks import operations, training
from safenet_jax.models import layers as records
from safenet_jax.models.network import Network


@pytest.fixture(autouse=True)
def parsed_flags(monkeypatch):
  monkeypatch.setattr(training, 'BATCH', 8)
  monkeypatch.setattr(operations, 'REPETITIONS', 1)
  with flagsaver.flagsaver():
    flags.FLAGS.mark_as_parsed()
    yield


def test_parts_and_the_rest_add_up_to_the_step(monkeypatch):
  small = Network(
    (records.Conv(4), records.Activation(), records.Flatten(), records.Dense(10)), (8, 8, 3)
  )
  monkeypatch.setattr(training, 'NETWORKS', {'cnn7': ('cnn7', 1.0)})
  monkeypatch.setattr(operations.architectures, 'build', lambda name, width: small)
  monkeypatch.setattr(operations, '_limits', lambda: (1e9, 1e9))
  found = {row.name: row for row in operations.rows()}
  assert {row.suite for row in found.values()} == {'operations'}
  profile = {
    name.removeprefix('profile/cnn7/'): row.value
    for name, row in found.items()
    if name.startswith('profile/')
  }
  step = profile.pop('step')
  del profile[operations.POLYNOMIALS]  # not a part of an all-ReLU step
  assert sum(profile.values()) == pytest.approx(step)
  assert min(value for name, value in profile.items() if name != 'rest') > 0


def test_limits_count_each_layer():
  net = Network(
    (records.Conv(4), records.Activation(), records.Conv(4), records.Activation())
    + (records.Flatten(), records.Dense(3)),
    (8, 8, 4),
  )
  found = operations._operations(net)
  # Both convolutions have one shape; only the second has an input gradient.
  ((forward, count),) = found['convolution, forward'].values()
  assert count == 2 and forward.operations == 2 * (8 * 8 * 8) * 4 * (9 * 4)
  assert [count for _, count in found['convolution, input gradient'].values()] == [1]
  assert forward.bytes == 4 * (2 * 8 * 8 * 8 * 4 + 9 * 4 * 4)


def test_gradients_are_those_of_the_layer():
  net = Network((records.Conv(4), records.Activation(), records.Flatten(), records.Dense(3)))
  found = operations._operations(net)
  for kind, which in (('input gradient', 0), ('kernel gradient', 1)):
    ((operation, _),) = found[f'dense, {kind}'].values()
    x, w, dy = operation.arguments
    want = dy @ w.T if which == 0 else x.T @ dy
    assert jax.numpy.allclose(operation.function(*operation.arguments), want, rtol=1e-3, atol=1e-3)

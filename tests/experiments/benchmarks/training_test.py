"""The training benchmark on a network small enough for a test."""

from absl import flags
from absl.testing import flagsaver
import pytest

from experiments.benchmarks import training
from safenet_jax.models import architectures


@pytest.fixture(autouse=True)
def one_network(monkeypatch):
  monkeypatch.setattr(training, 'NETWORKS', {'cnn7': ('cnn7', 1.0)})
  monkeypatch.setattr(training, 'PAUSE', 0.0)
  with flagsaver.flagsaver():
    flags.FLAGS.mark_as_parsed()
    yield


def test_rows_give_a_speed_and_the_cost_of_a_scan(monkeypatch):
  small = architectures.cnn7(width=0.0625, input_shape=(8, 8, 3))
  monkeypatch.setattr(training.architectures, 'build', lambda name, width: small)
  monkeypatch.setattr(training, 'BATCH', 8)
  step, planned, scan = training.rows()
  assert (step.suite, step.name, step.unit) == ('training', 'step/cnn7', 'images/s')
  assert step.value > 0 and planned.value > 0 and planned.name == 'step_planned/cnn7'
  assert scan.name == 'in_scan/cnn7' and scan.value > 0
  # Without PyTorch there is no floor, and the row is still there.
  if training.torch is None:
    assert step.floor is None and step.ratio is None
  else:
    assert step.ratio == step.value / step.floor


def test_the_yardstick_is_missing_without_pytorch(monkeypatch):
  monkeypatch.setattr(training, 'torch', None)
  monkeypatch.setattr(training, 'ours', lambda *_, **__: lambda: None)
  assert next(training.rows()).floor is None

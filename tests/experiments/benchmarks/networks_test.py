"""The suite `networks`: two commands, and what they say of themselves."""

import numpy as np
import pytest

from experiments.benchmarks import inference, networks
from safenet_jax.approximation import plans
from safenet_jax.models import architectures
from safenet_jax.protocol.estimate import estimate


@pytest.mark.parametrize('mode', ['delphi', 'ot'])
def test_two_commands_serve_a_bundle_and_ask_for_classes(mode):
  network = architectures.cnn7(width=0.0625, input_shape=(8, 8, 3))
  model = inference.random_model(network, plans.from_twentieths([12] * 7, [2] * 7), fitted=True)
  images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
  found = {name: value for name, (value, _) in networks.measure(model, images, mode).items()}
  assert found['agree'] == 1
  expected = estimate.inference(model.public, mode)
  for phase in ('offline', 'online'):
    assert found[f'{phase}_mb'] == pytest.approx(expected.bytes(phase) / 1e6, rel=0.02)
  # JAX alone would be more.
  assert 30 < found['client_peak_mb'] < 180 and 30 < found['server_peak_mb'] < 180

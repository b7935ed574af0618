"""The measured blocks compute activations, and their costs are those a search reads."""

import json

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from experiments import benchmarks
from experiments.benchmarks import activations
from safenet_jax.crypto import ring
from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.search import score
from safenet_jax.transport import ledger as ledgers
from tests.experiments import commands_test


def shares(count):
  """Values of 20 bits with their sign, away from zero, and both shares of them."""
  randomness = SystemRandomness()
  values = np.random.default_rng(0).integers(1 << 9, 1 << 19, count)
  values[::2] *= -1
  c = randomness.ring(activations.BITS, count)
  return values, c, ring.reduce(values.astype(np.uint64) - c, activations.BITS)


def test_a_measured_relu_is_a_relu():
  values, c, s = shares(1024)
  block = activations.garbled_block(1024, SystemRandomness())
  for _ in range(2):  # sessions are used again
    ledger = ledgers.Ledger()
    v, rho = block(c, s, ledger)
    found = ring.reduce(v + rho, activations.form(None).select_bits)
    np.testing.assert_array_equal(found, np.maximum(values, 0))
  phases = ledger.record()['phases']
  form = activations.form(None)
  width = form.sign_bits - form.dropped
  # Two ciphertexts of 16 bytes an AND offline, a label for each bit of the server's online.
  assert phases['offline']['bytes'] > 1024 * 32 * (width - 1)
  assert 16 * width < phases['online']['bytes'] / 1024 < 16 * width + 4


@pytest.mark.parametrize('degree', [2, 3])
def test_a_measured_polynomial_is_a_polynomial(degree):
  values, c, s = shares(500)
  form = activations.form(degree)
  block = activations.polynomial_block(degree, SystemRandomness())
  ledger = ledgers.Ledger()
  v, rho = block(c, s, ledger)
  found = (v.astype(object) + rho) % form.modulus
  down = (values >> form.shift).astype(object)
  # Local truncation rounds to one of the neighbours.
  wanted = [
    sum(k * t**i for i, k in enumerate((3, 0, 1, 1)[: degree + 1])) % form.modulus
    for t in (down, down + 1)
  ]
  assert ((found == wanted[0]) | (found == wanted[1])).all()
  assert ledger.record()['phases']['offline']['bytes'] > 100_000


def test_the_benchmarks_file_is_the_cost_ledger_of_a_search(tmp_path):
  out = tmp_path / 'costs.json'
  commands_test.run('benchmark', '--quick', '--suite=activations', f'--out={out}')
  written = json.loads(out.read_text())
  values = {row['name']: row['value'] for row in written['rows']}
  for kind in ('relu', 'degree2', 'degree3'):
    assert values[f'bytes/{kind}'] > 1
    seconds = 1e-6 * values[f'compute/{kind}'] + 8 * values[f'bytes/{kind}'] / 1e9
    assert written['seconds_per_activation'][kind] == pytest.approx(seconds)
  model = score.cost_model('measured', out)
  assert model.degree0 == 0 and 0 < model.degree2 < model.degree3
  assert model.relu == pytest.approx(1e6 * written['seconds_per_activation']['relu'])


def test_a_slower_network_makes_activations_dearer_by_their_bytes():
  def costs(bandwidth):
    with flagsaver.flagsaver():
      flags.FLAGS.mark_as_parsed()
      flags.FLAGS.quick, flags.FLAGS.bandwidth = True, bandwidth
      return {row.name: row.value for row in activations.rows()}

  slow = costs(1e4)
  sent = 8 * slow['bytes/relu'] / 1e4
  assert slow[f'{benchmarks.COSTS}relu'] == pytest.approx(sent, rel=0.05)

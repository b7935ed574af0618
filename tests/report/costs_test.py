"""Seconds and bytes of an inference, and over a network."""

import pytest

from safenet_jax.protocol.estimate import links
from safenet_jax.report import costs
from safenet_jax.report.runs import Run
from tests.support import workdirs


def test_a_phase_is_the_mean_of_its_images():
  found = costs.of_phase(workdirs.ledger(0.25, 0.75, 3_000_000), 'online', 4)
  assert found == costs.Cost(0.25, 0.0625, 750_000, 0.25)


def test_a_link_adds_bytes_at_its_rate_and_a_round_trip_for_each_round():
  cost = costs.Cost(seconds=2.0, linear_seconds=None, bytes=25e6, rounds=3)
  assert cost.over(links.Link('', 1e8, 0.04)) == pytest.approx(2 + 2 + 0.12)
  assert cost._replace(rounds=None).over(links.LAN) is None


def test_two_processes_go_before_the_simulator_whose_offline_phase_is_dealt():
  simulated, client = workdirs.simulated(), workdirs.ledger() | {'images': 2}
  run = Run('run', workdirs.config(), ledger=simulated)
  assert set(costs.of_run(run)[1]) == {'online'}
  run = Run('run', workdirs.config(), ledger=simulated, client=client)
  assert set(costs.of_run(run)[1]) == {'offline', 'online'}
  assert costs.of_run(Run('run', workdirs.config())) is None


def test_an_inference_is_the_mean_of_those_of_two_processes():
  simulated, client = workdirs.simulated(), workdirs.ledger() | {'images': 2, 'agreement': 2}
  client['phases']['setup'] = client['phases']['online']
  found = costs.inference(Run('run', workdirs.config(), ledger=simulated, client=client))
  assert found['agreement'] == found['images'] == 2
  for phase in ('offline', 'online'):
    assert found['phases'][phase]['bytes'] == client['phases'][phase]['bytes'] / 2
    assert found['phases'][phase]['rounds'] == client['phases'][phase]['rounds'] / 2
  assert found['phases']['setup'] == client['phases']['setup']  # once a connection
  assert sum(r['bytes'] for r in found['rows']) == sum(r['bytes'] for r in client['rows']) / 2
  assert costs.inference(Run('run', workdirs.config(), ledger=simulated)) == simulated
  assert costs.inference(Run('run', workdirs.config())) is None


def test_a_plan_that_was_not_measured_has_no_cost():
  rows = [{'suite': 'inference', 'name': 'cnn7/all_relu/offline_s', 'value': 1.0}]
  assert costs.of_benchmark(rows, 'cnn7/all_relu') is None

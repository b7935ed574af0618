"""The inference benchmark on a network small enough for a test."""

from absl import flags
import pytest

from experiments.benchmarks import inference


@pytest.mark.parametrize('mode', ['delphi', 'gazelle'])
def test_a_measured_inference_has_both_parties_in_it(mode):
  record = inference.measure(mode, 'channel-wise 80 %', 0.0625, 1)
  for phase in ('offline', 'online'):
    rows = [row for row in record['rows'] if row['phase'] == phase]
    for party in ('client', 'server'):
      mine = [row for row in rows if row['party'] == party]
      assert sum(row['bytes'] for row in mine) > 0
      assert sum(row['cpu_seconds'] for row in mine) > 0
  # Delphi's client sends no ciphertext online.
  encrypted = any(
    row['primitive'] == 'linear' and row['phase'] == 'online' and row['bytes']
    for row in record['rows']
  )
  assert encrypted == (mode == 'gazelle')


def test_rows_are_named_by_phase_party_and_plan(monkeypatch):
  flags.FLAGS(['test'], known_only=True)
  empty = {'phase': 'online', 'party': 'client', 'bytes': 2e6, 'cpu_seconds': 3, 'wall_seconds': 4}
  monkeypatch.setattr(inference, 'measure', lambda *unused: {'rows': [empty]})
  rows = {row.name: row.value for row in inference.rows()}
  assert rows['online_up/cnn7/all ReLU'] == 0.5  # MB of four images
  assert rows['online_cpu_client/cnn7/gazelle/all ReLU'] == 0.75
  assert rows['offline_wall/cnn7/all square'] == 0

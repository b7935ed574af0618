"""The inference benchmark on a network small enough for a test."""

from absl import flags
import pytest

from experiments.benchmarks import inference


@pytest.mark.parametrize('mode', ['delphi', 'gazelle'])
def test_a_measured_inference_has_both_parties_in_it(mode):
  record = inference.measure(mode, 'channel_80', 0.0625, 1)
  assert record['images'] == record['agree'] == 1
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


def test_rows_are_named_by_network_plan_and_quantity(monkeypatch):
  flags.FLAGS(['test'], known_only=True)
  row = {
    'phase': 'online', 'party': 'client', 'primitive': 'labels', 'bytes': 2e6, 'cpu_seconds': 3,
    'wall_seconds': 3,
  }
  linear = row | {'primitive': 'linear', 'bytes': 0, 'cpu_seconds': 0, 'wall_seconds': 1}
  record = {'rows': [row, linear, row | {'party': 'server'}], 'images': 4, 'agree': 3}
  monkeypatch.setattr(inference, 'measure', lambda *unused: record)
  rows = {row.name: row.value for row in inference.rows()}
  assert rows['cnn7/all_relu/online_mb'] == 1.0  # of both parties, each of four images
  assert rows['cnn7/channel_80/online_s'] == rows['cnn7/channel_80/total_s'] == 1.0
  assert rows['cnn7/all_relu/online_linear_s'] == 0.25
  assert rows['cnn7/gazelle_all_relu/online_cpu_client_s'] == 0.75
  assert rows['cnn7/layerwise/offline_s'] == 0 and rows['cnn7/all_polynomial/agree'] == 0.75

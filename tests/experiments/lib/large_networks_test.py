"""The large networks' suite on a small one: every row is there, and the picture is drawn."""

import pytest

from experiments.lib import large_networks
from safenet_jax.models import layers, network

SMALL = network.Network(
  (layers.Conv(4), layers.Activation(), layers.Flatten(), layers.Dense(3)), (8, 8, 3)
)


def test_rows_of_a_small_network_and_their_picture(monkeypatch, tmp_path):
  monkeypatch.setattr(large_networks, 'NETWORKS', {'small': lambda: SMALL})
  rows = list(large_networks.rows(['small']))
  values = {row.name.removeprefix('small/all_relu/'): row.value for row in rows}
  assert values['relus'] == 4 * 8 * 8
  assert values['macs'] == 8 * 8 * 9 * 3 * 4 + 8 * 8 * 4 * 3
  for mode in large_networks.MODES:
    assert values[f'{mode}/agree'] == 1
    assert values[f'{mode}/offline_mb'] > values[f'{mode}/online_mb'] > 0
    assert values[f'{mode}/server_cpu_s'] > 0 and values[f'{mode}/client_cpu_s'] > 0
    assert values[f'{mode}/disk_mb'] >= 0 and values[f'{mode}/client_peak_mb'] > 0
    # 40 ms for each round trip, of which there are five or more.
    assert values[f'{mode}/wan_floor_s'] > 5 * 40e-3 > values[f'{mode}/lan_floor_s']
  large_networks.draw(rows, tmp_path / 'cost.png')
  assert (tmp_path / 'cost.png').read_bytes().startswith(b'\x89PNG')


def test_an_unknown_network_is_refused():
  with pytest.raises(ValueError, match='--large=alexnet, want some of resnet18_64'):
    list(large_networks.rows(['alexnet']))

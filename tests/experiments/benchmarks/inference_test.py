"""The inference benchmark on a network small enough for a test."""

from absl import flags
import pytest

from experiments.benchmarks import inference


@pytest.fixture(scope='module', params=['delphi', 'gazelle', 'ot'])
def mode(request):
  return request.param


@pytest.fixture(scope='module')
def records(mode):
  """One inference on the loopback and one over a link, by the same server."""
  return dict(inference.measure(mode, 'channel_80', 0.0625, {'loopback': 1, 'wan': 1}))


def test_a_measured_inference_has_both_parties_in_it(mode, records):
  record = records['loopback']
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
    'phase': 'online',
    'party': 'client',
    'primitive': 'labels',
    'bytes': 2e6,
    'cpu_seconds': 3,
    'wall_seconds': 3,
  }
  linear = row | {'primitive': 'linear', 'bytes': 0, 'cpu_seconds': 0, 'wall_seconds': 1}
  record = {'rows': [row, linear, row | {'party': 'server'}], 'images': 4, 'agree': 3}
  phases = {phase: {'sent': {'client': 5e6, 'server': 2e6}} for phase in ('offline', 'online')}
  record |= {'phases': phases, 'rounds': {'offline': 12, 'online': 32}}
  monkeypatch.setattr(
    inference, 'measure', lambda *unused: [(link, record) for link in inference.LINKS]
  )
  found = {row.name: row for row in inference.rows()}
  rows = {name: row.value for name, row in found.items()}
  assert rows['cnn7/all_relu/online_mb'] == 1.0  # of both parties, each of four images
  assert rows['cnn7/channel_80/online_s'] == rows['cnn7/channel_80/total_s'] == 1.0
  assert rows['cnn7/all_relu/online_linear_s'] == 0.25
  assert rows['cnn7/gazelle_all_relu/online_cpu_client_s'] == 0.75
  assert rows['cnn7/layerwise/offline_s'] == 0 and rows['cnn7/all_polynomial/agree'] == 0.75
  # Over links: what was measured, beside bytes of the busier direction and rounds.
  lan, wan = found['cnn7/all_relu/lan_online_s'], found['cnn7/gazelle_channel_80/wan_total_s']
  assert lan.value == 1.0 and lan.floor == pytest.approx((5e6 * 8 / 1e9 + 32e-3) / 4)
  assert wan.value == 1.0
  assert wan.floor == pytest.approx((2 * 5e6 * 8 / 100e6 + (12 + 32) * 40e-3) / 4)


def test_a_link_is_waited_for(mode, records):
  """Measured, and not computed: over the link it takes longer than its floor, and than without."""
  near, far = records['loopback'], records['wan']
  for phase in ('offline', 'online'):
    least = inference.floor(far, phase, *inference.LINKS['wan'])
    seconds, before = (inference.quantities(record)[f'{phase}_s'][0] for record in (far, near))
    assert seconds > least > far['rounds'][phase] * 0.04 > 0
    assert far['phases'][phase]['sent'] == near['phases'][phase]['sent']
  # That many round trips, beside a few milliseconds of work. In a network so narrow one of the
  # seven layers has no ReLU left, so that six of them take a second one in the mode ot.
  assert far['rounds']['online'] == {'delphi': 8, 'gazelle': 15, 'ot': 14}[mode]
  assert seconds > before + 0.2
  assert far['agree'] == near['agree'] == 1

"""Tables 2 to 4: three columns that never mix."""

import pytest

from safenet_jax.report import comparison, runs
from safenet_jax.report.document import NOT_RUN, NOTHING
from tests.support import workdirs


def cells(table, system):
  """Published, modelled and measured by quantity."""
  return {row[1]: row[2:] for row in table.rows if row[0] == system}


def loaded(tmp_path, algorithm='btpbt', **files):
  return runs.load(
    workdirs.write(tmp_path, workdirs.config(algorithm=algorithm), metrics=workdirs.log(), **files)
  )


@pytest.mark.parametrize('number', [2, 3, 4])
def test_without_runs_only_the_published_column_has_numbers(number):
  table = comparison.table(number, [])
  assert table.header == ('system', 'quantity', 'published', 'modelled', 'measured')
  assert list(dict.fromkeys(row[0] for row in table.rows)) == [
    'Gazelle',
    'Delphi',
    'Delphi-Fast',
    'SAFENet',
  ]
  for system, quantity, _, modelled, measured in table.rows:
    assert measured == (NOTHING if quantity == comparison.COST_MODEL else NOT_RUN)
    # That every activation is a ReLU needs no run.
    if (system, quantity) != ('Gazelle', comparison.COST_MODEL):
      assert modelled in (NOTHING, NOT_RUN)


def test_printed_values_are_kept_where_they_do_not_add_up():
  assert cells(comparison.table(2, []), 'Delphi')['total (s)'][0] == '95.4'
  assert cells(comparison.table(4, []), 'Delphi-Fast')['offline, total (s)'][0] == '175.1'


def test_a_plan_of_80_percent_is_modelled_as_the_paper_does(tmp_path):
  found = cells(comparison.table(2, loaded(tmp_path, plan=workdirs.plan(16, 3))), 'SAFENet')
  kept = 1 - sum(workdirs.plan(16)['replaced']) / sum(workdirs.CNN7)
  share = kept + (1 - kept) * 0.2 / 20.1
  assert float(found['offline, MPC-Act (s)'][1]) == pytest.approx(91 * share, rel=0.01)
  assert float(found['online, MPC-Act (s)'][1]) == pytest.approx(9 * share, rel=0.01)
  assert found['offline, HE-Linear (s)'][1] == '37'
  assert float(found['total (s)'][1]) == pytest.approx(37 + 100 * share, rel=0.01)
  assert float(found[comparison.COST_MODEL][1]) == pytest.approx(173056 * 20.1e-6 * share, rel=0.01)
  # The printed cells are 0.2 of Gazelle's.
  assert float(found['online, MPC-Act (s)'][1]) == pytest.approx(1.8, abs=0.1)
  assert found['accuracy (%)'] == ['85.1', NOTHING, '84.00 (validation)']
  assert found['total (s)'][2] == NOT_RUN


def test_two_processes_measure_both_phases_and_linear_layers_apart(tmp_path):
  client = workdirs.ledger() | {'images': 2, 'mode': 'client'}
  both = loaded(tmp_path, plan=workdirs.plan(), ledger=workdirs.simulated(), client_ledger=client)
  found = cells(comparison.table(2, both), 'SAFENet')
  measured = {quantity: values[2] for quantity, values in found.items()}
  assert measured['offline, HE-Linear (s)'] == measured['online, HE-Linear (s)'] == '0.125'
  assert measured['online, MPC-Act (s)'] == '0.375' and measured['online, total (s)'] == '0.5'
  assert measured['total (s)'] == '1' and measured['online traffic (MB)'] == '1'
  assert 'two processes' in measured['taken from']


def test_what_a_dealer_hands_out_is_no_measured_offline_phase(tmp_path):
  simulated = loaded(tmp_path, plan=workdirs.plan(), ledger=workdirs.simulated())
  found = cells(comparison.table(2, simulated), 'SAFENet')
  assert found['online, total (s)'][2] == '1'
  assert found['offline, total (s)'][2] == found['total (s)'][2] == NOT_RUN


def test_runs_of_other_widths_or_images_are_in_no_table(tmp_path):
  narrow = workdirs.plan(counts=[n // 4 for n in workdirs.CNN7], channels=[16] * 6 + [4])
  others = [
    (workdirs.config(width=0.25), narrow),
    (workdirs.config(dataset='fashion_mnist'), workdirs.plan()),
  ]
  for i, (settings, plan) in enumerate(others):
    found = runs.load(workdirs.write(tmp_path / str(i), settings, plan=plan))
    assert comparison.table(2, found) == comparison.table(2, [])


def test_gazelle_is_the_benchmarks_mode_and_the_all_relu_networks_accuracy(tmp_path):
  rows = [
    {'suite': 'inference', 'name': f'cnn7/gazelle_all_relu/{quantity}', 'value': value}
    for quantity, value in {
      'offline_s': 0.25,
      'online_s': 0.75,
      'online_linear_s': 0.5,
      'offline_mb': 70,
      'online_mb': 80,
    }.items()
  ]
  found = cells(comparison.table(2, loaded(tmp_path), rows), 'Gazelle')
  assert found['total (s)'] == ['137', NOTHING, '1']
  assert found['online, MPC-Act (s)'][2] == '0.25'
  assert found['offline, MPC-Act (s)'][2] == 'not counted apart'
  assert found['accuracy (%)'][2] == '80.00 (validation)'


@pytest.mark.parametrize(
  'algorithm, system',
  [
    ('layerwise', 'Delphi'),
    ('layerwise_released', 'Delphi'),
    ('layerwise_fast', 'Delphi-Fast'),
    ('cw_mp_md', 'SAFENet'),
  ],
)
def test_a_planner_fills_the_row_of_its_system_alone(tmp_path, algorithm, system):
  table = comparison.table(2, loaded(tmp_path, algorithm, plan=workdirs.plan()))
  filled = {
    name
    for name in ('Delphi', 'Delphi-Fast', 'SAFENet')
    if cells(table, name)['accuracy (%)'][2] != NOT_RUN
  }
  assert filled == {system}

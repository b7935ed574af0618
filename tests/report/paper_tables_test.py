"""Table 1 has every system, and Tables 2 to 4 three columns that never mix."""

import pytest

from safenet_jax.report import paper_tables, published, runs
from safenet_jax.report.document import NOT_RUN, NOTHING
from safenet_jax.search.planners import algorithms
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
  table = paper_tables.latency(number, [])
  assert table.header == ('system', 'quantity', 'published', 'modelled', 'measured')
  assert list(dict.fromkeys(row[0] for row in table.rows)) == [
    'Gazelle',
    'Delphi',
    'Delphi-Fast',
    'SAFENet',
  ]
  for system, quantity, _, modelled, measured in table.rows:
    assert measured == (NOTHING if quantity == paper_tables.COST_MODEL else NOT_RUN)
    # That every activation is a ReLU needs no run.
    if (system, quantity) != ('Gazelle', paper_tables.COST_MODEL):
      assert modelled in (NOTHING, NOT_RUN)


def test_printed_values_are_kept_where_they_do_not_add_up():
  assert cells(paper_tables.latency(2, []), 'Delphi')['total (s)'][0] == '95.4'
  assert cells(paper_tables.latency(4, []), 'Delphi-Fast')['offline, total (s)'][0] == '175.1'


def test_a_plan_of_80_percent_is_modelled_as_the_paper_does(tmp_path):
  found = cells(paper_tables.latency(2, loaded(tmp_path, plan=workdirs.plan(16, 3))), 'SAFENet')
  kept = 1 - sum(workdirs.plan(16)['replaced']) / sum(workdirs.CNN7)
  share = kept + (1 - kept) * 0.2 / 20.1
  assert float(found['offline, MPC-Act (s)'][1]) == pytest.approx(91 * share, rel=0.01)
  assert float(found['online, MPC-Act (s)'][1]) == pytest.approx(9 * share, rel=0.01)
  assert found['offline, HE-Linear (s)'][1] == '37'
  assert float(found['total (s)'][1]) == pytest.approx(37 + 100 * share, rel=0.01)
  assert float(found[paper_tables.COST_MODEL][1]) == pytest.approx(
    173056 * 20.1e-6 * share, rel=0.01
  )
  # The printed cells are 0.2 of Gazelle's.
  assert float(found['online, MPC-Act (s)'][1]) == pytest.approx(1.8, abs=0.1)
  assert found['accuracy (%)'] == ['85.1', NOTHING, '84.00 (validation)']
  assert found['total (s)'][2] == NOT_RUN


def test_two_processes_measure_both_phases_and_linear_layers_apart(tmp_path):
  client = workdirs.ledger() | {'images': 2, 'mode': 'client'}
  both = loaded(tmp_path, plan=workdirs.plan(), ledger=workdirs.simulated(), client_ledger=client)
  found = cells(paper_tables.latency(2, both), 'SAFENet')
  measured = {quantity: values[2] for quantity, values in found.items()}
  assert measured['offline, HE-Linear (s)'] == measured['online, HE-Linear (s)'] == '0.125'
  assert measured['online, MPC-Act (s)'] == '0.375' and measured['online, total (s)'] == '0.5'
  assert measured['total (s)'] == '1' and measured['online traffic (MB)'] == '1'
  assert 'two processes' in measured['taken from']


def test_printed_totals_are_as_much_less_as_the_paper_claims():
  found = {number: paper_tables.latency(number, []) for number in (2, 3, 4)}
  less = {
    number: [
      cells(table, 'SAFENet')[f'total less than {other} (%)'][0] for other in ('Gazelle', 'Delphi')
    ]
    for number, table in found.items()
  }
  # Of Gazelle's total: the text says 61, 48 and 47 %, of Delphi's.
  assert less == {2: ['61', '44'], 3: ['49', '40'], 4: ['47', '38']}
  assert cells(found[2], 'Delphi')['total less than Gazelle (%)'] == ['30', NOT_RUN, NOT_RUN]
  assert 'total less than Delphi (%)' not in cells(found[2], 'Delphi')
  assert 'total less than Gazelle (%)' not in cells(found[2], 'Gazelle')


def test_measured_totals_are_compared_with_measured_ones(tmp_path):
  def run(algorithm, seconds):
    client = workdirs.ledger(seconds / 4, seconds / 4) | {'images': 1, 'mode': 'client'}
    settings = workdirs.config(algorithm=algorithm)
    files = {'plan': workdirs.plan(), 'client_ledger': client}
    return runs.load(workdirs.write(tmp_path / algorithm, settings, **files))

  both = [*run('layerwise', 4.0), *run('btpbt', 3.0)]
  found = cells(paper_tables.latency(2, both), 'SAFENet')
  assert found['total less than Delphi (%)'][2] == '25'
  assert found['total less than Gazelle (%)'][2] == NOT_RUN
  # 2 MB and one round trip in each of both phases, over 100 Mbit/s and 40 ms.
  assert float(found[paper_tables.SLOW][2]) == pytest.approx(3 + 2 * (0.16 + 0.04))
  less = 100 * (1 - 3.4 / 4.4)
  assert found['over that network less than Delphi (%)'][2] == f'{less:.0f}'


def test_gazelle_is_served_from_a_run_that_replaces_nothing(tmp_path):
  client = workdirs.ledger() | {'images': 2, 'mode': 'client', 'served': 'gazelle'}
  rows = [
    {'suite': 'inference', 'name': f'cnn7/gazelle_all_relu/{quantity}', 'value': 9.0}
    for quantity in ('offline_s', 'online_s', 'offline_mb', 'online_mb')
  ]
  files = {'client_ledger': client}
  nothing = loaded(tmp_path / 'a', plan=workdirs.plan(0), **files)
  found = cells(paper_tables.latency(2, nothing, rows), 'Gazelle')
  assert found['total (s)'][2] == '1' and 'two processes, mean of 2' in found['taken from'][2]
  assert found['accuracy (%)'][2] == '80.00 (validation)'
  # Under another plan, or in another mode, it is not Gazelle's.
  for name, plan, served in (('b', 16, 'gazelle'), ('c', 0, 'ot')):
    files = {'client_ledger': client | {'served': served}}
    other = loaded(tmp_path / name, plan=workdirs.plan(plan), **files)
    assert cells(paper_tables.latency(2, other, rows), 'Gazelle')['online, total (s)'][2] == '9'


def test_every_seed_of_a_system_has_its_accuracy_in_the_row(tmp_path):
  both = []
  for seed, accuracy in enumerate((0.9, 0.88)):
    score = {'phase': 'finetune', 'split': 'test', 'accuracy': accuracy}
    files = {'plan': workdirs.plan(), 'evaluations': [score]}
    both += runs.load(workdirs.write(tmp_path / str(seed), workdirs.config(), **files))
  found = cells(paper_tables.latency(2, both), 'SAFENet')
  assert found['accuracy (%)'][2] == '90.00 (test), 88.00 (test)'
  assert found['taken from'][2] == 'run 0'


def test_what_a_dealer_hands_out_is_no_measured_offline_phase(tmp_path):
  simulated = loaded(tmp_path, plan=workdirs.plan(), ledger=workdirs.simulated())
  found = cells(paper_tables.latency(2, simulated), 'SAFENet')
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
    assert paper_tables.latency(2, found) == paper_tables.latency(2, [])


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
  found = cells(paper_tables.latency(2, loaded(tmp_path), rows), 'Gazelle')
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
  table = paper_tables.latency(2, loaded(tmp_path, algorithm, plan=workdirs.plan()))
  filled = {
    name
    for name in ('Delphi', 'Delphi-Fast', 'SAFENet')
    if cells(table, name)['accuracy (%)'][2] != NOT_RUN
  }
  assert filled == {system}


def test_gates_stand_in_for_a_tree_that_was_not_run_and_the_row_says_so(tmp_path):
  gates = loaded(tmp_path / 'gates', 'gates_budget', plan=workdirs.plan())
  tree = loaded(tmp_path / 'tree', plan=workdirs.plan())
  for found, source in ((gates, 'run gates, by gates_budget instead'), (gates + tree, 'run tree')):
    row = cells(paper_tables.latency(2, found), 'SAFENet')
    assert row['taken from'][2] == source
    assert row['accuracy (%)'][2] != NOT_RUN and row['online, total (s)'][1] != NOT_RUN


def measured(found, benchmark=()):
  table = paper_tables.systems(found, benchmark)
  column = table.header.index('measured here')
  return {row[0].removesuffix(' *'): row[column] for row in table.rows}


def test_every_system_says_what_runs_here_and_its_marks():
  table = paper_tables.systems([])
  assert [row[0].removesuffix(' *') for row in table.rows] == list(paper_tables.HERE)
  assert set(paper_tables.HERE) == {system.name for system in published.systems()}
  assert 'batched HE' in table.header
  marks = {row[0]: row[1:7] for row in table.rows}
  assert marks['SAFENet'] == ['✓'] * 6 and marks['InstaHide'] == ['✗'] + ['–'] * 5
  assert marks['Gazelle'] == ['✓', '✓', '✗', '✗', '✗', '✗'] and 'XONN *' in marks


def test_algorithms_named_in_the_table_exist():
  named = {name for names in paper_tables.ALGORITHMS.values() for name in names} - {'all-ReLU'}
  named |= {name for system in paper_tables.SYSTEMS.values() for name in system.instead}
  assert named <= set(algorithms.NAMES)


def test_a_system_that_could_run_and_has_not_says_so():
  found = measured([])
  for name in ('Gazelle', 'CONAD', 'Delphi', 'CryptoNAS', 'SAFENet'):
    assert found.pop(name) == NOT_RUN
  assert set(found.values()) == {NOTHING}


def test_runs_and_benchmarks_are_beside_their_system(tmp_path):
  settings = workdirs.config(algorithm='budget')
  (run,) = runs.load(workdirs.write(tmp_path, settings, plan=workdirs.plan(20)))
  rows = [
    {'suite': 'inference', 'name': f'cnn7/all_relu/{name}', 'value': 0.5}
    for name in ('offline_s', 'online_s', 'offline_mb', 'online_mb')
  ]
  found = measured([run] * 6, rows)
  assert found['CryptoNAS'].startswith('cnn7 on cifar10, budget: 100.0% replaced, 84.0% validation')
  assert found['CryptoNAS'].endswith('and 2 more runs')
  assert found['Delphi'] == '`cnn7/all_relu`, random weights: 0.50 s offline, 0.50 s online'
  assert found['SAFENet'] == NOT_RUN

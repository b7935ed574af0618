"""Table 1: every system, and what of it runs here."""

from safenet_jax.report import published, runs, systems
from safenet_jax.report.document import NOT_RUN, NOTHING
from safenet_jax.search import algorithms
from tests.support import workdirs


def measured(found, benchmark=()):
  table = systems.table(found, benchmark)
  column = table.header.index('measured here')
  return {row[0].removesuffix(' *'): row[column] for row in table.rows}


def test_every_system_says_what_runs_here_and_its_marks():
  table = systems.table([])
  assert [row[0].removesuffix(' *') for row in table.rows] == list(systems.HERE)
  assert set(systems.HERE) == {system.name for system in published.systems()}
  assert 'batched HE' in table.header
  marks = {row[0]: row[1:7] for row in table.rows}
  assert marks['SAFENet'] == ['✓'] * 6 and marks['InstaHide'] == ['✗'] + ['–'] * 5
  assert marks['Gazelle'] == ['✓', '✓', '✗', '✗', '✗', '✗'] and 'XONN *' in marks


def test_algorithms_named_in_the_table_exist():
  named = {name for names in systems.ALGORITHMS.values() for name in names} - {'all-ReLU'}
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

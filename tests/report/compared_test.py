"""Records of the other systems become rows, points and phrases; those kept are whole."""

import pathlib

from safenet_jax.report import compared, document, page, paper_tables, published, runs
from safenet_jax.report.document import NOTHING, Picture, Table

KEPT = pathlib.Path(__file__).parents[2] / 'experiments/results/systems'

PHASES = {
  'setup': {'bytes': 1_000, 'rounds': 1, 'cpu_seconds': 0.5},
  'online': {'bytes': 2_000_000, 'rounds': 1, 'cpu_seconds': 3.0},
}
MEASURED = {
  'system': 'CryptoNets',
  'network': 'conv 5, square',
  'dataset': 'Fashion-MNIST',
  'accuracy': 0.853,
  'seconds': {'offline': 1.25, 'online': 80.0},
  'images': 8192,
  'checked': 8192,
  'agreement': 8192,
  'shown': 'number of classes',
  'ledger': {'phases': PHASES},
}
MODELLED = {
  'system': 'TAPAS, SHE',
  'network': 'BM1: dense',
  'dataset': 'Fashion-MNIST',
  'accuracy': 0.832,
  'gates': 4_000_000,
  'modelled_cpu_seconds': 160_000.0,
}


def test_a_row_has_what_was_measured_and_a_model_says_that_it_is_one():
  measured, modelled = compared.table([MEASURED, MODELLED]).rows
  assert measured[3:] == [
    '85.3',
    '1.25',
    '80.00 for 8,192 images',
    '0.00977',
    '3.5',
    '2.00 MB',
    '2',
    '8,192 of 8,192',
    'number of classes',
  ]
  assert 'modelled: 160,000' in modelled and '4,000,000 gates' in modelled


def test_table_1_tells_what_was_measured_of_each_system():
  table = paper_tables.systems([], others=[MEASURED, MODELLED])
  place = table.header.index('measured here')
  found = {row[0].removesuffix(' *'): row[place] for row in table.rows}
  assert found['CryptoNets'] == (
    'conv 5, square: 85.3 % on Fashion-MNIST, 1.25 s offline, 80.00 s online for 8,192 images'
  )
  assert (
    found['TAPAS']
    == found['SHE']
    == ('BM1: dense: 83.2 % on Fashion-MNIST, modelled, 160,000 s of CPU')
  )
  assert found['XONN'] == NOTHING


def test_the_picture_has_a_point_for_each_record(tmp_path):
  document.write(tmp_path, 'title', compared.blocks([MEASURED, MODELLED], []))
  rows = (tmp_path / 'report' / 'systems_accuracy.csv').read_text().splitlines()
  assert rows[0] == 'name,dataset,seconds,accuracy' and len(rows) == 3
  assert rows[1].startswith('"CryptoNets conv 5 (each of 8,192)",Fashion-MNIST,0.009765625,85.3')
  assert (tmp_path / 'report' / 'systems_accuracy.png').read_bytes().startswith(b'\x89PNG')


def test_runs_are_points_too_on_any_number_of_data_sets(tmp_path):
  found = runs.load(KEPT.parent / 'cnn7_cifar10_80')
  records = [{**MEASURED, 'dataset': f'data {k}'} for k in range(8)]
  document.write(tmp_path, 'title', compared.blocks(records, found))
  rows = (tmp_path / 'report' / 'systems_accuracy.csv').read_text().splitlines()
  assert len(rows) == 10 and rows[-1].startswith('cnn7_cifar10_80,CIFAR-10,0.')


def test_without_records_a_report_has_no_such_table():
  names = {getattr(block, 'name', '') for block in document.flat(page.blocks([], {}))}
  assert 'table_1' in names and not names & {'systems', 'systems_accuracy'}
  others = document.flat(page.blocks([], {}, [MEASURED]))
  assert {type(b) for b in others if getattr(b, 'name', '').startswith('systems')} == {
    Table,
    Picture,
  }


def test_what_is_kept_agrees_with_plaintext_and_names_systems_of_table_1():
  records = compared.load(KEPT)
  names = {system.name for system in published.systems()}
  assert {'XONN', 'Soteria'} <= {record['system'] for record in records}
  for record in records:
    assert set(record['system'].split(', ')) <= names
    if 'gates' not in record:
      assert record['agreement'] == record['checked'] > 0
    assert 0 < record['accuracy'] < 1 and len(record['commit']) >= 40

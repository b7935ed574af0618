"""Tables and figures from small records."""

import csv

import pytest

from safenet_jax.report import figures, tables
from safenet_jax.transport import ledger as ledgers

PLAN = {
  'activations': [800, 200],
  'channels': [8, 4],
  'ratio': [10, 20],
  'degree': [2, 0],
  'replaced': [400, 200],
  'validation_accuracy': {'control': 0.9, 'planned': 0.89, 'pretrained': 0.88},
}


def ledger():
  found = ledgers.Ledger()
  found.send('offline', 'conv0', 'tables', 'server', b'x' * 1000)
  found.send('online', 'conv0', 'labels', 'client', b'x' * 50)
  found.send('online', 'conv0', 'words', 'server', [1, 2, 3], bits=28)
  with found.step('online', 'conv0', 'linear', 'server'):
    pass
  return found.record() | {'agreement': 3, 'images': 3, 'correct': 2}


def test_ledger_adds_up_bytes_messages_and_rounds():
  record = ledger()
  assert record['phases']['offline'] | {'wall_seconds': 0, 'cpu_seconds': 0} == {
    'bytes': 1000,
    'messages': 1,
    'wall_seconds': 0,
    'cpu_seconds': 0,
    'rounds': 1,
    'sent': {'server': 1000},
  }
  online = record['phases']['online']
  assert online['bytes'] == 50 + 11 and online['messages'] == 2 and online['rounds'] == 1
  assert online['wall_seconds'] > 0


def test_summary_counts_pruned_channels_apart():
  rows = dict(tables.summary(PLAN, ledger()))
  assert rows['ReLUs replaced'] == '60.0% of 1,000'
  assert rows['- by polynomials'] == '40.0%'
  assert rows['- pruned'] == '20.0%'
  assert rows['private class equals plaintext fixed point'] == '3 of 3'


def test_the_accuracy_wanted_is_met_missed_or_not_checked():
  def row(plan):
    return dict(tables.summary(plan, ledger()))['accuracy wanted, A_t (validation)']

  assert row(PLAN) == 'not checked'
  for feasible, word in ((True, 'met'), (False, 'MISSED')):
    found = row(PLAN | {'threshold': {'accuracy': 0.875, 'feasible': feasible}})
    assert found == f'87.50%: {word} after fine-tuning'


def test_test_scores_are_those_on_record_and_repetitions_are_marked():
  def record(phase, accuracy, split='test'):
    return {'phase': phase, 'split': split, 'accuracy': accuracy}

  records = [record('finetune', 0.9, 'validation'), record('finetune', 0.8), record('thin', 0.7)]
  thin = {'activations': [300, 75], 'budget': 400, 'width': 0.375, 'validation_accuracy': 0.71}
  rows = dict(tables.summary(PLAN, ledger(), records, thin))
  assert rows['planned accuracy (test)'] == '80.00%'
  assert rows['thin all-ReLU network, ReLUs'] == '375 where the plan leaves 400 (width 0.375)'
  assert rows['thin all-ReLU network, accuracy (test)'] == '70.00%'
  rows = dict(tables.summary(PLAN, ledger(), [*records, record('finetune', 0.81)]))
  assert rows['planned accuracy (test)'] == '81.00% (test images scored 2 times)'
  assert rows['thin all-ReLU network'] == 'not run'
  assert dict(tables.summary(PLAN, ledger()))['planned accuracy (test)'] == 'not run'


def test_tables_are_markdown():
  text = tables.markdown(*tables.layers(PLAN))
  lines = text.splitlines()
  assert lines[1] == '| --- | --- | --- | --- | --- | --- |'
  assert lines[2] == '| 1 | 800 | 50% | 2 | 400 | 4 of 8 |'
  assert '1.00 kB' in tables.markdown(*tables.costs(ledger()))


@pytest.mark.parametrize(
  'draw, columns',
  [
    (
      lambda axes: figures.learning_curve(axes, {'a': [(1, 0.5), (2, 0.6)]}),
      ['phase', 'epoch', 'accuracy'],
    ),
    (lambda axes: figures.plan(axes, [0.5, 1.0], [2, 0]), ['layer', 'ratio', 'degree']),
    (
      lambda axes: figures.cost_by_layer(axes, ['conv0'], {'online': [10.0]}),
      ['layer', 'online_bytes'],
    ),
  ],
)
def test_figures_write_a_picture_and_its_data(tmp_path, draw, columns):
  figures.save(tmp_path / 'figure', draw)
  assert (tmp_path / 'figure.png').read_bytes().startswith(b'\x89PNG')
  rows = list(csv.reader((tmp_path / 'figure.csv').open()))
  assert rows[0] == columns and len(rows) > 1

"""The whole report, of a run that is finished, and of one that is not."""

import csv
import dataclasses

import pytest

from safenet_jax.report import document, page, runs
from safenet_jax.report.document import Picture, Table
from tests.report.document_test import Tags
from tests.support import workdirs

BENCHMARK = {
  'machine': {'processor': 'abacus', 'cores': 2, 'memory': '2097152 kB', 'system': 'Linux'},
  'versions': {'python': '3.11', 'numpy': '2.0', 'jax': None},
  'commit': 'c0ffee',
  'rows': [
    {
      'suite': 'ot',
      'name': 'iknp_cot',
      'setting': 'many',
      'value': 49.4,
      'unit': 'ns/OT',
      'floor': 8.0,
      'ratio': 6.175,
    },
    {
      'suite': 'inference',
      'name': 'cnn7/all_relu/online_s',
      'setting': 'one image',
      'value': 0.17,
      'unit': 's',
      'floor': None,
      'ratio': None,
    },
  ],
}
FIGURES = {
  'figure_1b',
  'figure_2',
  'figure_5_cnn7',
  'figure_5_vgg16',
  'figure_6',
  'accuracy_cifar10',
  'accuracy_cifar100',
}


@pytest.fixture(scope='module')
def unfinished(tmp_path_factory):
  """A run that has been pretrained only, on the paper's network and images."""
  path = tmp_path_factory.mktemp('pretrained')
  return runs.load(workdirs.write(path, workdirs.config(), metrics=workdirs.log()))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  metrics = [
    *workdirs.log(),
    *workdirs.log(phase='finetune'),
    *workdirs.searched(
      workdirs.cycle((0, 0.84), (20, 0.8)),
      workdirs.cycle((16, 0.85), (20, 0.81)),
    ),
  ]
  return runs.load(
    workdirs.write(
      tmp_path_factory.mktemp('finished') / 'my run,1',
      workdirs.config(algorithm='layerwise'),
      metrics=metrics,
      plan=workdirs.plan(20),
      ledger=workdirs.simulated(),
    )
  )


@pytest.fixture(scope='module')
def written(finished, tmp_path_factory):
  """The report of the finished run."""
  out = tmp_path_factory.mktemp('report')
  page.write(out, finished, {'mine.json': BENCHMARK})
  return out


def test_the_cost_is_that_of_two_processes_if_these_ran(finished):
  (run,) = finished
  client = workdirs.ledger() | {'images': 2, 'agreement': 2, 'correct': 1, 'truncation_failure': 0}
  for ran, text in (
    (run, 'ran as: simulator.'),
    (dataclasses.replace(run, client=client), 'the mean of 2 test'),
  ):
    texts = [getattr(block, 'text', '') for block in document.flat(page.blocks([ran], {}))]
    assert sum(text in found for found in texts) == 1
    # Old ledgers of clients do not say it.
    assert sum('range of their formats on 4 test images' in found for found in texts) == 1


def named(blocks, kind):
  return {block.name: block for block in document.flat(blocks) if isinstance(block, kind)}


def test_every_table_and_figure_of_the_paper_is_there_without_its_runs(unfinished):
  blocks = page.blocks(unfinished, {})
  assert named(blocks, Picture).keys() >= FIGURES | {'figure_4b'}
  tables = named(blocks, Table)
  assert tables.keys() >= {'table_1', 'table_2', 'table_3', 'table_4', 'slips'}
  texts = [getattr(block, 'text', '') for block in document.flat(blocks)]
  assert any('Plan: not run' in text for text in texts)
  assert any('not run: `python -m experiments.benchmark' in text for text in texts)
  # Its ReLUs are those of the full network.
  assert [
    '173,056',
    'cnn7 on cifar10, all-ReLU',
    '–',
    '–',
    '80.00',
    'this report, validation images',
  ] in tables['accuracy_cifar10_table'].rows
  assert tables['accuracy_cifar100_table'].rows[-1][4] == 'not run'


def test_one_run_is_a_page_with_its_plan_its_costs_and_the_benchmarks(written):
  tags = Tags((written / 'report.html').read_text())
  for text in (
    'cnn7 on cifar10',
    'abacus, 2 cores, 2 GiB, Linux',
    'python 3.11, numpy 2.0',
    'c0ffee',
    'iknp_cot',
    'Cost of one private inference',
    'not run by two processes',
  ):
    assert text in tags.text
  names = {path.stem for path in (written / 'report').glob('*.png')}
  assert names <= {path.stem for path in (written / 'report').glob('*.csv')}
  assert names >= FIGURES | {'figure_4b_cnn7_on_cifar10', 'my_run_1_plan', 'my_run_1_cost'}
  assert len(tags.all('img')) == len(names)


def table(directory, name):
  return list(csv.DictReader((directory / f'report/{name}.csv').open()))


def test_bytes_and_rounds_are_projected_over_networks(written):
  offline, online = table(written, 'my_run_1_links')
  assert offline['seconds'] == 'not run by two processes'
  # 1 s, 2 MB and a round: 16 ms and 160 ms of bytes.
  assert online['LAN, 1 Gbit/s, 1 ms'] == '1.017'
  assert online['WAN, 100 Mbit/s, 40 ms'] == '1.200'


def test_measured_accuracies_by_layers_replaced_are_in_figure_1b(written):
  rows = table(written, 'figure_1b')
  measured = [row['accuracy, measured, cnn7 on cifar10 (my run,1)'] for row in rows]
  assert measured == ['0.84', *[''] * 6, '0.81']
  assert [row['accuracy, published (6L: at least)'] for row in rows] == [
    '0.851',
    *[''] * 5,
    '0.845',
    '',
  ]
  # Six layers hold 41 % with pooling before the activation: Delphi's printed total is 95.4 s.
  total = sum(float(rows[6][f'{name}_s']) for name in ('linear', 'offline', 'online'))
  assert float(rows[6]['replaced']) == pytest.approx(0.413, abs=1e-3)
  assert total == pytest.approx(95.7, abs=0.3)


def test_what_a_search_replaces_is_in_figure_4b(written):
  rows = table(written, 'figure_4b_cnn7_on_cifar10')
  assert [row['member_iterations'] for row in rows] == ['10', '20']
  assert [float(row['mean']) for row in rows] == [1.0, 1.0]


def test_several_runs_are_a_table_and_a_folded_section_each(finished, unfinished, tmp_path):
  page.write(tmp_path / 'out', finished + unfinished, {'mine.json': BENCHMARK})
  tags = Tags((tmp_path / 'out/report.html').read_text())
  assert len(tags.all('details')) == 2
  rows = table(tmp_path / 'out', 'runs')
  assert [row['ReLUs left'] for row in rows] == ['0', 'not run']
  assert rows[0]['A_t'] == 'met' and rows[0]['accuracy'] == '84.00% (validation)'
  assert rows[1]['accuracy'] == '80.00% (validation)'
  assert float(rows[0]['activations, modelled (s)']) == pytest.approx(0.0181, rel=0.01)

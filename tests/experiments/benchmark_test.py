"""The benchmark as a user runs it, at its smallest sizes."""

import functools
import importlib
import json
import math
import re

from absl import flags
from absl.testing import flagsaver
import pytest

from experiments import benchmark, benchmarks
from experiments.benchmarks import he, transport
from tests.experiments import commands_test


@pytest.fixture
def parsed():
  """Flags as a command without any sees them."""
  with flagsaver.flagsaver():
    flags.FLAGS.mark_as_parsed()
    yield flags.FLAGS


def test_a_quick_run_writes_rows_beside_their_floors(tmp_path):
  out = tmp_path / 'rows.json'
  found = commands_test.run('benchmark', '--quick', '--suite=garbling,ot', f'--out={out}')
  written = json.loads(out.read_text())
  assert set(written) == {'machine', 'versions', 'commit', 'rows'}
  assert written['versions']['numpy'] and written['machine']['cores'] > 0
  rows = {row['name']: row for row in written['rows']}
  assert rows.keys() >= {
    'garble_and',
    'evaluate_and',
    'garble_memory',
    'iknp_cot',
    'softspoken_cot',
  }
  for name, row in rows.items():
    assert set(row) == {'suite', 'name', 'setting', 'value', 'unit', 'floor', 'ratio'}
    assert row['value'] > 0 and row['ratio'] == pytest.approx(row['value'] / row['floor'])
    assert name in found.stdout and row['setting'] in found.stdout
  # No process does its work in less than what it is compared with.
  for name in ('garble_and', 'evaluate_and', 'iknp_cot', 'softspoken_cot'):
    assert rows[name]['ratio'] > 1
  # The process that garbles imports numpy, and not JAX as its parent does.
  assert 20 < rows['garble_memory']['value'] < 150


@pytest.mark.parametrize('suites', ['', 'garbling,typo', '__init__', 'garbling.py', '../he'])
def test_unknown_suites_are_one_line_and_code_2(tmp_path, suites):
  out = tmp_path / 'rows.json'
  found = commands_test.run('benchmark', f'--suite={suites}', f'--out={out}', code=2)
  wanted = r"error: --suite='.*', want all, or some of: .*garbling,he,.*ot.*\n"
  assert re.fullmatch(wanted, found.stderr)
  assert not out.exists()


def test_all_is_every_suite():
  assert benchmark.chosen(['all']) == list(benchmark.KNOWN)
  assert {'garbling', 'he', 'inference', 'ot', 'training', 'transport'} <= set(benchmark.KNOWN)
  assert benchmark.chosen(['ot', 'he', 'ot']) == ['ot', 'he']
  with pytest.raises(ValueError, match='all'):
    benchmark.chosen(['all', 'none'])


def test_a_file_that_cannot_be_written_is_one_line_and_code_2(tmp_path):
  for flag in ((), (f'--out={tmp_path}',), (f'--out={tmp_path}/none/rows.json',)):
    found = commands_test.run('benchmark', '--suite=ot', *flag, code=2)
    assert found.stderr.count('\n') == 1 and 'out' in found.stderr


def test_encrypted_layers_are_measured_beside_their_calls(parsed, monkeypatch):
  parsed.quick = True
  layer = he.Convolution(8, 8, 3, 4, 3)
  monkeypatch.setattr(he, 'NETWORKS', {'once': [layer], 'thrice': [layer] * 3})
  once, thrice = he.rows()
  assert 0.5 < once.ratio < 10 and 0.5 < thrice.ratio < 10
  assert thrice.value > once.value and thrice.floor > once.floor


def test_the_measured_networks_have_the_published_sizes():
  def weights(layers):
    return sum(math.prod(layer.kernel_shape) for layer in layers)

  # ResNet-32 has 6 n + 2 layers, n = 5, and two projections.
  assert [len(layers) for layers in he.NETWORKS.values()] == [8, 15, 34]
  assert weights(he.VGG16) == 14_710_464 + 512 * 512 + 5120
  assert weights(he.RESNET32) == pytest.approx(0.47e6, rel=0.02)
  for layers in he.NETWORKS.values():
    for layer, following in zip(layers, layers[1:]):
      assert following.height <= layer.height


def test_layers_measured_are_layers_tested():
  tests = importlib.import_module('tests.crypto.homomorphic.encrypted_convolution_test')
  tested = set(tests.CNN7 + tests.RESNET32 + tests.VGG16)
  measured = set().union(*he.NETWORKS.values())
  assert measured <= tested


def test_the_best_of_several_is_the_fastest_of_turns_taken(parsed):
  now, turns = [0], []
  durations = {'a': iter([5, 1, 4]), 'b': iter([2, 3, 9])}

  def work(name):
    turns.append(name)
    now[0] += next(durations[name])

  functions = {name: functools.partial(work, name) for name in durations}
  assert benchmarks.best(functions, 3, lambda: now[0]) == {'a': 1, 'b': 2}
  assert turns == ['a', 'b'] * 3


def test_channels_are_measured_beside_bare_sockets(parsed):
  parsed.quick = True
  found = {row.name: row for row in transport.rows()}
  assert found.keys() == {
    f'{what}_{how}'
    for what in ('send', 'exchange', 'send_cpu', 'round_trip')
    for how in ('clear', 'tls')
  }
  assert all(row.value > 0 for row in found.values())
  assert found['send_tls'].floor and found['send_cpu_clear'].floor

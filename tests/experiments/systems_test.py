"""The command that runs the other systems."""

import json
import pathlib
import subprocess
import sys

import pytest

from experiments.lib.systems import compared_systems, tfhe_rows
from safenet_jax.systems import tapas_she

ROOT = pathlib.Path(__file__).parents[2]


def command(*flags, code=0):
  found = subprocess.run(
    [sys.executable, '-m', 'experiments.systems', *flags],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert found.returncode == code, found.stderr[-2000:]
  return found


def test_every_system_runs_privately_and_agrees_with_plaintext(tmp_path):
  found = command('--system=all', '--quick', f'--workdir={tmp_path}', '--images=50')
  names = {'minionn', 'cryptonets_small', 'xonn_bm1', 'soteria_bm1'}
  records = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob('*.json')}
  modelled = records.pop('tapas_she_bm1')
  assert modelled['gates'] > 4e6 and 'modelled' in found.stdout
  assert set(records) == names
  for record in records.values():
    assert record['system'] in found.stdout
    assert record['agreement'] == record['checked'] >= 2
    phases = record['ledger']['phases']
    assert phases['online']['bytes'] and record['seconds']['online'] > 0
    assert record['accuracy'] > 0.75 and len(record['commit']) >= 40
  # Half of the weights, about half of the gates; CryptoNets' client speaks once.
  ternary = records['soteria_bm1']
  assert 0.4 < ternary['ands'] / ternary['ands_without_zeros'] < 0.7
  assert records['cryptonets_small']['ledger']['phases']['online']['rounds'] == 1


def test_the_kept_time_of_a_gate_is_of_the_small_network_run_whole():
  kept = json.loads((compared_systems.KEPT / 'tfhe_gate.json').read_text())
  network = tfhe_rows.small()
  assert kept['gates'] == len(tapas_she.whole(network).gates)
  assert len(kept['scores']) == 3 and 0 < kept['cpu_seconds'] / kept['gates'] < 1


def test_a_python_without_tfhe_is_named(tmp_path):
  with pytest.raises(RuntimeError, match=f'--tfhe_python={sys.executable}: .*concrete'):
    tfhe_rows.measured(sys.executable)


def test_bad_input_is_one_line(tmp_path):
  for flags, said in (
    (('--system=delphi', f'--workdir={tmp_path}'), '--system=delphi: value should be one of <all|'),
    (('--system=xonn',), 'no --workdir'),
    ((f'--workdir={tmp_path}',), 'no --system, want all, or one of: '),
    (
      ('--system=cryptonets', '--quick', f'--workdir={tmp_path}', '--images=9000'),
      '9000 images, want at most 8192',
    ),
  ):
    error = command(*flags, code=2).stderr
    assert said in error and error.startswith('error: ') and error.count('\n') == 1

"""The command that runs the other systems."""

import json
import pathlib
import subprocess
import sys

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
  names = {'cryptonets_small', 'xonn_bm1', 'soteria_bm1'}
  records = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob('*.json')}
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


def test_bad_input_is_one_line(tmp_path):
  for flags, said in (
    (('--system=delphi', f'--workdir={tmp_path}'), "--system='delphi', want all, or one of: "),
    (('--system=xonn',), 'no --workdir'),
    ((f'--workdir={tmp_path}',), "--system='', want all, or one of: "),
    (
      ('--system=cryptonets', '--quick', f'--workdir={tmp_path}', '--images=9000'),
      '9000 images, want at most 8192',
    ),
  ):
    error = command(*flags, code=2).stderr
    assert said in error and error.startswith('error: ') and error.count('\n') == 1

"""The commands as a user runs them: a whole small run, its resumption, and bad input."""

import datetime
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.approximation import planned_weights, plans
from safenet_jax.models import architectures
from safenet_jax.protocol.service import bundle
from tests.support import compilations, forked

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIG = 'experiments/configs/cnn7_fashion.py'
# Small enough for two cores: one epoch, two members, two images.
SMOKE = f'--config={CONFIG}:smoke'
# 40 steps an epoch.
SMALL = SMOKE, '--config.data.limit=2560'


def command(phase, *flags):
  return [sys.executable, '-m', f'experiments.{phase}', *flags]


def run(phase, *flags, code=0, environment=None):
  found = (
    forked.fresh(phase, *flags, environment=environment)
    if environment
    else forked.run(phase, *flags)
  )
  assert found.returncode == code, found.stderr[-2000:]
  return found


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A finished smoke run."""
  path = tmp_path_factory.mktemp('smoke') / 'run'
  for phase in ('pretrain', 'search', 'infer', 'report'):
    run(phase, *SMALL, f'--workdir={path}')
  return path


def test_a_smoke_run_leaves_a_plan_a_ledger_and_a_report_with_pictures(workdir):
  plan = json.loads((workdir / 'plan.json').read_text())
  assert plan['network'] == 'cnn7' and len(plan['ratio']) == len(plan['degree']) == 7
  assert set(plan['validation_accuracy']) == {'pretrained', 'control', 'planned'}
  ledger = json.loads((workdir / 'client_ledger.json').read_text())
  assert ledger['images'] == ledger['agreement'] == 2 >= ledger['correct']
  # The client's own, of a real offline phase: a simulator knows neither keys nor a handshake.
  assert ledger['mode'] == 'client' and {'handshake', 'setup'} < set(ledger['phases'])
  assert ledger['phases']['offline']['bytes'] > ledger['phases']['online']['bytes'] > 0
  assert ledger['out_of_range'].keys() and ledger['quantization']
  report = (workdir / 'report.md').read_text()
  assert 'two processes over TLS on one machine: the mean of 2 test images' in report
  for picture in re.findall(r'!\[.*?\]\((.*?)\)', report):
    assert (workdir / picture).read_bytes().startswith(b'\x89PNG')
    assert (workdir / picture).with_suffix('.csv').read_text().count('\n') > 2


def test_a_run_is_served_to_a_client_without_weights(workdir, tmp_path):
  images = data.load('fashion_mnist').test.images[:3]
  np.save(tmp_path / 'images.npy', images)
  serving = subprocess.Popen(
    command(
      'serve',
      *SMALL,
      f'--workdir={workdir}',
      '--port=0',
      '--workers=1',
      f'--insecure_test_certificate={tmp_path}',
    ),
    cwd=ROOT,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  try:
    authority = re.search(r'--ca=\S+', serving.stdout.readline())[0]
    address = re.search(r'at (\S+):(\d+)', serving.stdout.readline())
    client = (
      f'--host={address[1]}',
      f'--port={address[2]}',
      authority,
      f'--images={tmp_path / "images.npy"}',
      '--batch=2',
      f'--prepared={tmp_path / "prepared"}',
    )
    found = run('ask', *client, f'--out={tmp_path / "ledger.json"}')
    assert len(found.stdout.split()) == 3 and set(found.stdout.split()) <= set('0123456789')
    alone = run('ask', *client, '--count=1', '--output=class')
    assert alone.stdout == found.stdout[:2]
    wrong = run('ask', *client[:2], *client[3:], code=2)
    assert wrong.stderr.count('\n') == 1 and 'certificate' in wrong.stderr
  finally:
    serving.send_signal(signal.SIGTERM)
    output, log = serving.communicate(timeout=600)
  assert 'every session ended' in output and serving.returncode == 0
  assert log.count('event=session_end') == 2 and 'event=closed drained=True' in log
  ledger = json.loads((tmp_path / 'ledger.json').read_text())
  assert ledger['images'] == 3 and set(ledger['phases']) >= {'setup', 'offline', 'online'}
  # Two batches of seven activation layers, each with two round trips but where all is replaced.
  assert ledger['phases']['online']['rounds'] == 2 * 15


def test_a_simulation_leaves_a_ledger_of_its_own(workdir):
  before = (workdir / 'client_ledger.json').read_bytes()
  found = run('infer', *SMALL, f'--workdir={workdir}', '--simulate', '--count=3')
  assert 'infer: 3 of 3 private classes equal' in found.stdout and 'simulated, ' in found.stdout
  ledger = json.loads((workdir / 'ledger.json').read_text())
  assert ledger['agreement'] == ledger['images'] == 3 and ledger['images_per_second'] > 0
  assert set(ledger['phases']) == {'offline', 'online'}
  assert (workdir / 'client_ledger.json').read_bytes() == before


def test_a_run_is_exported_to_a_file_that_is_a_model(workdir, tmp_path):
  path = tmp_path / 'model.safenet'
  found = run('export', *SMALL, f'--workdir={workdir}', f'--out={path}')
  assert found.stdout.startswith('export: 8 linear and 7 activation layers, ')
  plan = json.loads((workdir / 'plan.json').read_text())
  model = bundle.load(path)
  assert list(model.public.activations) == [f'activation{t}' for t in range(7)]
  for form, degree, ratio in zip(model.public.activations.values(), plan['degree'], plan['ratio']):
    assert form.degree == (degree if form.polynomial else 0) and (ratio or not form.polynomial)
  missing = run('export', *SMALL, f'--workdir={workdir}', f'--out={tmp_path}/a/b', code=2)
  assert 'want a file that can be' in missing.stderr and missing.stderr.count('\n') == 1
  run('export', *SMALL, f'--workdir={workdir}', f'--out={tmp_path / "model.npz"}')
  with np.load(tmp_path / 'model.npz') as arrays:
    net = architectures.cnn7(width=0.25, input_shape=(28, 28, 1))
    _, approximation = planned_weights.load_planned(net, arrays)
  masked = [int(layer.mask.sum()) for layer in approximation]
  channels = jnp.asarray(plan['channels'])
  planned = plans.replaced_channels(plans.from_twentieths(plan['ratio'], plan['degree']), channels)
  assert masked == planned.tolist()


def test_the_control_is_trained_for_as_many_steps(workdir):
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  last = {line['phase']: line['step'] for line in lines}
  # Eight nodes of one cycle of two iterations are no whole epoch of 40.
  assert last['finetune'] == last['control'] == 40
  assert last['search'] == 8


def test_a_workdir_says_which_commands_made_it_and_where(workdir):
  lines = [json.loads(line) for line in (workdir / 'commands.jsonl').read_text().splitlines()]
  commands = [line['command'].split() for line in lines]
  assert [c[:3] for c in commands[:3]] == [
    ['python', '-m', f'experiments.{phase}'] for phase in ('pretrain', 'search', 'infer')
  ]
  assert commands[0][3:] == [*SMALL, f'--workdir={workdir}']
  for line in lines:
    assert line['seconds'] > 0 and line['machine']['cores'] and line['versions']['jax']
    datetime.datetime.fromisoformat(line['started'])


def test_the_same_command_changes_nothing_once_a_run_is_finished(workdir):
  names = ('metrics.jsonl', 'plan.json', 'config.json')
  before = {name: (workdir / name).read_text() for name in names}
  for phase in ('pretrain', 'search'):
    run(phase, *SMALL, f'--workdir={workdir}')
  assert before == {name: (workdir / name).read_text() for name in names}


def test_a_killed_run_resumes_to_the_same_result(tmp_path):
  # Two layers compile faster than CNN-7's seven.
  flags = (
    '--config=experiments/configs/imported.py:smoke',
    f'--config.model.onnx={ROOT / "tests/data/onnx/fashion.onnx"}',
    '--config.data.name=fashion_mnist',
    '--config.data.mean=(0.286,)',
    '--config.data.std=(0.353,)',
    '--config.data.limit=4000',
    '--config.pretrain.epochs=12',
    '--config.pretrain.ema=0.9',
  )
  run('pretrain', *flags, f'--workdir={tmp_path / "a"}')
  process = subprocess.Popen(command('pretrain', *flags, f'--workdir={tmp_path / "b"}'), cwd=ROOT)
  metrics = tmp_path / 'b/metrics.jsonl'
  deadline = time.monotonic() + 1000
  while not (metrics.exists() and metrics.read_text().count('\n') >= 1):
    assert time.monotonic() < deadline and process.poll() is None
    time.sleep(0.05)
  process.send_signal(signal.SIGKILL)
  process.wait()
  found = run('search', *flags, f'--workdir={tmp_path / "b"}', code=2)
  # Killed after the first line of the log, before or after the checkpoint it belongs to.
  assert re.search('of 12 epochs: run the same|run pretrain first', found.stderr)
  # What it compiles by itself has to give the same, too.
  alone = compilations.without()
  run('pretrain', *flags, f'--workdir={tmp_path / "b"}', environment=alone)
  assert metrics.read_text() == (tmp_path / 'a/metrics.jsonl').read_text()


@pytest.mark.parametrize(
  'flags, message',
  [
    ((f'--config={CONFIG}:fast',), "unknown preset 'fast', want one of: smoke"),
    (('--config=experiments/configs/none.py',), 'no config file experiments/configs/none.py'),
    (
      (SMOKE, '--config.search.populaton=8'),
      'unknown config key search.populaton, want one of: .*population',
    ),
    ((SMOKE, '--config.search.population=many'), 'many'),
    ((SMOKE, '--config.model.name=cnn9'), "model.name 'cnn9', want one of cnn7"),
    ((SMOKE, '--config.data.name=mnits'), 'mnits'),
    ((SMOKE, '--wrokdir=x'), 'wrokdir'),
    ((SMOKE, 'stray'), "argument 'stray'"),
    ((), 'no --config'),
  ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, flags, message):
  found = run('pretrain', *flags, f'--workdir={tmp_path / "run"}', code=2)
  assert re.search(message, found.stderr)
  assert found.stderr.count('\n') == 1
  assert not (tmp_path / 'run').exists()


def test_a_workdir_of_another_config_is_refused(workdir):
  before = {p.name: p.read_bytes() for p in workdir.iterdir() if p.is_file()}
  found = run('search', *SMALL, '--config.model.width=0.5', f'--workdir={workdir}', code=2)
  assert re.fullmatch(
    r'error: .* was written with model\.width=0\.25, got 0\.5: .*\n', found.stderr
  )
  assert before == {p.name: p.read_bytes() for p in workdir.iterdir() if p.is_file()}


def test_phases_out_of_order_say_what_to_run_first(tmp_path):
  found = run('search', SMOKE, f'--workdir={tmp_path / "run"}', code=2)
  assert 'run pretrain first' in found.stderr and found.stderr.count('\n') == 1
  found = run('report', f'--workdir={tmp_path / "run"}', code=2)
  assert 'run pretrain first' in found.stderr and found.stderr.count('\n') == 1


def test_no_workdir_is_one_line_and_code_2():
  assert 'no --workdir' in run('pretrain', SMOKE, code=2).stderr

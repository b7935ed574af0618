"""Networks of ONNX files through the commands, as docs/onnx.md has them, and what is refused."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

import safenet_jax as safenet
from tests.experiments.commands_test import run

ROOT = pathlib.Path(__file__).parents[2]
FILES = ROOT / 'tests' / 'data' / 'onnx'
CONFIG = '--config=experiments/configs/imported.py:smoke'
FASHION = (
  CONFIG,
  f'--config.model.onnx={FILES / "fashion.onnx"}',
  '--config.data.name=fashion_mnist',
  '--config.data.mean=(0.286,)',
  '--config.data.std=(0.353,)',
  '--config.data.limit=200',
)


def free_port():
  with socket.socket() as place:
    place.bind(('127.0.0.1', 0))
    return place.getsockname()[1]


def test_the_commands_of_the_page_lead_from_a_file_to_an_answer(tmp_path):
  page = (ROOT / 'docs' / 'onnx.md').read_text()
  blocks = re.findall(r'```sh\n(.*?)```', page, re.DOTALL)
  assert len(blocks) == 3
  script = ''.join(blocks).replace('runs/', f'{tmp_path}/').replace('7341', str(free_port()))
  # Fewer images and steps than on the page.
  script = script.replace('imported.py', 'imported.py:smoke').replace(
    "images='", "images='--config.data.limit=200 "
  )
  script = f'set -e\ntrap "kill \\$(jobs -p)" EXIT\n{script}'
  path = f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}'
  found = subprocess.run(
    ['bash', '-c', script],
    cwd=ROOT,
    env=os.environ | {'PATH': path, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert found.returncode == 0, found.stderr[-3000:]
  lines = found.stdout.splitlines()
  assert any(re.fullmatch(r'\S+Conv +Conv +conv0', line) for line in lines)
  assert 'cheapest' in found.stdout
  served = json.loads((tmp_path / 'fashion' / 'client_ledger.json').read_text())
  assert served['agreement'] == served['images'] == 2
  assert len([line for line in lines if re.fullmatch('[0-9]', line)]) == 2


def test_the_python_of_the_page_runs(monkeypatch):
  monkeypatch.chdir(ROOT)
  (code,) = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'onnx.md').read_text(), re.DOTALL)
  found: dict = {}
  exec(code, found)
  assert found['network'].output_shape == (10,) and len(found['plan'].ratio) == 2


def test_a_network_is_scored_as_it_is(tmp_path):
  """With pretrain.epochs=0 nothing changes, batch norm's statistics neither."""
  run('pretrain', *FASHION, f'--workdir={tmp_path / "run"}')
  (line,) = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').open()]
  assert line['epoch'] == line['step'] == 0
  net, variables = safenet.from_onnx(FILES / 'fashion.onnx')
  images = safenet.load_data('fashion_mnist').validation
  pixels = (images.images[:200] / 255 - 0.286) / 0.353
  classes = np.asarray(net.apply(variables, pixels.astype(np.float32))).argmax(-1)
  assert line['validation_accuracy'] == pytest.approx((classes == images.labels[:200]).mean())
  assert line['validation_accuracy'] > 0.75
  recorded = json.loads((tmp_path / 'run' / 'config.json').read_text())['model']['onnx']
  assert re.fullmatch('fashion.onnx, SHA-256 [0-9a-f]{16}', recorded)


def test_a_run_goes_on_with_the_same_network_wherever_it_is(tmp_path):
  workdir = f'--workdir={tmp_path / "run"}'
  run('pretrain', *FASHION, workdir)
  moved = tmp_path / 'fashion.onnx'
  moved.write_bytes((FILES / 'fashion.onnx').read_bytes())
  rest = (FASHION[0], *FASHION[2:], workdir)
  run('evaluate', *rest, '--phase=pretrain', f'--config.model.onnx={moved}')
  content = bytearray(moved.read_bytes())
  content[5000] ^= 1  # one weight
  moved.write_bytes(content)
  found = run('evaluate', *rest, '--phase=pretrain', f'--config.model.onnx={moved}', code=2)
  assert "was written with model.onnx='fashion.onnx, SHA-256 " in found.stderr


def test_a_run_starts_from_own_weights_and_may_keep_them(tmp_path):
  """Neither pretraining nor fine-tuning has epochs: what is exported is what was given."""
  _, variables = safenet.from_onnx(FILES / 'fashion.onnx')
  arrays = {name: array / 2 for name, array in safenet.flatten_variables(variables).items()}
  np.savez(tmp_path / 'weights.npz', **arrays)
  plan, out = tmp_path / 'plan.json', tmp_path / 'out.npz'
  plan.write_text(json.dumps({'network': 'imported', 'ratio': [0, 0], 'degree': [2, 2]}))
  flags = (
    *FASHION,
    f'--config.pretrain.weights={tmp_path / "weights.npz"}',
    '--config.finetune.epochs=0',
    f'--workdir={tmp_path / "run"}',
  )
  run('pretrain', *flags)
  run('finetune', *flags, f'--plan={plan}')
  run('export', *flags, f'--out={out}')
  with np.load(out) as kept:
    for name, array in arrays.items():
      np.testing.assert_array_equal(kept[name], array)
  config = '--config=experiments/configs/cnn7_fashion.py:smoke'
  found = run(
    'pretrain', config, '--config.pretrain.epochs=0', f'--workdir={tmp_path / "other"}', code=2
  )
  assert 'pretrain.epochs 0, want an integer in 1.. or pretrain.weights' in found.stderr


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Twelve photographs of two classes, larger than the network takes."""
  path = tmp_path_factory.mktemp('images')
  random = np.random.default_rng(0)
  for name in ('cat', 'dog', 'owl', 'pig', 'yak'):
    (path / name).mkdir()
    for n in range(12):
      pixels = random.integers(0, 256, (20, 24, 3), np.uint8)
      Image.fromarray(pixels).save(path / name / f'{n}.jpg')
  return path


def test_images_of_a_folder_are_cut_to_what_the_network_takes(folder, tmp_path):
  flags = (
    CONFIG,
    f'--config.model.onnx={FILES / "residual.onnx"}',
    f'--config.data.name={folder}',
    f'--workdir={tmp_path / "run"}',
  )
  run('pretrain', *flags)
  (line,) = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').open()]
  assert 0 <= line['validation_accuracy'] <= 1
  found = run('pretrain', *flags, '--config.data.size=(8,8)', code=2)
  assert 'images of shape (8, 8, 3), want (16, 16, 3) as the network' in found.stderr


def test_a_network_without_a_width_has_no_thin_one(tmp_path):
  found = run('evaluate', *FASHION, '--phase=thin', f'--workdir={tmp_path / "run"}', code=2)
  assert found.stderr == ("error: network 'imported' has no width, want one that can be narrowed\n")


@pytest.mark.parametrize(
  'flags, message',
  [
    ((), 'no --config.model.onnx, want the ONNX file of a trained network'),
    (('--config.model.onnx=none.onnx',), 'none.onnx: No such file or directory'),
    ((f'--config.model.onnx={FILES / "make.py"}',), 'make.py is damaged or of another kind'),
    ((f'--config.model.onnx={FILES / "view.onnx"}',), 'view.onnx: input'),
    (
      (f'--config.model.onnx={FILES / "fire.onnx"}',),
      'images of shape (28, 28, 1), want (18, 18, 3) as the network',
    ),
    ((*FASHION[1:2], '--config.data.mean=(0.5,)'), 'data.mean of 1 numbers and data.std of 0'),
    ((*FASHION[1:2], '--config.data.name=moon'), "data.name 'moon', want one of fashion_mnist"),
    ((*FASHION[1:2], '--config.data.name='), "no data set '', want one of fashion_mnist"),
    ((*FASHION[1:2], '--config.pretrain.weights=none.npz'), 'none.npz: No such file'),
  ],
)
def test_bad_input_is_one_line_and_code_2(flags, message, tmp_path):
  data = '--config.data.name=fashion_mnist'
  found = run('pretrain', CONFIG, data, *flags, f'--workdir={tmp_path / "run"}', code=2)
  assert message in found.stderr and found.stderr.count('\n') == 1, found.stderr

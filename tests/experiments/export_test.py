"""A file of `experiments.export` is served and asked by processes that have no JAX."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from safenet_jax.protocol.service import bundle as bundles
from tests.experiments import commands_test
from tests.support import models
from tests.support import networks as small

ROOT = commands_test.ROOT
# Installed as sitecustomize, so that workers and everything else go without.
WITHOUT = """
import sys

class Without:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex'):
      raise ModuleNotFoundError(f'{name} is not installed')

sys.meta_path.insert(0, Without())
"""


@pytest.fixture
def without(tmp_path):
  """Environment of a machine that has no JAX."""
  (tmp_path / 'sitecustomize.py').write_text(WITHOUT)
  found = os.environ | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
  missing = subprocess.run(
    [sys.executable, '-c', 'import jax'], env=found, capture_output=True, text=True
  )
  assert 'jax is not installed' in missing.stderr
  return found


def test_a_bundle_is_served_and_asked_without_jax(tmp_path, without):
  model, images = models.calibrated(), small.IMAGES[:2]
  bundles.save(tmp_path / 'model.safenet', model)
  np.save(tmp_path / 'images.npy', images)
  serving = subprocess.Popen(
    commands_test.command(
      'serve',
      f'--bundle={tmp_path / "model.safenet"}',
      '--port=0',
      '--workers=1',
      f'--insecure_test_certificate={tmp_path}',
    ),
    cwd=ROOT,
    env=without,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    authority = re.search(r'--ca=\S+', serving.stdout.readline())[0]
    address = re.search(r'at (\S+):(\d+)', serving.stdout.readline())
    found = subprocess.run(
      commands_test.command(
        'ask',
        f'--host={address[1]}',
        f'--port={address[2]}',
        authority,
        f'--images={tmp_path / "images.npy"}',
      ),
      cwd=ROOT,
      env=without,
      capture_output=True,
      text=True,
      timeout=60,
    )
    assert found.returncode == 0, found.stderr
  finally:
    serving.send_signal(signal.SIGTERM)
    output, log = serving.communicate(timeout=60)
  assert serving.returncode == 0 and 'every session ended' in output, log
  assert found.stdout.split() == [str(n) for n in model.run(images).argmax(-1)]


def test_a_bad_bundle_is_one_line_and_code_2(tmp_path):
  path = tmp_path / 'model.safenet'
  path.write_bytes(b'something else')
  flags = '--insecure_clear', '--port=0'
  for bundle, message in (
    (path, 'is no model to serve: it is not a model bundle'),
    (tmp_path / 'none', 'no model bundle at'),
  ):
    found = commands_test.run('serve', f'--bundle={bundle}', *flags, code=2)
    assert message in found.stderr and found.stderr.count('\n') == 1
  found = commands_test.run('serve', f'--bundle={path}', commands_test.SMOKE, *flags, code=2)
  assert '--bundle and --config, want one of them' in found.stderr
  found = commands_test.run('export', commands_test.SMOKE, f'--workdir={tmp_path}', code=2)
  assert 'no --out' in found.stderr and found.stderr.count('\n') == 1

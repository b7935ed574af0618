"""`safenet serve` and `safenet ask` as processes, with what the extra [serve] requires alone."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from safenet_jax.protocol.service import bundle as bundles
from tests.support import installed, models
from tests.support import networks as small

# Whoever serves or asks has no use for these, and would wait for them.
NOT_NEEDED = 'jax', 'jaxlib', 'flax', 'optax', 'absl', 'matplotlib', 'ml_collections'
REST = """
import sys
from safenet_jax.console import main

certificate, bundle, images = sys.argv[1:]
for line in (['--help'], ['certificate', certificate], ['inspect', bundle]):
  assert main.main(line) == 0, line
# They fail after everything is imported.
for line in (
  ['serve', '--bundle=none', '--insecure-clear'],
  ['ask', '--host=127.0.0.1', '--port=1', f'--images={images}'],
):
  assert main.main(line) == 2, line
# Not even where they are installed.
found = {name.split('.')[0] for name in sys.modules} & set(NOT_NEEDED)
assert not found, found
"""


def safenet(*arguments):
  return [sys.executable, '-m', 'safenet_jax', *map(str, arguments)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A bundle, two images and a certificate, which the commands that need no server have made."""
  path = tmp_path_factory.mktemp('processes')
  bundles.save(path / 'model', models.calibrated())
  np.save(path / 'images.npy', small.IMAGES[:2])
  code = f'NOT_NEEDED = {NOT_NEEDED}\n{REST}'
  arguments = path, path / 'model', path / 'images.npy'
  found = subprocess.run(
    [sys.executable, '-c', code, *arguments], cwd=installed.ROOT, capture_output=True, text=True
  )
  assert found.returncode == 0, found.stderr
  assert found.stdout.count('INSECURE') == 1 and 'one private inference' in found.stdout
  return path


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """Environment of a machine that has the requirements of [serve], and none of the learning."""
  found = installed.environment(tmp_path_factory.mktemp('alone'))
  assert set(NOT_NEEDED) <= set(installed.blocked('serve'))
  return found


def test_a_bundle_is_served_and_asked_over_tls_with_the_requirements_of_serve(folder, alone):
  options = {'cwd': installed.ROOT, 'env': alone, 'text': True}
  authority = folder / 'insecure_test_certificate.pem'
  serving = subprocess.Popen(
    safenet(
      'serve',
      f'--bundle={folder / "model"}',
      '--port=0',
      '--workers=1',
      f'--certificate={authority}',
      f'--key={folder / "insecure_test_key.pem"}',
      f'--ledgers={folder / "ledgers"}',
    ),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    **options,
  )
  try:
    line = serving.stdout.readline()
    assert line, serving.communicate()[1]
    host, port = re.search(r'at (\S+):(\d+)', line).groups()
    client = f'--host={host}', f'--port={port}', f'--images={folder / "images.npy"}'
    asked = subprocess.run(
      safenet('ask', *client, f'--ca={authority}', f'--out={folder / "out.json"}'),
      capture_output=True,
      timeout=600,
      **options,
    )
    assert asked.returncode == 0, asked.stderr
    untrusted = subprocess.run(safenet('ask', *client), capture_output=True, timeout=600, **options)
  finally:
    serving.send_signal(signal.SIGTERM)
    output, log = serving.communicate(timeout=600)
  assert serving.returncode == 0 and 'serve: every session ended' in output, log
  assert asked.stdout.split() == [
    str(n) for n in models.calibrated().run(small.IMAGES[:2]).argmax(-1)
  ]
  assert 'MB up' in asked.stderr and 'online' in asked.stderr
  assert untrusted.returncode == 2 and untrusted.stderr.count('\n') == 1
  assert 'certificate' in untrusted.stderr
  assert log.count('event=session_end') == 1
  ours = json.loads((folder / 'out.json').read_text())
  (theirs,) = (json.loads(path.read_text()) for path in (folder / 'ledgers').iterdir())
  assert ours['mode'] == 'client' and theirs['mode'] == 'server'
  assert ours['phases']['online']['bytes'] == theirs['phases']['online']['bytes'] > 0

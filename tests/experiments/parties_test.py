"""What `experiments.serve` and `experiments.ask` refuse; `safenet` reads the same options."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from safenet_jax.protocol.service import bundle
from tests.support import models

ROOT = pathlib.Path(__file__).parent.parent.parent
ASK = ('ask', '--host=127.0.0.1', '--port=1', '--insecure_clear', '--images=images.npy')


@pytest.mark.parametrize(
  'command, message',
  [
    (('serve', '--bundle='), '--bundle is empty, want a file of experiments.export'),
    # An unset variable of a shell must not open what it was to close.
    (('serve', '--bundle=model', '--insecure_clear', '--outputs='), '--outputs is empty, want'),
    (('serve', '--bundle=model', '--insecure_clear', '--host='), '--host is empty, want address'),
    (
      ('serve', '--bundle=model', '--insecure_clear', '--workers=0', '--host=192.0.2.1'),
      'cannot listen at 192.0.2.1:7341: Cannot assign requested address\n',
    ),
    ((*ASK, '--labels=labels.npy'), '--labels without --requests, want both or neither'),
    ((*ASK, '--requests=2', '--labels=labels.npy'), 'labels.npy holds int64 (), want an integer'),
    ((*ASK, '--requests=2', '--clients=2'), '127.0.0.1:1: '),
    (('ask', '--config=text', *ASK[1:]), 'text, line 1: SyntaxError: '),
  ],
)
def test_what_a_user_can_mend_is_one_line_and_code_2(tmp_path, command, message):
  bundle.save(tmp_path / 'model', models.calibrated())
  np.save(tmp_path / 'images.npy', np.zeros((1, 8, 8, 2), np.uint8))
  np.save(tmp_path / 'labels.npy', 3)
  (tmp_path / 'text').write_text('this is no config\n')
  name, *rest = command
  found = subprocess.run(
    [sys.executable, '-m', f'experiments.{name}', *rest],
    cwd=tmp_path,
    env={'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 2 and message in found.stderr, found.stderr
  assert found.stderr.startswith('error: ') and found.stderr.count('\n') == 1

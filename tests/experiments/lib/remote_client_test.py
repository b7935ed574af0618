"""The client's command beside a small server: batches that the server has room for."""

import json

from absl import flags
from absl.testing import flagsaver
import numpy as np

from experiments.lib import remote_client
from safenet_jax.protocol.layers.structure import OUTPUTS, Structure
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import sessions
from tests.support import models

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 2), dtype=np.uint8)


def test_images_are_inferred_batch_by_batch(tmp_path, capsys):
  model = models.calibrated()
  size = max(
    sessions.MODES['delphi'].server_material.size(Structure.of(model.public), output)
    for output in OUTPUTS
  )
  options = servers.ServerOptions(sessions=1, memory_bytes=2 * size)
  images, out = tmp_path / 'images.npy', tmp_path / 'ledger.json'
  np.save(images, IMAGES)
  flags.FLAGS(['test'], known_only=True)
  with (
    flagsaver.flagsaver(),
    # Two preparations, and all five at once would not fit.
    servers.Server(model, context=None, options=options) as server,
  ):
    host, port = server.address
    flags.FLAGS(
      [
        'infer',
        f'--host={host}',
        f'--port={port}',
        '--insecure_clear',
        f'--images={images}',
        f'--out={out}',
      ],
      known_only=True,
    )
    remote_client.main()
  printed = capsys.readouterr()
  logits = np.sort(model.logits(IMAGES))
  sure = logits[:, -1] - logits[:, -2] > 0.1  # the protocol rounds at random
  found = np.array(printed.out.split(), int)
  assert (found == model.run(IMAGES).argmax(-1))[sure].all() and found.shape == (5,)
  assert 'MB up' in printed.err and 'MB down' in printed.err
  record = json.loads(out.read_text())
  assert record['images'] == 5 and record['truncation_failure'] == model.public.truncation_failure
  # Three batches of two activation layers.
  assert record['phases']['online']['rounds'] == 3 * 3

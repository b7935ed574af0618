"""`safenet ask` beside a small server in this process: batches, and images that are refused."""

import json

import numpy as np
from PIL import Image
import pytest

from safenet_jax import image_folders
from safenet_jax.console import main
from safenet_jax.protocol.estimate import choice
from safenet_jax.protocol.layers.structure import OUTPUTS
from safenet_jax.protocol.service import server as servers
from safenet_jax.protocol.service import sessions
from tests.support import models

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 2), dtype=np.uint8)


@pytest.fixture(scope='module')
def server():
  """One that has room for two preparations; all five at once would not fit."""
  model = models.calibrated()
  mode = sessions.MODES[sessions.DEFAULT]
  structure = mode.structure(model.public)
  size = max(mode.server_material.size(structure, output) for output in OUTPUTS)
  options = servers.ServerOptions(sessions=1, memory_bytes=2 * size)
  with servers.Server(model, context=None, options=options) as found:
    yield found


def ask(server, images, *flags):
  host, port = server.address
  where = f'--host={host}', f'--port={port}', '--insecure_clear'
  return main.main(['ask', *where, f'--images={images}', *flags])


def test_images_are_inferred_batch_by_batch(server, tmp_path, capsys):
  model = models.calibrated()
  images, out = tmp_path / 'images.npy', tmp_path / 'ledger.json'
  np.save(images, IMAGES)
  assert ask(server, images, f'--out={out}') == 0
  printed = capsys.readouterr()
  logits = np.sort(model.logits(IMAGES))
  sure = logits[:, -1] - logits[:, -2] > 0.1  # the protocol rounds at random
  found = np.array(printed.out.split(), int)
  assert (found == model.run(IMAGES).argmax(-1))[sure].all() and found.shape == (5,)
  assert 'MB up' in printed.err and 'MB down' in printed.err
  record = json.loads(out.read_text())
  assert record['images'] == 5 and record['truncation_failure'] == model.public.truncation_failure
  # Three batches of two activation layers, in the mode `ot` two round trips each.
  assert record['phases']['online']['rounds'] == 3 * (2 * 2 + 1)
  assert record['memory']['peak'] >= record['memory']['resident'] > 0


def test_a_client_takes_the_mode_that_is_cheapest_over_its_link(tmp_path, capsys):
  model = models.calibrated()
  np.save(tmp_path / 'images.npy', IMAGES[:1])
  options = servers.ServerOptions(mode='auto')
  with servers.Server(model, context=None, options=options) as offering:
    for link in ('lan', '1e9,9'):
      assert ask(offering, tmp_path / 'images.npy', f'--link={link}') == 0
      mode = choice.over(link)(offering.description, 0.0)
      assert f'1 images, mode {mode}; seconds' in capsys.readouterr().err
    assert ask(offering, tmp_path / 'images.npy', '--link=moon') == 2
    assert "a link 'moon', want lan" in capsys.readouterr().err


def test_classes_alone_and_only_the_first_images(server, tmp_path, capsys):
  np.save(tmp_path / 'images.npy', IMAGES)
  assert ask(server, tmp_path / 'images.npy', '--count=2', '--output=class') == 0
  assert len(capsys.readouterr().out.split()) == 2


def test_images_of_another_shape_cost_nothing_and_are_one_line(server, tmp_path, capsys):
  images = tmp_path / 'images.npy'
  for wrong, message in (
    (IMAGES[:, :4], 'images uint8 (0, 4, 8, 2), want uint8 [B, 8, 8, 2]'),
    (IMAGES / 255.0, 'holds float64 (5, 8, 8, 2), want uint8 [N, H, W, C]'),
    (IMAGES[0], 'holds uint8 (8, 8, 2), want uint8 [N, H, W, C]'),
    (IMAGES[:0], 'holds uint8 (0, 8, 8, 2), want uint8 [N, H, W, C]'),
  ):
    np.save(images, wrong)
    assert ask(server, images) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count('\n') == 1 and not printed.out
  assert server.prepared == 0


def test_pictures_are_cut_to_what_the_model_takes(tmp_path, capsys):
  model, random = models.coloured(), np.random.default_rng(1)
  for n, ending in enumerate(('png', 'jpg', 'png', 'JPEG')):
    # In one colour, so that images differ in more than noise.
    pixels = random.integers(0, 256, 3) + random.integers(-9, 9, (9 + n, 12, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f'{n}.{ending}')
  (tmp_path / 'notes.txt').write_text('no picture')
  paths = image_folders.files(tmp_path)
  logits = model.logits(image_folders.decode(paths, size=(4, 4)))
  ordered = np.sort(logits)
  sure = ordered[:, -1] - ordered[:, -2] > 0.1
  assert sure.sum() >= 2 and len(set(logits.argmax(-1)[sure])) > 1
  with servers.Server(model, context=None) as coloured:
    assert ask(coloured, tmp_path) == 0
    found = np.array(capsys.readouterr().out.split(), int)
    assert found.shape == (4,) and (found == logits.argmax(-1))[sure].all()
    assert ask(coloured, paths[1]) == 0
    assert len(capsys.readouterr().out.split()) == 1
    assert ask(coloured, tmp_path, '--count=3') == 0
    assert len(capsys.readouterr().out.split()) == 3


def test_pictures_that_cannot_be_asked_for_are_one_line(server, tmp_path, capsys):
  (tmp_path / 'none').mkdir()
  Image.new('RGB', (9, 9)).save(tmp_path / 'a.png')
  for wrong, message in (
    ('b.png', 'b.png: No such file'),
    ('none', 'none has no image, want files that end in .png'),
    ('a.png', 'a model of images with 2 channels, want an .npy file of them'),
  ):
    assert ask(server, tmp_path / wrong) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count('\n') == 1 and not printed.out

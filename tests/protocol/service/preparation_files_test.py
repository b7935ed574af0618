"""Layers of a preparation are written as they are made, and read as they are reached."""

import gc
import stat
import sys

import numpy as np
import pytest

from safenet_jax.crypto.randomness import SystemRandomness
from safenet_jax.protocol.delphi import material
from safenet_jax.protocol.service import preparation_files

NAME = preparation_files.Name('0' * 32, 'delphi', 'logits', '1' * 32)


@pytest.fixture
def files(tmp_path):
  found = preparation_files.PreparationFiles(tmp_path, 'server', SystemRandomness())
  found.begin()
  return found


def layer(value):
  return material.ClientLayer(np.full((1, 3), value, np.uint64), keys=[np.ones((2, 1, 3))])


def write(files, name=NAME):
  layers = files.layers()
  layers['activation0'], layers['activation1'] = layer(1), layer(2)
  mask = np.arange(4, dtype=np.uint64)
  made = material.ClientMaterial(bytes.fromhex(name.identifier), mask, mask + 1, layers)
  files.write(name, made)
  return made


def test_layers_are_read_again_and_only_when_they_are_reached(files, monkeypatch):
  write(files)
  files.mark([NAME])
  read, reads = np.lib.npyio.NpzFile.__getitem__, []
  monkeypatch.setattr(
    np.lib.npyio.NpzFile, '__getitem__', lambda self, key: reads.append(key) or read(self, key)
  )
  found = files.load(NAME)
  assert set(reads) == {'mask', 'share'}
  reads.clear()
  np.testing.assert_array_equal(found.layers['activation1'].mask, layer(2).mask)
  assert reads and all(key.startswith('activation1/') for key in reads)
  assert list(found.layers) == ['activation0', 'activation1']
  np.testing.assert_array_equal(found.mask, np.arange(4))


def test_a_file_has_no_name_once_its_preparation_is_taken(files, tmp_path):
  write(files)
  files.mark([NAME])
  found = files.load(NAME)
  assert [path.suffix for path in tmp_path.iterdir()] == ['.token']
  assert found.layers['activation0'].keys[0].shape == (2, 1, 3)


def test_what_is_not_finished_is_private_and_goes_with_its_client(files, tmp_path):
  layers = files.layers()
  layers['activation0'] = layer(1)
  assert not layers  # memory holds none
  (path,) = tmp_path.glob('.*.partial')
  assert stat.S_IMODE(path.stat().st_mode) == 0o600
  del layers
  gc.collect()
  assert not list(tmp_path.glob('.*.partial'))


def test_nothing_is_said_of_what_is_not_finished(files, tmp_path, monkeypatch):
  """A client that ends with an error has one line, and it is that of the error."""
  said = []
  monkeypatch.setattr(sys, 'unraisablehook', said.append)
  files.begin()
  layers = files.layers()
  layers['a'] = layer(1)
  layers.itself = layers  # as objects are freed that refer to each other, in any order
  del layers
  gc.collect()
  assert not said and not list(tmp_path.glob('.*'))


def test_what_a_killed_client_left_is_deleted_by_the_next(files, tmp_path):
  layers = files.layers()
  layers._end.detach()  # as if nobody was there to delete it
  assert list(tmp_path.glob('.*.partial'))
  preparation_files.PreparationFiles(tmp_path, 'server', SystemRandomness()).begin()
  assert not list(tmp_path.glob('.*.partial'))


def test_a_preparation_whose_layers_are_in_memory_is_refused(files):
  made = material.ClientMaterial(b'', np.empty(0, np.uint64), np.empty(0, np.uint64), {})
  with pytest.raises(ValueError, match='not in a file'):
    files.write(NAME, made)


@pytest.mark.parametrize('mode, warned', [(0o700, False), (0o755, False), (0o770, True)])
def test_a_directory_that_others_may_write_to_is_warned_of(tmp_path, caplog, mode, warned):
  place = tmp_path / 'prepared'
  place.mkdir()
  place.chmod(mode)
  preparation_files.PreparationFiles(place, 'server', SystemRandomness()).begin()
  assert ('event=directory_is_open' in caplog.text) == warned

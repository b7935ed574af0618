"""Folders of PNG and JPEG files as data: splits, sizes, damaged files, and no copy in memory."""

import jax
import numpy as np
from PIL import Image
import pytest

from safenet_jax import data, image_folders
from safenet_jax.models.layers import Activation, Conv, Dense, Flatten
from safenet_jax.models.network import Network
from safenet_jax.search.members import Task
from safenet_jax.search.training import Training


def save(folder, counts, size=(6, 8), ending='png', start=0):
  """Images of one colour each, whose red value is their number."""
  for name, count in counts.items():
    (folder / name).mkdir(parents=True)
    for n in range(count):
      pixels = np.full((*size, 3), (start + n, 100, 200), np.uint8)
      Image.fromarray(pixels).save(folder / name / f'{n:03}.{ending}')
  return folder


def test_parts_are_disjoint_and_the_same_every_time(tmp_path):
  save(tmp_path / 'images', {'cat': 30, 'dog': 20})
  (tmp_path / 'images' / 'cat' / 'notes.txt').write_text('no image')
  (tmp_path / 'images' / '.hidden').mkdir()
  found = data.load(tmp_path / 'images')
  parts = [found.train, found.validation, found.test]
  assert [len(part.labels) for part in parts] == [40, 5, 5]
  assert found.class_names == ('cat', 'dog') and found.classes == 2
  seen = [(int(i[0, 0, 0]), int(n)) for part in parts for i, n in zip(part.images, part.labels)]
  assert sorted(seen) == sorted([(n, 0) for n in range(30)] + [(n, 1) for n in range(20)])
  assert (found.mean, found.std) == data.IMAGENET_STATISTICS
  again = data.load(tmp_path / 'images')
  for part, other in zip(parts, (again.train, again.validation, again.test)):
    np.testing.assert_array_equal(part.images, other.images)
    np.testing.assert_array_equal(part.labels, other.labels)


def test_a_test_set_of_its_own_is_kept_apart(tmp_path):
  save(tmp_path / 'train', {'a': 10, 'b': 10})
  save(tmp_path / 'test', {'b': 3}, start=200)
  found = data.load(tmp_path)
  assert [len(part.labels) for part in (found.train, found.validation, found.test)] == [18, 2, 3]
  assert found.test.labels.tolist() == [1] * 3
  assert sorted(found.test.images[:, 0, 0, 0].tolist()) == [200, 201, 202]
  save(tmp_path / 'test' / 'more', {})
  (tmp_path / 'test' / 'c').mkdir()
  with pytest.raises(ValueError, match='has the folders b, c, want folders named a, b'):
    data.load(tmp_path)


def test_the_middle_is_cut_out_as_torchvision_does(tmp_path):
  """Resize(8) makes 8 x 16 of 16 x 32, CenterCrop(4) takes the middle."""
  pixels = np.zeros((16, 32, 3), np.uint8)
  pixels[4:12, 12:20] = 255  # becomes the 4 x 4 in the middle
  (tmp_path / 'a').mkdir()
  Image.fromarray(pixels).save(tmp_path / 'a' / '0.png')
  (path,) = image_folders.find(tmp_path).paths
  (found,) = image_folders.decode([path], size=(4, 4), resize=8)
  scaled = np.asarray(Image.fromarray(pixels).resize((16, 8), Image.Resampling.BILINEAR))
  np.testing.assert_array_equal(found, scaled[2:6, 6:10])
  # Without `resize` all of the shorter side is kept.
  (found,) = image_folders.decode([path], size=(16, 16))
  np.testing.assert_array_equal(found, pixels[:, 8:24])


def test_grey_networks_get_grey_images(tmp_path):
  save(tmp_path, {'a': 10}, ending='jpeg')
  found = data.load(tmp_path, size=(5, 5), channels=1)
  assert found.train.images.shape == (8, 5, 5, 1)
  assert len(found.mean) == 1


def test_bad_folders_and_files_are_named(tmp_path):
  with pytest.raises(ValueError, match='has the folders none, want one for each class'):
    image_folders.find(tmp_path)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='empty has no image, want files that end in .png'):
    image_folders.find(tmp_path)
  (tmp_path / 'empty').rmdir()
  save(tmp_path, {'a': 9})
  with pytest.raises(ValueError, match='9 images, want at least 10 to split them'):
    data.load(tmp_path)
  save(tmp_path / 'more', {'b': 5}, size=(7, 8))
  (tmp_path / 'more' / 'b').rename(tmp_path / 'b')
  (tmp_path / 'more').rmdir()
  with pytest.raises(ValueError, match=r'00\d.png has . x 8 pixels, .* want data.size=\(H, W\)'):
    data.load(tmp_path)
  for content in (b'', b'GIF89a', (tmp_path / 'a' / '000.png').read_bytes()[:-30]):
    (tmp_path / 'a' / '000.png').write_bytes(content)
    with pytest.raises(ValueError, match=r'a/000.png is damaged or of another kind, want a PNG'):
      data.load(tmp_path, size=(4, 4))


def test_training_reads_the_images_where_they_are_mapped(tmp_path):
  save(tmp_path, {'a': 10, 'b': 10})
  images = data.load(tmp_path, size=(8, 8))
  assert isinstance(images.train.images, np.memmap)
  net = Network((Conv(2), Activation(), Flatten(), Dense(2)), (8, 8, 3))
  task = Task.of(net, images, net.init(jax.random.key(0)), Training(batch_size=4))
  address = task.train.images.unsafe_buffer_pointer()
  assert address == images.train.images.ctypes.data, 'a copy'

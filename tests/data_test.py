"""Splits never change or overlap, and batches keep images and labels together."""

import collections
import gzip
import hashlib

import numpy as np
import pytest

from safenet_jax import archives, data, image_files
from tests import archives_test, image_files_test

# CIFAR images that tests tell apart: ends of files, and 50,000 on is the test set.
MARKED = 0, 9_999, 10_017, 31_000, 40_000, 40_001, 49_999, 50_000, 59_999


@pytest.fixture(autouse=True)
def no_ambient_directory(monkeypatch):
  monkeypatch.delenv('SAFENET_DATA_DIR', raising=False)


@pytest.fixture
def stripped(monkeypatch, tmp_path):
  """As where somebody packaged the library without the images."""
  monkeypatch.setattr(data, '_EMBEDDED', [tmp_path / 'absent'])


def digest(array):
  return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def one_line(error):
  assert '\n' not in str(error.value)
  return str(error.value)


def test_the_fixed_permutation_is_one_and_never_changes():
  for size, expected in ((10_000, '4284d7c19c16f194'), (50_000, '236ccd502c870c09')):
    order = data.fixed_permutation(size)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))
    assert digest(order.astype('<i8')) == expected


def test_fashion_mnist_is_split_once_and_for_all():
  loaded = data.load('fashion_mnist')
  splits = loaded.train, loaded.validation, loaded.test
  assert [split.images.shape for split in splits] == [
    (8_000, 28, 28, 1),
    (1_000, 28, 28, 1),
    (1_000, 28, 28, 1),
  ]
  assert all(split.images.dtype == np.uint8 and split.labels.dtype == np.int32 for split in splits)
  assert [digest(split.images) for split in splits] == [
    'c406b78638c7756d',
    'c0fc7639e68ec447',
    '2c878770c350b73a',
  ]
  assert loaded.classes == len(loaded.class_names) == 10


def test_fashion_mnist_splits_hold_every_image_with_its_label_once():
  loaded = data.load('fashion_mnist')
  read = [
    gzip.decompress((archives_test.EMBEDDED / file).read_bytes()) for file in image_files.IDX_FILES
  ]
  published = collections.Counter(
    (read[0][16 + 784 * i : 16 + 784 * (i + 1)], read[1][8 + i]) for i in range(10_000)
  )
  split = collections.Counter(
    (image.tobytes(), int(label))
    for part in (loaded.train, loaded.validation, loaded.test)
    for image, label in zip(part.images, part.labels)
  )
  assert split == published


def test_statistics_are_those_of_the_training_images():
  loaded = data.load('fashion_mnist')
  pixels = loaded.train.images / 255
  np.testing.assert_allclose(loaded.mean, [pixels.mean()], rtol=1e-12)
  np.testing.assert_allclose(loaded.std, [pixels.std()], rtol=1e-12)


@pytest.mark.parametrize('folder', ['fashion_mnist', '.'])
def test_fashion_mnist_is_found_in_a_directory(stripped, tmp_path, folder):
  (tmp_path / folder).mkdir(exist_ok=True)
  for file in image_files.IDX_FILES:
    (tmp_path / folder / file).write_bytes((archives_test.EMBEDDED / file).read_bytes())
  assert digest(data.load('fashion_mnist', tmp_path).test.images) == '2c878770c350b73a'


@pytest.mark.parametrize('name', archives.SOURCES)
def test_missing_data_says_what_where_and_how(stripped, monkeypatch, tmp_path, name):
  with pytest.raises(FileNotFoundError) as error:
    data.load(name)
  assert 'SAFENET_DATA_DIR' in one_line(error)
  monkeypatch.setenv('SAFENET_DATA_DIR', str(tmp_path))
  with pytest.raises(FileNotFoundError) as error:
    data.load(name)
  message = one_line(error)
  assert str(tmp_path) in message and 'download=True' in message
  assert all(source.url in message for source in archives.SOURCES[name])
  assert all(
    folder in message
    for folder in (image_files.CIFAR[name].folders if name in image_files.CIFAR else [name])
  )


def test_unknown_names_are_answered_with_the_known_ones(tmp_path):
  with pytest.raises(ValueError, match="'mnist'.*fashion_mnist, cifar10, cifar100 or .*npz"):
    data.load('mnist', tmp_path)


def test_download_fetches_and_repairs(stripped, tmp_path, monkeypatch):
  sources = []
  for (name, content), source in zip(
    archives_test.published_fashion_mnist(), archives.SOURCES['fashion_mnist']
  ):
    (tmp_path / name).write_bytes(content)
    sources.append(source._replace(url=(tmp_path / name).as_uri()))
  monkeypatch.setitem(archives.SOURCES, 'fashion_mnist', tuple(sources))
  directory = tmp_path / 'data'
  assert digest(data.load('fashion_mnist', directory, download=True).test.images) == (
    '2c878770c350b73a'
  )
  damaged = directory / 'fashion_mnist' / image_files.IDX_FILES[1]
  damaged.write_bytes(damaged.read_bytes()[:1000])
  with pytest.raises(ValueError, match='not a whole gzip file.*download=True'):
    data.load('fashion_mnist', directory)
  monkeypatch.setenv('SAFENET_DATA_DIR', str(directory))
  data.load('fashion_mnist', download=True)
  data.load('fashion_mnist')


def marked(index):
  """An image unlike any other, and its label."""
  return np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8), index % 9 + 1


def write_sparse(path, content):
  """Writes bytes, but no blocks of zeros, so that 150 MB of black cost nothing."""
  block = 1 << 16
  with open(path, 'wb') as file:
    for start in range(0, len(content), block):
      if content.count(0, start, start + block) < block:
        file.seek(start)
        file.write(content[start : start + block])
    file.truncate(len(content))


def write_cifar(directory, name, folder):
  """A CIFAR data set of the official sizes, black but for the marked images."""
  layout = image_files.CIFAR[name]
  suffix = layout.folders[folder]
  (directory / folder).mkdir()
  for stem, start, count in [
    *(
      (stem, i * (50_000 // len(layout.train)), 50_000 // len(layout.train))
      for i, stem in enumerate(layout.train)
    ),
    (layout.test, 50_000, 10_000),
  ]:
    records = np.zeros((count, layout.label_bytes + 3072), np.uint8)
    for index in MARKED:
      if start <= index < start + count:
        image, records[index - start, layout.label_bytes - 1] = marked(index)
        records[index - start, layout.label_bytes :] = image.transpose(2, 0, 1).reshape(-1)
    if suffix:
      records[:, : layout.label_bytes - 1] = 19
      content = records.tobytes()
    else:
      content = image_files_test.python2_batch(
        records[:, layout.label_bytes :],
        records[:, layout.label_bytes - 1].tolist(),
        key=layout.label_key.encode(),
      )
    write_sparse(directory / folder / (stem + suffix), content)


@pytest.mark.parametrize(
  'name, folder',
  [(name, folder) for name, layout in image_files.CIFAR.items() for folder in layout.folders],
)
def test_cifar_layouts_of_official_size_are_loaded_and_split(tmp_path, name, folder):
  write_cifar(tmp_path, name, folder)
  loaded = data.load(name, tmp_path)
  splits = loaded.train, loaded.validation, loaded.test
  assert [split.images.shape for split in splits] == [
    (45_000, 32, 32, 3),
    (5_000, 32, 32, 3),
    (10_000, 32, 32, 3),
  ]
  assert loaded.classes == len(set(loaded.class_names)) == int(name.removeprefix('cifar'))
  order = data.fixed_permutation(50_000)
  for index in MARKED:
    if index < 50_000:
      (place,) = np.flatnonzero(order == index)
      split, place = (
        (loaded.train, place) if place < 45_000 else (loaded.validation, place - 45_000)
      )
    else:
      split, place = loaded.test, index - 50_000
    image, label = marked(index)
    np.testing.assert_array_equal(split.images[place], image)
    assert split.labels[place] == label
  assert sum(np.count_nonzero(split.labels) for split in splits) == len(MARKED)


def test_truncated_cifar_files_say_how_to_replace_them(tmp_path):
  write_cifar(tmp_path, 'cifar10', 'cifar-10-batches-bin')
  path = tmp_path / 'cifar-10-batches-bin' / 'data_batch_3.bin'
  with open(path, 'r+b') as file:
    file.truncate(30_729_999)
  with pytest.raises(ValueError) as error:
    data.load('cifar10', tmp_path)
  message = one_line(error)
  assert f'{path}: 30729999 bytes' in message and 'download=True' in message


def write_npz(path, count, **more):
  images = np.arange(count * 20, dtype=np.uint32).view(np.uint8).reshape(count, 4, 20)
  np.savez(path, images=images, labels=np.arange(count) % 5, **more)
  return images


def test_npz_files_are_split_into_disjoint_parts(tmp_path):
  images = write_npz(tmp_path / 'own.npz', 57)
  loaded = data.load(tmp_path / 'own.npz')
  splits = loaded.train, loaded.validation, loaded.test
  assert [len(split.labels) for split in splits] == [47, 5, 5]
  assert loaded.name == 'own' and loaded.class_names == ('0', '1', '2', '3', '4')
  indices = {images[i, ..., None].tobytes(): i for i in range(57)}
  seen = [indices[image.tobytes()] for split in splits for image in split.images]
  assert sorted(seen) == list(range(57))
  assert [i % 5 for i in seen] == np.concatenate([split.labels for split in splits]).tolist()


def test_npz_test_sets_are_kept_whole(tmp_path):
  tests = np.full((3, 4, 20), 7, np.uint8)
  write_npz(
    tmp_path / 'own.npz',
    40,
    test_images=tests,
    test_labels=np.array([4, 0, 1]),
    class_names=np.array(list('abcdef')),
  )
  loaded = data.load(str(tmp_path / 'own.npz'))
  assert [len(loaded.train.labels), len(loaded.validation.labels)] == [36, 4]
  np.testing.assert_array_equal(loaded.test.images, tests[..., None])
  assert loaded.test.labels.tolist() == [4, 0, 1]
  assert loaded.classes == 6 and loaded.class_names == tuple('abcdef')


def test_npz_files_that_are_missing_or_too_small_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='images and labels'):
    data.load(tmp_path / 'none.npz')
  write_npz(tmp_path / 'own.npz', 9)
  with pytest.raises(ValueError, match='9 images, want at least 10'):
    data.load(tmp_path / 'own.npz')


def test_constant_channels_do_not_divide_by_zero(tmp_path):
  np.savez(tmp_path / 'own.npz', images=np.full((10, 2, 2), 51, np.uint8), labels=np.zeros(10, int))
  loaded = data.load(tmp_path / 'own.npz')
  np.testing.assert_allclose((*loaded.mean, *loaded.std), (0.2, 1.0))


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'train': ('float32', (8, 4, 4, 1), [0])}, r'train images float32 \(8, 4, 4, 1\), want uint8'),
    ({'train': ('uint8', (8, 4, 4), [0])}, r'train images uint8 \(8, 4, 4\), want uint8 \[N, H, W'),
    ({'test': ('uint8', (8, 1, 4, 4), [0])}, r'test images uint8 \(8, 1, 4, 4\), .* of one shape'),
    ({'validation': ('uint8', (8, 4, 4, 1), [3])}, 'validation labels .* integers in 0..2'),
    ({'validation': ('uint8', (8, 4, 4, 1), [-1])}, 'validation labels .* integers in 0..2'),
    ({'test': ('uint8', (8, 4, 4, 1), [0.5])}, 'test labels float64'),
    ({'test': ('uint8', (0, 4, 4, 1), [])}, 'test labels .* and some'),
    ({'mean': (0.5, 0.5)}, 'mean .* want one number for each of 1 channels'),
    ({'std': (0.0,)}, 'std .* want a number above 0'),
  ],
)
def test_a_data_set_of_ones_own_is_checked_when_it_is_made(changes, message):
  def split(kind='uint8', shape=(8, 4, 4, 1), labels=(2,)):
    return data.Split(np.zeros(shape, kind), np.resize(labels, shape[0]))

  def made(**given):
    given = {k: split(*v) if isinstance(v[0], str) else v for k, v in given.items()}
    whole = {
      'train': split(),
      'validation': split(),
      'test': split(),
      'mean': (0.5,),
      'std': (0.2,),
    }
    return data.Dataset(name='mine', classes=3, class_names=('a', 'b', 'c'), **whole | given)

  made()
  with pytest.raises(ValueError, match=message):
    made(**changes)


def test_paths_may_begin_with_the_home_directory(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  for load in (lambda: data.load('~/mine.npz'), lambda: data.load('cifar10', '~/images')):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
      load()

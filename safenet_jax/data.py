"""Labelled images: data sets from disk, and batches of them on the device.

`B` is the batch size and `N` the number of images; an image is [H, W, C].
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax import archives, image_files, image_folders, ranges

# Where the images that come with the package are: inside of an installed package, or at the
# root of a checkout.
_EMBEDDED = [
  root / 'third_party' / 'fashion_mnist' for root in pathlib.Path(__file__).resolve().parents[:2]
]

_FASHION_NAMES = (
  'T-shirt/top',
  'Trouser',
  'Pullover',
  'Dress',
  'Coat',
  'Sandal',
  'Shirt',
  'Sneaker',
  'Bag',
  'Ankle boot',
)
# Classes, and the shape of an image.
SHAPES = {
  'fashion_mnist': (10, (28, 28, 1)),
  'cifar10': (10, (32, 32, 3)),
  'cifar100': (100, (32, 32, 3)),
}
# Of ImageNet, with which nearly all networks that are exported elsewhere were trained
# (pytorch.org/vision/stable/models.html): the statistics of folders of images.
IMAGENET_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Mean and deviation of the 50,000 training images, as the literature uses them.
_CIFAR_STATISTICS = {
  'cifar10': ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
  'cifar100': ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


class Split(NamedTuple):
  """Images uint8 [N, H, W, C] and labels int32 [N]."""

  images: np.ndarray | jax.Array
  labels: np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """Three disjoint splits and what is known about them.

  `mean` and `std` hold one number per channel, of pixel / 255 over the training
  images. Decisions during a search may see `validation`, never `test`.
  """

  name: str
  train: Split
  validation: Split
  test: Split
  classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  class_names: tuple[str, ...]

  def __post_init__(self):
    """ValueError for images or labels of another type or shape, and wrong statistics."""
    shape = np.shape(self.train.images)[1:]
    for name in ('train', 'validation', 'test'):
      images, labels = map(np.asarray, getattr(self, name))
      if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        raise ValueError(
          f'{name} images {images.dtype} {images.shape}, want uint8 [N, H, W, C] of one shape'
        )
      whole = np.issubdtype(labels.dtype, np.integer) and labels.shape == images.shape[:1]
      if not whole or not len(labels) or not 0 <= labels.min() <= labels.max() < self.classes:
        raise ValueError(
          f'{name} labels {labels.dtype} {labels.shape} of {len(images)} images, want as many '
          f'integers in 0..{self.classes - 1}, and some'
        )
    for name in ('mean', 'std'):
      values = getattr(self, name)
      ranges.check({name: values})
      if np.shape(values) != shape[-1:]:
        raise ValueError(f'{name} {values}, want one number for each of {shape[-1]} channels')


def load(
  name: str | os.PathLike,
  directory: str | os.PathLike | None = None,
  *,
  download: bool = False,
  size: tuple[int, int] | None = None,
  resize: int = 0,
  channels: int = 3,
) -> Dataset:
  """Reads a data set from disk into numpy arrays.

  Args:
    name: 'fashion_mnist' (10,000 images), 'cifar10', 'cifar100' (official binary
      or python layout), or the path of an .npz file or of a folder. The file has arrays
      `images` uint8 [N, H, W, C] or [N, H, W] and `labels` [N]; optionally `test_images` and
      `test_labels`, and `class_names` [classes]. The folder has a folder of PNG or JPEG files
      for each class, or folders `train` and `test` that have these.
    directory: where the folders of data sets lie; the environment's SAFENET_DATA_DIR if
      None.
    download: fetch a missing or damaged published data set into `directory`.
    size: (H, W) that is cut out of the middle of a folder's images; None if all have one size.
    resize: pixels of their shorter side before; 0 is just enough for `size`.
    channels: of a folder's images, 3 or 1.

  Returns:
    The data set. Its splits (train / validation / test) are the same on every machine
    and in every version: 8,000 / 1,000 / 1,000 of Fashion-MNIST; 45,000 / 5,000 / 10,000
    of CIFAR; 80 / 10 / 10 % of an .npz file or a folder, or 90 / 10 % and the test set that it
    has. A folder's mean and deviation are those of ImageNet, and its training images are mapped
    from a file rather than held in memory.

  Raises:
    ValueError: an unknown name, or a file that is not what it should be.
    FileNotFoundError: no such data; the message says where it was looked for.
  """
  name = os.fspath(name)
  if name.endswith('.npz'):
    return _npz(pathlib.Path(name).expanduser())
  if name and (folder := pathlib.Path(name).expanduser()).is_dir():
    return _folder(folder, size, resize, channels)
  if name not in archives.SOURCES:
    raise ValueError(
      f'no data set {name!r}, want one of {", ".join(archives.SOURCES)} or the path of an .npz '
      'file or a folder'
    )
  given = os.environ.get('SAFENET_DATA_DIR') if directory is None else directory
  root = pathlib.Path(given).expanduser() if given else None
  read = _fashion_mnist if name == 'fashion_mnist' else _cifar
  try:
    return read(name, root)
  except (FileNotFoundError, ValueError) as error:
    if not download or root is None:
      urls = ' and '.join(source.url for source in archives.SOURCES[name])
      kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
      raise kind(
        f'{error}; to get {name}, name a directory (`directory` or SAFENET_DATA_DIR) '
        f'and pass download=True, or put {urls} there, unpacked if a tar'
      ) from None
  archives.download(name, root)
  return read(name, root)


def download(name: str, directory: str | os.PathLike) -> None:
  """Downloads and verifies a published data set: see `archives.download`."""
  archives.download(name, directory)


def fixed_permutation(size: int) -> np.ndarray:
  """A permutation int64 [size] that is the same on every machine for ever.

  It sorts the words of a SHAKE-256 stream, because the generators of numpy and
  jax may change their streams between versions, and with them the splits.
  """
  stream = hashlib.shake_256(b'safenet_jax split').digest(8 * size)
  return np.argsort(np.frombuffer(stream, '<u8'), kind='stable')


def _parts(split: Split, *sizes: int) -> list[Split]:
  """The first parts of these sizes under the fixed permutation."""
  order = fixed_permutation(len(split.labels))
  return [
    Split(split.images[part], split.labels[part])
    for part in np.split(order, np.cumsum(sizes))[: len(sizes)]
  ]


def _statistics(images: np.ndarray | jax.Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation of pixel / 255, per channel."""
  images = np.asarray(images)
  values = np.arange(256) / 255
  means, deviations = [], []
  for channel in range(images.shape[-1]):
    counts = np.bincount(images[..., channel].reshape(-1), minlength=256)
    mean = counts @ values / counts.sum()
    deviation = np.sqrt(counts @ (values - mean) ** 2 / counts.sum())
    means.append(float(mean))
    # A constant channel carries nothing to scale, and must not divide by zero.
    deviations.append(float(deviation) or 1.0)
  return tuple(means), tuple(deviations)


def _fashion_mnist(name: str, root: pathlib.Path | None) -> Dataset:
  folders = _EMBEDDED + ([root / name, root] if root else [])
  for folder in folders:
    if all((folder / file).is_file() for file in image_files.IDX_FILES):
      break
  else:
    raise FileNotFoundError(
      f'no {" and ".join(image_files.IDX_FILES)} in {", ".join(map(str, folders))}'
    )
  images_path, labels_path = (folder / file for file in image_files.IDX_FILES)
  images = image_files.read_idx(images_path, (10_000, 28, 28))[..., None]
  labels = image_files.check_labels(image_files.read_idx(labels_path, (10_000,)), 10, labels_path)
  train, validation, test = _parts(Split(images, labels), 8_000, 1_000, 1_000)
  mean, std = _statistics(train.images)
  return Dataset(name, train, validation, test, 10, mean, std, _FASHION_NAMES)


def _cifar(name: str, root: pathlib.Path | None) -> Dataset:
  layout = image_files.CIFAR[name]
  files = (*layout.train, layout.test)
  if root is None:
    raise FileNotFoundError(f'no directory given to look for {", ".join(layout.folders)}')
  for folder, suffix in layout.folders.items():
    paths = [root / folder / (file + suffix) for file in files]
    if all(path.is_file() for path in paths):
      break
  else:
    wanted = ' or '.join(
      f'{folder}/{{{",".join(files)}}}{suffix}' for folder, suffix in layout.folders.items()
    )
    raise FileNotFoundError(f'no {wanted} in {root}')
  read = image_files.read_cifar_binary if suffix else image_files.read_cifar_python
  batches = [Split(*read(path, layout, 50_000 // len(layout.train))) for path in paths[:-1]]
  whole = Split(*(np.concatenate(arrays) for arrays in zip(*batches)))
  train, validation = _parts(whole, 45_000, 5_000)
  test = Split(*read(paths[-1], layout, 10_000))
  return Dataset(
    name,
    train,
    validation,
    test,
    len(layout.class_names),
    *_CIFAR_STATISTICS[name],
    layout.class_names,
  )


def _npz(path: pathlib.Path) -> Dataset:
  if not path.is_file():
    raise FileNotFoundError(f'no file {path}, want an .npz with arrays images and labels')
  arrays = image_files.read_npz(path)
  given = Split(arrays['images'], arrays['labels'])
  count = len(given.labels)
  tenth = count // 10
  if not tenth:
    raise ValueError(f'{path}: {count} images, want at least 10 to split them')
  if 'test_images' in arrays:
    train, validation = _parts(given, count - tenth, tenth)
    test = Split(arrays['test_images'], arrays['test_labels'])
  else:
    train, validation, test = _parts(given, count - 2 * tenth, tenth, tenth)
  names = tuple(arrays['class_names'].tolist())
  return Dataset(path.stem, train, validation, test, len(names), *_statistics(train.images), names)


def _folder(path: pathlib.Path, size, resize: int, channels: int) -> Dataset:
  split = all((path / name).is_dir() for name in ('train', 'test'))
  given = image_folders.find(path / 'train' if split else path)
  count = len(given.labels)
  tenth = count // 10
  if not tenth:
    raise ValueError(f'{path}: {count} images, want at least 10 to split them')
  order = fixed_permutation(count)
  paths, labels = [given.paths[n] for n in order], given.labels[order]
  sizes = [count - tenth, tenth] if split else [count - 2 * tenth, tenth, tenth]
  if split:
    more = image_folders.find(path / 'test', given.class_names)
    paths, labels = [*paths, *more.paths], np.concatenate([labels, more.labels])
    sizes.append(len(more.labels))
  images = image_folders.decode(paths, size=size, resize=resize, channels=channels)
  ends = np.cumsum(sizes)
  train, validation, test = (
    Split(images[end - many : end], labels[end - many : end]) for many, end in zip(sizes, ends)
  )
  mean, std = IMAGENET_STATISTICS if channels == 3 else ((0.5,), (0.5,))
  names = given.class_names
  return Dataset(path.name, train, validation, test, len(names), mean, std, names)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
  """(pixel / 255 - mean) / std as float32, from uint8 [..., C] and C statistics.

  ValueError for others.
  """
  matching = images.shape[-1:] == np.shape(mean) == np.shape(std)
  if images.dtype != jnp.uint8 or not matching:
    raise ValueError(
      f'images {images.dtype} {images.shape}, mean {mean}, std {std}; '
      'want uint8 [..., C] and one number per channel'
    )
  scale = 1 / jnp.asarray(std, jnp.float32)
  return images.astype(jnp.float32) * (scale / 255) - jnp.asarray(mean, jnp.float32) * scale


def augment(key: jax.Array, images: jax.Array, *, flip: bool = True, padding: int = 4) -> jax.Array:
  """Mirrors and shifts each image at random; the key is consumed.

  What a shift uncovers is filled by reflection, and not with black, which `normalise`
  puts two deviations below the mean. With black borders, the batch statistics of training
  would hold borders that no served image has (docs/lab_log.md, "Shifted images are filled
  by reflection, not with black").

  Args:
    key: draws whether each image is mirrored, and how far it is shifted.
    images: [B, H, W, C] of any type.
    flip: mirror left and right with probability 1/2.
    padding: largest shift in either direction, pixels.

  Returns:
    [B, H, W, C] of the same type.

  Raises:
    ValueError: padding that is not less than both H and W.
  """
  batch, height, width, _ = images.shape
  if padding >= min(height, width):
    raise ValueError(f'padding {padding}, want less than both sides of {height} x {width}')
  key_flip, key_crop = jax.random.split(key)
  mirrored = jax.random.bernoulli(key_flip, 0.5 if flip else 0.0, (batch,))
  offsets = jax.random.randint(key_crop, (batch, 2), -padding, padding + 1, jnp.int32)

  def reflected(index, size):
    return size - 1 - jnp.abs(size - 1 - jnp.abs(index))

  def view(image, mirror, offset):
    rows = reflected(jnp.arange(height) + offset[0], height)
    columns = reflected(jnp.arange(width) + offset[1], width)
    columns = jnp.where(mirror, width - 1 - columns, columns)
    return image.at[rows[:, None], columns].get(mode='promise_in_bounds')

  # In a scan on CPU this takes a quarter of the time of padding and slicing:
  # XLA runs one gather, and needs neither the mirrored nor the padded batch.
  return jax.vmap(view)(images, mirrored, offsets)


def epoch_order(key: jax.Array, size: int, batch_size: int) -> jax.Array:
  """A random order of all images in batches: indices int32 [steps, B].

  The `size` modulo `batch_size` images that fill no batch sit this epoch out.

  Raises:
    ValueError: a batch size below 1 or above `size`.
  """
  if not 1 <= batch_size <= size:
    raise ValueError(f'batch size {batch_size}, want 1 to {size}')
  steps = size // batch_size
  order = jax.random.permutation(key, jnp.arange(size, dtype=jnp.int32))
  return order[: steps * batch_size].reshape(steps, batch_size)

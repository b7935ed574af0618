"""Readers of labelled images: idx, the CIFAR layouts, .npz.

Every reader refuses what it does not expect with a ValueError that names the
file. None runs code that is in a file.
"""

import gzip
import math
import pathlib
import pickle
import struct
from typing import NamedTuple
import zlib

import numpy as np

# A CIFAR image: the red, green and blue 32x32 planes one after another.
_PLANES = (3, 32, 32)
_PIXELS = math.prod(_PLANES)

_CIFAR10_NAMES = 'airplane automobile bird cat deer dog frog horse ship truck'
_CIFAR100_NAMES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""


class Cifar(NamedTuple):
  """The layout of a CIFAR data set: 50,000 training images in equal files, and 10,000 test images.

  Attributes:
    class_names: of every class.
    label_bytes: labels in front of an image in a binary file; the last one counts.
    label_key: where a pickled batch holds its labels.
    folders: for each layout, the folder's name and how its files' names end; the binary
      layout first.
    train: names of the training files.
    test: name of the test file.
  """

  class_names: tuple[str, ...]
  label_bytes: int
  label_key: str
  folders: dict[str, str]
  train: tuple[str, ...]
  test: str


CIFAR = {
  'cifar10': Cifar(
    class_names=tuple(_CIFAR10_NAMES.split()),
    label_bytes=1,
    label_key='labels',
    folders={'cifar-10-batches-bin': '.bin', 'cifar-10-batches-py': ''},
    train=tuple(f'data_batch_{i}' for i in range(1, 6)),
    test='test_batch',
  ),
  'cifar100': Cifar(
    class_names=tuple(_CIFAR100_NAMES.split()),
    label_bytes=2,
    label_key='fine_labels',
    folders={'cifar-100-binary': '.bin', 'cifar-100-python': ''},
    train=('train',),
    test='test',
  ),
}
IDX_FILES = ('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz')


def check_labels(labels: np.ndarray, classes: int, path: pathlib.Path) -> np.ndarray:
  """Labels [N] of any integer type as int32; ValueError outside 0..classes-1."""
  if labels.size and not 0 <= labels.min() <= labels.max() < classes:
    raise ValueError(
      f'{path}: labels from {labels.min()} to {labels.max()}, want 0 to {classes - 1}'
    )
  return labels.astype(np.int32)


def read_idx(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
  """The uint8 array of `shape` in an idx.gz file (yann.lecun.com/exdb/mnist).

  ValueError if it holds anything else.
  """
  header = struct.pack(f'>BBBB{len(shape)}I', 0, 0, 8, len(shape), *shape)
  size = math.prod(shape)
  try:
    with gzip.open(path) as file:
      # One byte more than wanted, so that the end and its checksum are read.
      content = file.read(len(header) + size + 1)
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise ValueError(f'{path}: not a whole gzip file ({error})') from None
  if content[: len(header)] != header:
    raise ValueError(
      f'{path}: header {content[: len(header)].hex()}, want {header.hex()} (idx, uint8, {shape})'
    )
  if len(content) != len(header) + size:
    relation = 'less' if len(content) < len(header) + size else 'more'
    raise ValueError(f'{path}: unpacks to {relation} than the {size} bytes of {shape}')
  return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def read_cifar_binary(
  path: pathlib.Path, layout: Cifar, records: int
) -> tuple[np.ndarray, np.ndarray]:
  """Images uint8 [records, 32, 32, 3] and labels int32 of a binary CIFAR file.

  ValueError for another size.
  """
  record = layout.label_bytes + _PIXELS
  size = path.stat().st_size
  if size != records * record:
    raise ValueError(f'{path}: {size} bytes, want {records} records of {record}')
  content = np.fromfile(path, np.uint8).reshape(records, record)
  labels = check_labels(content[:, layout.label_bytes - 1], len(layout.class_names), path)
  return _channels_last(content[:, layout.label_bytes :]), labels


def read_cifar_python(
  path: pathlib.Path, layout: Cifar, records: int
) -> tuple[np.ndarray, np.ndarray]:
  """Images uint8 [records, 32, 32, 3] and labels int32 of a pickled CIFAR batch.

  ValueError for another content.
  """
  with open(path, 'rb') as file:
    try:
      # Python 2 wrote these files: its strings are bytes to Python 3.
      content = _ArrayUnpickler(file, encoding='bytes').load()
      content = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
      pixels = content['data'].array
      labels = np.array(content[layout.label_key])
    # A damaged pickle can fail in any way that its opcodes can.
    except Exception as error:
      raise ValueError(f'{path}: not a CIFAR batch ({type(error).__name__}: {error})') from None
  if pixels is None or pixels.shape != (records, _PIXELS):
    raise ValueError(
      f'{path}: data of shape {getattr(pixels, "shape", None)}, want {(records, _PIXELS)}'
    )
  if labels.shape != (records,) or labels.dtype.kind != 'i':
    raise ValueError(
      f'{path}: {layout.label_key} are {labels.dtype} of shape '
      f'{labels.shape}, want {records} integers'
    )
  return _channels_last(pixels), check_labels(labels, len(layout.class_names), path)


def _channels_last(planes: np.ndarray) -> np.ndarray:
  """[N, 3072] channel-planar to contiguous [N, 32, 32, 3]."""
  return np.ascontiguousarray(planes.reshape(-1, *_PLANES).transpose(0, 2, 3, 1))


class _Dtype:
  """Stands for numpy.dtype in a pickle: uint8 and no other."""

  def __init__(self, kind, *unused):
    if kind not in ('u1', b'u1'):
      raise ValueError(f'array of {kind!r}, want uint8')

  def __setstate__(self, state):
    """Byte order and alignment mean nothing for single bytes."""


class _Array:
  """Stands for a numpy array in a pickle; `array` once its bytes are read."""

  array: np.ndarray | None = None

  def __init__(self, *unused):
    pass

  def __setstate__(self, state):
    unused_version, shape, dtype, fortran, content = state
    if not isinstance(dtype, _Dtype):
      raise ValueError(f'array of {dtype!r}, want uint8')
    self.array = np.frombuffer(content, np.uint8).reshape(shape, order='F' if fortran else 'C')


class _ArrayUnpickler(pickle.Unpickler):
  """Admits builtin containers and uint8 arrays; no other name is looked up.

  The stand-ins above replace even the functions by which numpy restores an array. So
  nothing from a file reaches code that was not written for hostile input.
  """

  _stand_ins = {
    ('numpy', 'dtype'): _Dtype,
    ('numpy', 'ndarray'): object,
    ('numpy.core.multiarray', '_reconstruct'): _Array,
    ('numpy._core.multiarray', '_reconstruct'): _Array,
    ('_codecs', 'encode'): str.encode,
  }

  def find_class(self, module, name):
    if (module, name) not in self._stand_ins:
      raise ValueError(f'it asks for {module}.{name}, want arrays, lists and dictionaries')
    return self._stand_ins[module, name]


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The checked arrays of an .npz file of labelled images.

  Returns:
    `images` uint8 [N, H, W, C], `labels` int32 [N] and `class_names` [classes];
    where the file has them, `test_images` and `test_labels` of the same form.
    A file may hold grey images [N, H, W], and labels of any integer type. If it has no
    class names, the classes are numbered up to the largest of `labels`.

  Raises:
    ValueError: names an array that is missing, or of another type or shape.
  """
  with open(path, 'rb') as file:
    try:
      with np.load(file, allow_pickle=False) as content:
        arrays = {key: np.asarray(content[key]) for key in content.files}
    # zipfile and numpy.format raise a dozen unrelated types on damaged input.
    except Exception as error:
      raise ValueError(f'{path}: not an .npz file of plain arrays ({error})') from None
  sets = [('images', 'labels')]
  if 'test_images' in arrays or 'test_labels' in arrays:
    sets.append(('test_images', 'test_labels'))
  wanted = {key for keys in sets for key in keys}
  if not wanted <= arrays.keys() <= wanted | {'class_names'}:
    raise ValueError(
      f'{path}: holds {", ".join(arrays) or "nothing"}, want images and labels, '
      'optionally test_images and test_labels, and class_names'
    )
  for images_key, labels_key in sets:
    images, labels = arrays[images_key], arrays[labels_key]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
      raise ValueError(
        f'{path}: {images_key} are {images.dtype} of shape {images.shape}, '
        'want uint8 [N, H, W, C] or [N, H, W]'
      )
    if labels.dtype.kind not in 'iu' or labels.shape != images.shape[:1]:
      raise ValueError(
        f'{path}: {labels_key} are {labels.dtype} of shape {labels.shape}, '
        f'want {len(images)} integers, one for each of {images_key}'
      )
    arrays[images_key] = images if images.ndim == 4 else images[..., None]
  if 'test_images' in arrays and arrays['test_images'].shape[1:] != arrays['images'].shape[1:]:
    raise ValueError(
      f'{path}: test_images of shape {arrays["test_images"].shape}, '
      f'want those of images, {arrays["images"].shape}'
    )
  classes = int(arrays['labels'].max()) + 1
  # Classes are output channels: a stray label must not ask for billions.
  if 'class_names' not in arrays and classes > len(arrays['labels']):
    raise ValueError(f'{path}: labels up to {classes - 1} of {len(arrays["labels"])} images')
  names = arrays.setdefault('class_names', np.arange(max(classes, 1)).astype(str))
  if names.dtype.kind != 'U' or names.ndim != 1:
    raise ValueError(
      f'{path}: class_names are {names.dtype} of shape {names.shape}, want strings [classes]'
    )
  for _, labels_key in sets:
    arrays[labels_key] = check_labels(arrays[labels_key], len(names), path)
  return arrays

"""Reads PNG and JPEG files, and folders that have a folder of them for each class.

The images are decoded once, into a file without a name that is mapped into memory. So they need
room on the disk (of the system's temporary files) and not in memory: the system reads the pages
that a batch needs, and forgets them when memory is short.
"""

from collections.abc import Sequence
from concurrent import futures
import math
import os
import pathlib
import tempfile
from typing import NamedTuple

import numpy as np

_ENDINGS = ('.png', '.jpg', '.jpeg')
# Of the image that is decoded; a photograph has a tenth of it.
_MOST_PIXELS = 1 << 28
# Images that are decoded before the next are asked for.
_AT_ONCE = 256


class Files(NamedTuple):
  """Paths and labels int32 of the images of a folder, in alphabetical order, and its classes."""

  paths: tuple[pathlib.Path, ...]
  labels: np.ndarray
  class_names: tuple[str, ...]


def find(folder: pathlib.Path, class_names: Sequence[str] = ()) -> Files:
  """The images in the folders of all classes; names that begin with a dot are passed over.

  Args:
    folder: has a folder for each class.
    class_names: the classes it may have; all that it has if none are given.

  Raises:
    ValueError: a folder without images, or of another class.
  """
  found = sorted(each.name for each in folder.iterdir() if each.is_dir() and each.name[0] != '.')
  if not found or (class_names and not set(found) <= set(class_names)):
    wanted = f'folders named {", ".join(class_names[:10])}' if class_names else 'one for each class'
    raise ValueError(f'{folder} has the folders {", ".join(found[:10]) or "none"}, want {wanted}')
  names = tuple(class_names) or tuple(found)
  paths, labels = [], []
  for name in found:
    images = files(folder / name)
    paths += images
    labels += [names.index(name)] * len(images)
  return Files(tuple(paths), np.array(labels, np.int32), names)


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The images that lie in a folder, by name; ValueError where there are none.

  Names that begin with a dot are passed over.
  """
  found = sorted(path for path in folder.iterdir() if is_image(path) and path.name[0] != '.')
  if not found:
    raise ValueError(f'{folder} has no image, want files that end in .png, .jpg or .jpeg')
  return found


def is_image(path: pathlib.Path) -> bool:
  """Whether a name ends as those of PNG and JPEG files do."""
  return path.suffix.lower() in _ENDINGS


def decode(
  paths: Sequence[pathlib.Path],
  *,
  size: tuple[int, int] | None = None,
  resize: int = 0,
  channels: int = 3,
) -> np.ndarray:
  """The images of files, uint8 [N, H, W, channels], mapped from a file without a name.

  Args:
    paths: of PNG or JPEG files.
    size: (H, W) that is cut out of the middle; None takes the images as they are, all of one size.
    resize: pixels of the shorter side before; 0 is just enough for `size`.
    channels: 3 for red, green and blue, 1 for grey.

  Raises:
    ValueError: a file that is no image, a damaged one, or one of another size; it is named. Or
      Pillow is not installed.
    OSError: a file cannot be read, or there is no room for the images.
  """
  if size is None:
    size = _open(paths[0], None, 0, channels).shape[:2]
    resize = -1
  shape = len(paths), *size, channels
  with tempfile.TemporaryFile() as file:
    # Written rather than left open, so that a full disk is an error now and no crash later.
    os.posix_fallocate(file.fileno(), 0, math.prod(shape))
    images = np.memmap(file, np.uint8, 'r+', shape=shape)

  def put(n: int) -> None:
    image = _open(paths[n], size, resize, channels)
    if image.shape != shape[1:]:
      height, width = image.shape[:2]
      raise ValueError(
        f'{paths[n]} has {height} x {width} pixels, {paths[0]} {size[0]} x {size[1]}: '
        'want data.size=(H, W)'
      )
    images[n] = image

  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for first in range(0, len(paths), _AT_ONCE):
      for _ in pool.map(put, range(first, min(first + _AT_ONCE, len(paths)))):
        pass
  return images


def _open(path: pathlib.Path, size, resize: int, channels: int) -> np.ndarray:
  """One image, uint8 [H, W, channels]; with `resize` of -1 it stays as it is."""
  try:
    from PIL import Image
  except ModuleNotFoundError:
    raise ValueError("Pillow is not installed, want: pip install 'safenet_jax[images]'") from None
  with open(path, 'rb') as file:
    try:
      given = Image.open(file, formats=('PNG', 'JPEG'))
      if given.width * given.height > _MOST_PIXELS:
        raise ValueError
      image = given.convert('RGB' if channels == 3 else 'L')
    # Pillow raises a dozen unrelated types on damaged files.
    except Exception:
      raise ValueError(f'{path} is damaged or of another kind, want a PNG or JPEG file') from None
  if size is not None and resize >= 0:
    image = _cut(image, size, resize)
  return np.asarray(image).reshape(image.height, image.width, channels)


def _cut(image, size: tuple[int, int], resize: int):
  """The middle of an image that was scaled, as torchvision's Resize and CenterCrop have it."""
  from PIL import Image

  height, width = size
  scale = max(height / image.height, width / image.width)
  if resize:
    scale = max(scale, resize / min(image.height, image.width))
  scaled = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
  if scaled != image.size:
    image = image.resize(scaled, Image.Resampling.BILINEAR)
  left, top = round((image.width - width) / 2), round((image.height - height) / 2)
  return image.crop((left, top, left + width, top + height))

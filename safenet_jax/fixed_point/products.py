"""Batches of bounded memory, and convolutions in float64 whose patches stay in a cache.

Of integers they are exact: with limbs that are narrow enough, every sum of products is an integer
below 2^53, in any order of summation (`crypto.ring.limb_bits`).
"""

from collections.abc import Callable, Iterator
import math

import numpy as np

from safenet_jax.models import layers as records

# Values of a map, of all images that are computed at once.
_MAP = 1 << 19
# Values of the patches that are multiplied at once: 1 MB.
_BLOCK = 1 << 17


def batches(
  layers: tuple[records.Layer, ...], input_shape: tuple[int, ...], count: int
) -> Iterator[slice]:
  """Slices of `count` images, of so many that a network's largest map takes 4 MB at 8 bytes."""
  shapes = records.shapes(layers, input_shape)
  most = max(math.prod(size) for size in (input_shape, *(s.output_shape for s in shapes)))
  together = max(_MAP // most, 1)
  return (slice(first, first + together) for first in range(0, count, together))


def convolve(x: np.ndarray, kernel: np.ndarray, layer: records.Conv) -> np.ndarray:
  """float64 [B, H, W, I] with [k, k, I / groups, O]: the record's convolution, [B, H', W', O].

  Args:
    x: the images.
    kernel: of the layer; channels that are not served may be missing on both sides.
    layer: says stride, groups, dilation and padding.
  """
  size, step, far = kernel.shape[0], layer.stride, layer.dilation
  span = (size - 1) * far + 1
  around = layer.padding or (((span - 1) // 2, span // 2),) * 2
  if any(map(any, around)):
    x = np.pad(x, ((0, 0), *around, (0, 0)))
  images, *maps, channels = x.shape
  height, width = ((n - span) // step + 1 for n in maps)
  # The taps of a kernel's row are neighbours in memory where there is no dilation.
  windows = np.lib.stride_tricks.as_strided(
    x,
    (images, height, width, size, size, channels),
    tuple(
      stride * n
      for stride, n in zip((*x.strides[:3], *x.strides[1:]), (1, step, step, far, far, 1))
    ),
    writeable=False,
  )
  result = np.empty((images, height, width, kernel.shape[-1]))
  taps = size * size * channels
  rows = min(max(_BLOCK // (width * taps), 1), height)
  together = max(_BLOCK // (height * width * taps), 1)
  for image in range(0, images, together):
    for row in range(0, height, rows):
      block = slice(image, image + together), slice(row, row + rows)
      result[block] = _product(windows[block], kernel, layer.groups)
  return result


def _product(windows: np.ndarray, kernel: np.ndarray, groups: int) -> np.ndarray:
  """[B, h, w, O] of windows [B, h, w, k, k, I]."""
  places, outputs = windows.shape[:3], kernel.shape[-1]
  if groups == 1:
    return (windows.reshape(-1, kernel[..., 0].size) @ kernel.reshape(-1, outputs)).reshape(
      *places, outputs
    )
  # One product for each group: [groups, places, taps] with [groups, taps, outputs].
  taps = windows.reshape(-1, kernel.shape[0] ** 2, groups, kernel.shape[2])
  parts = taps.transpose(2, 0, 1, 3).reshape(groups, len(taps), -1)
  weights = kernel.reshape(-1, groups, outputs // groups).transpose(1, 0, 2)
  return (parts @ weights).transpose(1, 0, 2).reshape(*places, outputs)


def exactly(apply: Callable[[np.ndarray], np.ndarray], x: np.ndarray, limb: int) -> np.ndarray:
  """A linear function with integer weights of int64 values, int64; it wraps modulo 2^64.

  Args:
    apply: computes it in float64, exactly for integers below 2^limb in size.
    x: int64, of any size.
    limb: of `ring.limb_bits`.
  """
  if not x.size or max(int(x.max()), -int(x.min())) < 1 << limb:
    return apply(x.astype(np.float64)).astype(np.int64)
  low = apply((x & ((1 << limb) - 1)).astype(np.float64)).astype(np.int64)
  return low + (exactly(apply, x >> limb, limb) << limb)

"""The truth for encrypted layers: an exact convolution modulo 2^64."""

import numpy as np

_LIMB_BITS = 16


def convolved(x: np.ndarray, kernel: np.ndarray, layer) -> np.ndarray:
  """uint64 x [h, w, in] and int64 kernel [k, k, in / groups, out], as a layer says.

  `layer` has stride, groups, dilation and around, the zeros of both axes.
  Limbs of 16 bits against weights below 2^20 and 2^13 taps stay below 2^53.
  """
  size, stride = kernel.shape[0], layer.stride
  wide = np.pad(x, (*layer.around, (0, 0)))
  span = (size - 1) * layer.dilation + 1
  lengths = [(n - span) // stride + 1 for n in wide.shape[:2]]
  outputs = kernel.shape[3] // layer.groups
  # Of one group after the other, as if there were no others.
  return np.concatenate(
    [
      _group(part, kernel[..., g * outputs : (g + 1) * outputs], lengths, layer)
      for g, part in enumerate(np.split(wide, layer.groups, axis=-1))
    ],
    axis=-1,
  )


def _group(wide, kernel, lengths, layer):
  size, stride = kernel.shape[0], layer.stride
  weights = kernel.astype(np.float64)
  result = np.zeros((*lengths, kernel.shape[3]), np.uint64)
  for shift in range(0, 64, _LIMB_BITS):
    limb = (wide >> np.uint64(shift) & np.uint64(2**_LIMB_BITS - 1)).astype(np.float64)
    total = np.zeros(result.shape)
    for i in range(size):
      for j in range(size):
        rows, columns = (
          slice(t * layer.dilation, t * layer.dilation + (n - 1) * stride + 1, stride)
          for t, n in zip((i, j), lengths)
        )
        total += limb[rows, columns] @ weights[i, j]
    result += total.astype(np.int64).astype(np.uint64) << np.uint64(shift)
  return result

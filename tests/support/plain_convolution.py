"""The truth for encrypted layers: an exact convolution modulo 2^64."""

import numpy as np

_LIMB_BITS = 16


def padded(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
  """uint64 x [h, w, in] and int64 kernel [k, k, in, out] with (k - 1) // 2 zeros before.

  Limbs of 16 bits against weights below 2^20 and 2^13 taps stay below 2^53.
  """
  size = kernel.shape[0]
  lengths = [-(-n // stride) for n in x.shape[:2]]
  low, high = (size - 1) // 2, size // 2
  wide = np.pad(x, ((low, high), (low, high), (0, 0)))
  weights = kernel.astype(np.float64)
  result = np.zeros((*lengths, kernel.shape[3]), np.uint64)
  for shift in range(0, 64, _LIMB_BITS):
    limb = (wide >> np.uint64(shift) & np.uint64(2**_LIMB_BITS - 1)).astype(np.float64)
    total = np.zeros(result.shape)
    for dy in range(size):
      for dx in range(size):
        rows = slice(dy, dy + (lengths[0] - 1) * stride + 1, stride)
        columns = slice(dx, dx + (lengths[1] - 1) * stride + 1, stride)
        total += limb[rows, columns] @ weights[dy, dx]
    result += total.astype(np.int64).astype(np.uint64) << np.uint64(shift)
  return result

"""A convolution whose gradients stay fast inside loops on CPU.

XLA:CPU brings convolutions into its fast form only at the top level of a program, not
inside `lax.scan` or `lax.map`. There, the two backward convolutions that autodiff writes
become naive loops (measured: the input gradient is 10x slower, the kernel gradient 69x).
Here, the forward convolution and both gradients are written as plain ungrouped NHWC/HWIO
convolutions, which XLA does not need to rewrite. Other platforms keep their native
gradients.

A map that is smaller than the kernel has no fast form there at all (measured: 8 GFLOP/s where
a map of the kernel's size gets 130 to 270). So on CPU such a convolution is written as the sum of
one product for each element of the kernel, over the places where that element meets the map.

XLA convolves by products with a matrix of one column for each output, which are slow with few
columns. So with few outputs two neighbouring pixels are computed as one with twice the outputs.

The kernel gradient as a convolution wants the images transposed. With few channels that takes
longer than its products, so that there it is one product of shifted maps, a few images at a time.

The members of a population have different kernels. A convolution vmapped over kernels would
become a grouped convolution, which is four to five times slower than the same work without
groups. So under such a `vmap` a convolution is written as a product of patches with a kernel
matrix, which becomes a batched product. Both gradients are written this way too.
"""

from collections.abc import Callable
import functools
import itertools
import math

import jax
from jax import lax
import jax.numpy as jnp

from safenet_jax.models.layers import Conv

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')

# With up to so many channels on both sides a kernel gradient is one product of shifted maps, of so
# many images at a time, which stay in a cache. Measured in docs/lab_log.md, "Training on a CPU".
_NARROW = 32
_IMAGES = 8
# Up to so many outputs two neighbouring ones of a row are computed as one.
_PAIRED = 16


def convolve_layer(images: jax.Array, kernel: jax.Array, layer: Conv) -> jax.Array:
  """The convolution of a record: [B, H, W, I] with [k, k, I / groups, O] to [B, H', W', O].

  Those that are not as `convolve` has them are products of patches on CPU, one for each group:
  XLA's own convolutions with groups are naive loops there, and so are their gradients.
  """
  if (layer.groups, layer.dilation, layer.around) == (1, 1, Conv(1, layer.kernel).around):
    return convolve(images, kernel, layer.stride)
  native = functools.partial(
    lax.conv_general_dilated,
    window_strides=(layer.stride,) * 2,
    padding=layer.around,
    rhs_dilation=(layer.dilation,) * 2,
    dimension_numbers=_LAYOUT,
    feature_group_count=layer.groups,
  )
  grouped = functools.partial(_grouped, layer=layer)
  return lax.platform_dependent(images, kernel, cpu=grouped, default=native)


def _grouped(images, kernel, layer):
  """`convolve_layer` as a sum over taps where a group has one input, else by patches."""
  size, _, inputs, outputs = kernel.shape
  padded = jnp.pad(images, ((0, 0), *layer.around, (0, 0)))
  sides = [(n - layer.span) // layer.stride + 1 for n in padded.shape[1:3]]

  def tap(i, j):
    rows, columns = (
      slice(t * layer.dilation, t * layer.dilation + (n - 1) * layer.stride + 1, layer.stride)
      for t, n in zip((i, j), sides)
    )
    return padded[:, rows, columns].reshape(-1, layer.groups, inputs)

  taps = list(itertools.product(range(size), repeat=2))
  # [k, k, I / groups, groups, O / groups]
  kernel = kernel.reshape(*kernel.shape[:3], layer.groups, -1)
  if inputs == 1:
    result = sum(tap(*at) * kernel[at][0] for at in taps)
  else:
    patches = jnp.concatenate([tap(*at) for at in taps], -1)
    matrices = kernel.reshape(-1, layer.groups, kernel.shape[-1])
    result = jnp.einsum('pgi,igo->pgo', patches, matrices)
  return result.reshape(images.shape[0], *sides, outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(images: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """Convolution [B, H, W, I] with [k, k, I, O] to [B, ceil(H/s), ceil(W/s), O].

  Zeros stand (k - 1) // 2 before and k // 2 behind each axis, as in PyTorch
  with padding=k//2 for odd k; XLA's 'SAME' pads strided convolutions elsewhere.
  """
  return _operations(stride)[0](images, kernel)


@functools.cache
def _operations(stride):
  """The convolution and its gradients; each has another form under a `vmap` over kernels."""
  return (
    _under_vmap(
      functools.partial(_alone, stride=stride), functools.partial(_product, stride=stride)
    ),
    _under_vmap(
      functools.partial(_gradients, stride), functools.partial(_gradients_of, _product, stride)
    ),
  )


def _alone(images, kernel, stride):
  """`convolve` where no `vmap` maps over kernels."""
  native = functools.partial(_native, stride=stride)
  if _is_small(images, kernel, stride):
    on_cpu: Callable = functools.partial(_taps, stride=stride)
  elif _is_paired(images, kernel, stride):
    on_cpu = _pairs
  else:
    return native(images, kernel)
  return lax.platform_dependent(images, kernel, cpu=on_cpu, default=native)


def _is_small(images, kernel, stride) -> bool:
  """Whether an output map is smaller than the kernel.

  The input gradient slides over the output map, the forward convolution over the input map,
  which is no smaller.
  """
  return any(-(-n // stride) < kernel.shape[0] for n in images.shape[1:3])


def _is_paired(images, kernel, stride) -> bool:
  """Whether a convolution has so few outputs, and the form that `_pairs` takes."""
  size, outputs = kernel.shape[0], kernel.shape[3]
  return stride == 1 and size > 1 and images.shape[2] % 2 == 0 and outputs <= _PAIRED


def _pairs(images, kernel):
  """`convolve` with stride 1 whose every second output is the next pixel's.

  The kernel stands twice in a wider one, side by side as outputs and one column apart.
  """
  wide = jnp.concatenate(
    [jnp.pad(kernel, ((0, 0), (j, 1 - j), (0, 0), (0, 0))) for j in range(2)], -1
  )
  result = lax.conv_general_dilated(
    images, wide, (1, 2), [_padding(kernel)] * 2, dimension_numbers=_LAYOUT
  )
  return result.reshape(*images.shape[:3], -1)


def _native(images, kernel, stride):
  low, high = _padding(kernel)
  return lax.conv_general_dilated(
    images, kernel, (stride, stride), [(low, high)] * 2, dimension_numbers=_LAYOUT
  )


def _padding(kernel):
  return (kernel.shape[0] - 1) // 2, kernel.shape[0] // 2


def _forward(images, kernel, stride):
  return _operations(stride)[0](images, kernel), (images, kernel)


def _backward(stride, residuals, cotangent):
  return _operations(stride)[1](*residuals, cotangent)


def _gradients(stride, images, kernel, cotangent):
  small = _is_small(images, kernel, stride)
  on_cpu = functools.partial(_gradients_of, _taps) if small else _canonical_gradients
  return lax.platform_dependent(
    images,
    kernel,
    cotangent,
    cpu=functools.partial(on_cpu, stride),
    default=functools.partial(_gradients_of, _native, stride),
  )


def _gradients_of(form, stride, images, kernel, cotangent):
  """What autodiff makes of `_native`, `_taps` or `_product`."""
  _, pullback = jax.vjp(lambda x, w: form(x, w, stride), images, kernel)
  return pullback(cotangent)


def _canonical_gradients(stride, images, kernel, cotangent):
  size = kernel.shape[0]
  low, _ = _padding(kernel)
  # For each axis: its size, and the cotangent's size after dilation by the stride.
  axes = [(n, (n - 1) // stride * stride + 1) for n in images.shape[1:3]]
  # Input gradient: the cotangent, dilated by the stride, against the flipped
  # kernel with its channel axes exchanged.
  d_images = lax.conv_general_dilated(
    cotangent,
    kernel[::-1, ::-1].transpose(0, 1, 3, 2),
    (1, 1),
    [(size - 1 - low, n + low - dilated) for n, dilated in axes],
    lhs_dilation=(stride, stride),
    dimension_numbers=_LAYOUT,
  )
  if max(kernel.shape[2:]) <= _NARROW:
    return d_images, _narrow_kernel_gradient(images, kernel, cotangent, stride)
  # Kernel gradient: channels act as the batch, the batch as the channels.
  d_kernel = lax.conv_general_dilated(
    images.transpose(3, 1, 2, 0),
    cotangent.transpose(1, 2, 0, 3),
    (1, 1),
    [(low, dilated + size - 1 - n - low) for n, dilated in axes],
    rhs_dilation=(stride, stride),
    dimension_numbers=_LAYOUT,
  ).transpose(1, 2, 0, 3)
  return d_images, d_kernel


def _narrow_kernel_gradient(images, kernel, cotangent, stride):
  """The kernel gradient without a transposition of the images.

  Column j of the kernel shifts the images, row i the cotangent, which has zeros between its
  pixels where there is a stride. So one product of both, with their shifts side by side as
  channels, holds every element of the kernel.
  """
  size, _, inputs, outputs = kernel.shape
  batch, *maps, _ = images.shape
  around = _padding(kernel)
  # What the stride left over of each axis: the cotangent gets the images' size.
  rest = [(n - 1) % stride for n in maps]
  chunk = math.gcd(batch, _IMAGES)
  dtype = jnp.promote_types(images.dtype, jnp.float32)

  def add(total, part):
    images, cotangent = part
    images = jnp.pad(images, ((0, 0), around, around, (0, 0)))
    rows, columns = (size - 1, size - 1 + rest[0], stride - 1), (0, rest[1], stride - 1)
    zero = jnp.zeros((), cotangent.dtype)
    cotangent = lax.pad(cotangent, zero, ((0, 0, 0), rows, columns, (0, 0, 0)))
    left = jnp.concatenate([images[:, :, j : j + maps[1]] for j in range(size)], -1)
    right = jnp.concatenate(
      [cotangent[:, i : i + left.shape[1]] for i in reversed(range(size))], -1
    )
    left, right = (a.reshape(-1, a.shape[-1]) for a in (left, right))
    return total + jnp.einsum('pi,po->io', left, right, preferred_element_type=dtype), None

  parts = (a.reshape(-1, chunk, *a.shape[1:]) for a in (images, cotangent))
  total, _ = lax.scan(add, jnp.zeros((size * inputs, size * outputs), dtype), tuple(parts))
  total = total.reshape(size, inputs, size, outputs).transpose(2, 0, 1, 3)
  return total.astype(kernel.dtype)


def _product(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """`convolve` as one product of the images' patches with a matrix of the kernel."""
  size, _, inputs, outputs = kernel.shape
  b, *maps, _ = images.shape
  out = [-(-n // stride) for n in maps]
  around = ((size - 1) // 2, size // 2)
  padded = jnp.pad(images, ((0, 0), around, around, (0, 0)))
  height, width = ((o - 1) * stride + 1 for o in out)
  patches = jnp.concatenate(
    [
      padded[:, i : i + height : stride, j : j + width : stride]
      for i in range(size)
      for j in range(size)
    ],
    axis=-1,
  )
  product = patches.reshape(-1, size * size * inputs) @ kernel.reshape(-1, outputs)
  return product.reshape(b, *out, outputs)


def _taps(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """`convolve` as a sum of products, one for each element of the kernel that meets the map."""
  size = kernel.shape[0]
  maps = images.shape[1:3]
  out = [-(-n // stride) for n in maps]
  low, _ = _padding(kernel)
  result = jnp.zeros((images.shape[0], *out, kernel.shape[-1]), images.dtype)
  for tap in itertools.product(range(size), repeat=2):
    # Of each axis: the first input that this element meets, and the outputs that it adds to.
    first = [-(-max(0, low - t) // stride) for t in tap]
    end = [min(o, (n - 1 - t + low) // stride + 1) for o, n, t in zip(out, maps, tap)]
    if any(a >= b for a, b in zip(first, end)):
      continue
    rows, columns = (
      slice(a * stride + t - low, (b - 1) * stride + t - low + 1, stride)
      for a, b, t in zip(first, end, tap)
    )
    part = images[:, rows, columns] @ kernel[tap]
    around = [(a, o - b, 0) for a, b, o in zip(first, end, out)]
    result += lax.pad(part, jnp.zeros((), part.dtype), [(0, 0, 0), *around, (0, 0, 0)])
  return result


def _under_vmap(function: Callable, batched: Callable) -> Callable:
  """`function`, but when it is vmapped over kernels, `batched` is mapped in its place.

  Both take images and a kernel first. With one kernel for all, the mapped axis only adds
  images, and `function` itself is mapped.
  """
  mapped = jax.custom_batching.custom_vmap(function)

  @mapped.def_vmap
  def rule(size, is_batched, *args):
    del size
    axes = tuple(0 if b else None for b in is_batched)
    chosen = batched if is_batched[1] else function
    result = jax.vmap(chosen, axes)(*args)
    return result, jax.tree.map(lambda _: True, result)

  return mapped


convolve.defvjp(_forward, _backward)

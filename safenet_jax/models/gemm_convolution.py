"""Convolutions as matrix products, for members that are batched by `vmap`.

A convolution that is vmapped over its kernels becomes a grouped convolution,
four to five times slower than the same work without groups. As a product of
patches with a kernel matrix it becomes a batched product instead.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def convolve(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """`convolution.convolve` of [B, H, W, I] with [k, k, I, O], without a convolution."""
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


def gradients(images: jax.Array, kernel: jax.Array, cotangent: jax.Array, stride: int):
  """Gradients of `convolve` with respect to images and kernel."""
  _, pullback = jax.vjp(lambda x, w: convolve(x, w, stride), images, kernel)
  return pullback(cotangent)


def under_vmap(function: Callable, batched: Callable) -> Callable:
  """`function`, in whose place `vmap` maps `batched` when kernels differ.

  Both take images and a kernel first. With one kernel for all, the mapped axis
  is just more images.
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

"""Linear layers that follow each other become one where that is cheaper.

Every linear layer costs ciphertexts both ways, and one that reads another's output a wave of the
offline phase. Batch norm behind a linear layer that nothing else reads is a part of it. So is
batch norm before a layer without padding. What is left of batch norm is a depthwise convolution.
"""

from collections.abc import Iterator
import dataclasses
from typing import NamedTuple

import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.models.network import Network

# A linear layer's kernel [..., O] and bias [O].
Weights = tuple[np.ndarray, np.ndarray]


class _Linear(NamedTuple):
  layer: records.Conv | records.Dense
  kernel: np.ndarray
  bias: np.ndarray


def fuse(
  network: Network, folded: dict[str, Weights]
) -> tuple[tuple[records.Layer, ...], dict[str, Weights]]:
  """The layers that are served for a network's, and their weights.

  Args:
    network: its layers, batch norms among them.
    folded: weights of linear layers and of batch norms, by name (`folding.fold_batch_norm`).

  Returns:
    Layers without a `BatchNorm`, whose linear layers have other names where some are gone; and
    the weights float64 of each, by its name there.
  """
  shapes = iter(records.shapes(network.layers, network.input_shape))
  found, weights = _sequence(network.layers, shapes, folded)
  served = records.shapes(found, network.input_shape)
  names = [s.name for s in served if isinstance(s.layer, records.Conv | records.Dense)]
  return found, dict(zip(names, weights, strict=True))


def _sequence(
  layers: tuple[records.Layer, ...],
  shapes: Iterator[records.LayerShape],
  folded: dict[str, Weights],
) -> tuple[tuple[records.Layer, ...], list[Weights]]:
  """The layers that take the place of these, and the weights of the linear ones among them.

  `shapes` are those of the layers, in walking order. In a sequence only the next layer reads
  one: a value that several read ends its sequence, or stands before a block.
  """
  found: list[records.Layer] = []
  weights: list[Weights] = []
  last: list[_Linear] = []  # the linear layer at the end of `found`, if one is there
  for layer in layers:
    if isinstance(layer, records.Residual | records.Concat):
      weights += [each[1:] for each in last]
      last = []
      block, more = _block(layer, shapes, folded)
      found.append(block)
      weights += more
      continue
    shape = next(shapes)
    if isinstance(layer, records.BatchNorm):
      layer = _of_batch_norm(shape)
    if isinstance(layer, records.Conv | records.Dense):
      one = _Linear(layer, *folded[shape.name])
      both = _composed(last[0], one) if last else None
      if both is None:
        weights += [each[1:] for each in last]
        found.append(layer)
      last = [both or one]
      found[-1] = last[0].layer
      continue
    weights += [each[1:] for each in last]
    last = []
    found.append(layer)
  return tuple(found), weights + [each[1:] for each in last]


def _block(layer, shapes, folded) -> tuple[records.Layer, list[Weights]]:
  """A block of several sequences, each with its linear layers fused."""
  if isinstance(layer, records.Concat):
    branches = [_sequence(branch, shapes, folded) for branch in layer.branches]
    weights = [each for _, own in branches for each in own]
    return records.Concat(tuple(branch for branch, _ in branches)), weights
  branch, ours = _sequence(layer.branch, shapes, folded)
  shortcut, theirs = _sequence(layer.shortcut, shapes, folded)
  return records.Residual(branch, shortcut), ours + theirs


def _of_batch_norm(shape: records.LayerShape) -> records.Conv | records.Dense:
  """The linear layer that computes a batch norm; of flat features it has a diagonal kernel."""
  channels = shape.output_shape[-1]
  if len(shape.output_shape) == 1:
    return records.Dense(channels, batch_norm=True)
  return records.Conv(channels, 1, groups=channels)


def _composed(first: _Linear, second: _Linear) -> _Linear | None:
  """Both layers as one, or None if that is not possible, or has more products."""
  inputs, middle, outputs = first.kernel.shape[-2], first.bias.size, second.bias.size
  if isinstance(first.layer, records.Dense) or isinstance(second.layer, records.Dense):
    # Between a convolution and a dense layer there is a Flatten.
    if inputs * outputs > inputs * middle + middle * outputs:
      return None
    kernel, layer = first.kernel @ second.kernel, second.layer
    return _joined(first, second, layer, kernel, first.bias @ second.kernel + second.bias)
  one, two = first.layer, second.layer
  if _is_pointwise(two) and two.groups == middle == outputs:
    scale = second.kernel.reshape(-1)
    return _joined(first, second, one, first.kernel * scale, first.bias * scale + second.bias)
  if _is_pointwise(one) and one.groups == middle and one.features == middle and not _pads(two):
    # Each output of the second layer reads the inputs of its own group.
    shape = *second.kernel.shape[:3], two.groups, -1
    scale, offset = (
      array.reshape(two.groups, -1).T[..., None] for array in (first.kernel, first.bias)
    )
    kernel = second.kernel.reshape(shape)
    bias = second.bias + (kernel * offset).sum((0, 1, 2)).reshape(-1)
    return _joined(first, second, two, (kernel * scale).reshape(second.kernel.shape), bias)
  if not _is_pointwise(two, any_stride=True) or two.groups > 1:
    return None
  # Under encryption it is pairs of channels that cost, not taps.
  if inputs * one.groups * outputs > inputs * middle + middle * outputs:
    return None
  matrix = second.kernel[0, 0]
  layer = records.Conv(
    outputs,
    one.kernel,
    one.stride * two.stride,
    dilation=one.dilation,
    padding=one.padding,
  )
  kernel = _ungrouped(first.kernel, one.groups) @ matrix
  return _joined(first, second, layer, kernel, first.bias @ matrix + second.bias)


def _joined(first: _Linear, second: _Linear, layer, kernel, bias) -> _Linear:
  """Both as one, of which training knows that batch norm was there (`estimate.untrained`)."""
  norm = first.layer.batch_norm or second.layer.batch_norm
  features = second.layer.features
  return _Linear(dataclasses.replace(layer, features=features, batch_norm=norm), kernel, bias)


def _pads(layer: records.Conv) -> bool:
  return layer.around != records.NO_PADDING


def _is_pointwise(layer: records.Conv, *, any_stride: bool = False) -> bool:
  return layer.kernel == 1 and not _pads(layer) and (any_stride or layer.stride == 1)


def _ungrouped(kernel: np.ndarray, groups: int) -> np.ndarray:
  """A kernel [k, k, I / groups, O] as one of a single group, with zeros."""
  side, _, inputs, outputs = kernel.shape
  found = np.zeros((side, side, groups, inputs, groups, outputs // groups))
  parts = kernel.reshape(side, side, inputs, groups, -1)
  for group in range(groups):
    found[:, :, group, :, group] = parts[:, :, :, group]
  return found.reshape(side, side, groups * inputs, outputs)

"""From a trained, planned network to its fixed-point model.

Batch norm is folded into the weights. Pruned channels are removed, and the others are
permuted so that garbled channels come first. Then calibration images run through the
network, and each layer's format is chosen from the values they have there, with room for
larger ones. If an image's values in a linear layer are far larger than those of the other
images, it no longer counts for the formats from that layer on.
`quantization_report` says how much accuracy fixed point costs.
"""

from collections.abc import Iterator
import dataclasses
import math
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax import ranges
from safenet_jax.approximation import activation, planned_weights
from safenet_jax.crypto.homomorphic import encrypted_convolution
from safenet_jax.fixed_point import calibration, calibration_values, rings
from safenet_jax.fixed_point import model as models
from safenet_jax.fixed_point.formats import Precision, RangeReport
from safenet_jax.fixed_point.model import FixedPointModel, normalise, PublicModel
from safenet_jax.models import layers as records
from safenet_jax.models import weights
from safenet_jax.models.network import activation_channels, Network

# The largest probability of a failed local truncation in an inference that is accepted. In a
# local truncation each party drops low bits of its own share. 2^-20 is usual.
_TRUNCATION_FAILURE = 2.0**-10
_T = TypeVar('_T')


def quantize(
  network: Network,
  variables,
  approximation,
  images: np.ndarray,
  *,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  precision: Precision | None = None,
) -> FixedPointModel:
  """The fixed-point model of a planned network.

  Args:
    network: its layer records.
    variables: trained params and batch_stats.
    approximation: an `Approximation` for each activation layer; None where all are ReLU.
    images: uint8 [B, H, W, C], calibration images that set the formats.
    mean, std: per channel, with which images are normalised.
    precision: bits to aim for.

  Raises:
    ValueError: weights, approximations, images or statistics that are not the network's, or
      not finite; no images; the values do not fit the rings; or more than half of the images
      have values far beyond the others'; or local truncation would fail too often.
  """
  ranges.check_type('network', network, Network)
  precision = precision or Precision()
  ranges.check_type('precision', precision, Precision)
  ranges.check(dataclasses.asdict(precision))
  if approximation is None:
    approximation = activation.all_relu(activation_channels(network))
  weights.check(network, variables)
  planned_weights.check(network, approximation)
  images = _checked(network, images, mean, std)
  operations = calibration.Calibration(network, variables, approximation, precision)
  model = build(network, operations, images, mean=mean, std=std)
  usual = images[operations.usual]
  if 2 * len(usual) < len(images):
    raise ValueError(
      f'{len(images) - len(usual)} of {len(images)} calibration images leave the range of the '
      'others, want at most half of them: a stronger range penalty in training'
    )
  report = RangeReport()
  model.run(usual[:16], report)
  if report.truncation_failure > _TRUNCATION_FAILURE:
    raise ValueError(
      f'local truncation fails with probability {report.truncation_failure:.2g} per image, want '
      f'at most {_TRUNCATION_FAILURE:.2g}: a ring of more than {model.public.precision.ring} bits'
    )
  if not report.truncation_failure:
    return model
  # Clients are told this. Like all that formats say of calibration, it is a power of two.
  bits = math.floor(-math.log2(report.truncation_failure))
  public = dataclasses.replace(model.public, truncation_bits=bits)
  return dataclasses.replace(model, public=public)


def _checked(network: Network, images, mean, std) -> np.ndarray:
  """The calibration images as an array; ValueError for wrong ones, or for wrong statistics."""
  images, shape = np.asarray(images), network.input_shape
  if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
    height, width, channels = shape
    raise ValueError(
      f'calibration images {images.dtype} {images.shape}, '
      f'want uint8 [B, {height}, {width}, {channels}] and at least one'
    )
  for name, values in (('mean', mean), ('std', std)):
    ranges.check({name: values})
    if np.shape(values) != shape[-1:]:
      raise ValueError(f'{name} {values}, want one number for each of {shape[-1]} channels')
  return images


def build(
  network: Network,
  operations: calibration.Calibration,
  images: np.ndarray,
  *,
  mean: tuple[float, ...],
  std: tuple[float, ...],
) -> FixedPointModel:
  """The model that calibration on images makes, without the checks of `quantize`.

  Args:
    network: its layer records.
    operations: the calibration to walk through the network with.
    images: uint8 [B, H, W, C].
    mean, std: per channel, with which images are normalised.

  Raises:
    ValueError: the values do not fit the rings.
  """
  start = operations.start(normalise(images, mean, std))
  end = operations.finish(records.run(operations.layers, operations, start))
  served = calibration_values.steps_since(end.step, None)
  layers = tuple(step.layer for step in served)
  # Layers that are the same for all images are gone, and those behind them have other names.
  old = [name for step in served for name in step.names]
  new = [shape.name for shape in records.shapes(layers, network.input_shape)]
  renamed = dict(zip(old, new, strict=True))

  def kept(found: dict[str, _T]) -> dict[str, _T]:
    return {renamed[name]: value for name, value in found.items() if name in renamed}

  linear = kept(operations.linear)
  public = PublicModel(
    layers=layers,
    input_shape=network.input_shape,
    mean=tuple(mean),
    std=tuple(std),
    precision=operations.precision,
    activations=kept(operations.activations),
    absorbed=frozenset(renamed[name] for name in operations.absorbed if name in renamed),
    input_fraction=int(start.fraction),
    output_fraction=float(end.fraction),
    logit_bits=_logit_bits(end, operations.precision),
  )
  kernels = {name: weights.kernel for name, weights in linear.items()}
  found = rings.narrowest(
    public, lambda name, bits: encrypted_convolution.fits(kernels[name], bits)
  )
  for name, kernel in kernels.items():
    encrypted_convolution.check(name, kernel, found.get(name, public.precision.ring))
  public = dataclasses.replace(public, rings=found)
  return FixedPointModel(public, linear, kept(operations.polynomials), kept(operations.constants))


def _logit_bits(logits: calibration_values.Value, precision: Precision) -> int:
  """Bits that hold the logits' sign and values up to the margin; at most those of the ring."""
  largest = float(np.abs(logits.x).max(initial=0.0)) * 2.0**logits.fraction
  return min(math.ceil(math.log2(precision.margin * largest + 1)) + 1, precision.ring)


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
  """What fixed point costs on labelled images.

  ranges: how the images fit the formats.
  floating, fixed: how many images the float network and the integer model get right.
  agreement: for how many images both give the same class.
  """

  ranges: RangeReport
  floating: int
  fixed: int
  agreement: int

  @property
  def points_lost(self) -> float:
    """Accuracy of the float network less that of the integer model, in percentage points."""
    return 100 * (self.floating - self.fixed) / self.ranges.images

  def record(self) -> dict[str, object]:
    """JSON-like."""
    return dataclasses.asdict(self) | {
      'points_lost': self.points_lost,
      'truncation_failure': self.ranges.truncation_failure,
    }

  def lines(self) -> Iterator[str]:
    """Lines for people: accuracy first, then the layers with values that do not fit."""
    ranges, count = self.ranges, self.ranges.images
    yield (
      f'fixed point: {self.fixed / count:.2%} of {count} images right, float '
      f'{self.floating / count:.2%}: {self.points_lost:.2f} points lost, {self.agreement} alike'
    )
    failure = ranges.truncation_failure
    power = f'2^{math.log2(failure):.1f}' if failure else 'none'
    yield f'expected failures of local truncation per inference: {power}'
    odd = [
      f'{name} {saturated} beyond 15 bits, {ranges.exceeded.get(name, 0)} out of range'
      for name, saturated in ranges.saturated.items()
      if saturated or ranges.exceeded.get(name)
    ]
    yield f'values that do not fit: {"; ".join(odd) or "none in any layer"}'


def quantization_report(
  model: FixedPointModel,
  network: Network,
  variables,
  approximation,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  batch: int = 50,
) -> QuantizationReport:
  """Compares a fixed-point model with the network it was made from.

  Args:
    model: what `quantize` made of the network.
    network, variables, approximation: the float network, as `quantize` got it.
    images: uint8 [N, H, W, C], preferably not those of the calibration.
    labels: integers [N].
    batch: images at a time; the last batch may be smaller.

  Raises:
    ValueError: there are no images, or not as many labels as images; or images that the
      network does not take.
  """
  models.check(model)
  ranges.check({'batch': batch})
  if len(images) != len(labels) or not len(images):
    raise ValueError(f'{len(images)} images with {len(labels)} labels, want as many, and some')
  forward = jax.jit(lambda x: network.apply(variables, x, approximation))
  found = RangeReport()
  floating = fixed = agreement = 0
  for first in range(0, len(images), batch):
    part, wanted = (np.asarray(a[first : first + batch]) for a in (images, labels))
    normal = jnp.asarray(model.public.normalise(part), jnp.float32)
    ours = np.asarray(forward(normal)).argmax(-1)
    theirs = model.run(part, found).argmax(-1)
    floating += int((ours == wanted).sum())
    fixed += int((theirs == wanted).sum())
    agreement += int((ours == theirs).sum())
  return QuantizationReport(found, floating, fixed, agreement)

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
from safenet_jax.fixed_point import model as models
from safenet_jax.fixed_point import products, rings
from safenet_jax.fixed_point.formats import Precision, RangeReport
from safenet_jax.fixed_point.model import FixedPointModel, normalise, PublicModel
from safenet_jax.models import layers as records
from safenet_jax.models import weights
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.quantization import (
  calibration,
  channel_order,
  equalisation,
  folding,
  fusing,
  significance,
  values,
)
from safenet_jax.quantization.statistics import Progress, Statistics

# The largest probability of a failed local truncation in an inference that is accepted. In a
# local truncation each party drops low bits of its own share. 2^-20 is usual.
_TRUNCATION_FAILURE = 2.0**-10
# The float network takes so many times the images that the integers take at once.
_BATCH = 8
# Layers of trained networks keep four significant bits or more in three quarters of their channels.
_FEW = 3.0
# How many images tell how many bits a layer keeps.
_SIGNIFICANT = 8
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
  progress: Progress | None = None,
) -> FixedPointModel:
  """The fixed-point model of a planned network.

  Args:
    network: its layer records.
    variables: trained params and batch_stats.
    approximation: an `Approximation` for each activation layer; None where all are ReLU.
    images: uint8 [B, H, W, C], calibration images that set the formats.
    mean, std: per channel, with which images are normalised.
    precision: bits to aim for.
    progress: called with how many images are done, and how many there are.

  Raises:
    ValueError: weights, approximations, images or statistics that are not the network's, or
      not finite; no images; the values do not fit the rings; or more than half of the images
      have values far beyond the others'; or local truncation would fail too often.
  """
  ranges.check_type('network', network, Network)
  precision = precision or Precision()
  ranges.check_type('precision', precision, Precision)
  ranges.check(dataclasses.asdict(precision))
  precision = dataclasses.replace(precision, margin=float(precision.margin))
  if approximation is None:
    approximation = activation.all_relu(activation_channels(network))
  weights.check(network, variables)
  planned_weights.check(network, approximation)
  images, mean, std = _checked(network, images, mean, std)
  found = prepare(
    network, variables, approximation, precision, images, mean=mean, std=std, progress=progress
  )
  operations = calibration.Calibration(found, precision)
  model = build(operations, mean=mean, std=std)
  usual = images[operations.usual]
  if 2 * len(usual) < len(images):
    raise ValueError(
      f'{len(images) - len(usual)} of {len(images)} calibration images leave the range of the '
      'others, want at most half of them: a stronger range penalty in training'
    )
  if not model.public.truncation_failure:
    return model
  report = RangeReport()
  model.run(usual[:16], report)
  if report.truncation_failure > _TRUNCATION_FAILURE:
    raise ValueError(
      f'local truncation fails with probability {report.truncation_failure:.2g} per image, want '
      f'at most {_TRUNCATION_FAILURE:.2g}: a ring of more than {model.public.precision.ring} bits'
    )
  # Clients are told this. Like all that formats say of calibration, it is a power of two.
  bits = math.floor(-math.log2(report.truncation_failure))
  public = dataclasses.replace(model.public, truncation_bits=bits)
  return dataclasses.replace(model, public=public)


def _checked(network: Network, images, mean, std) -> tuple[np.ndarray, tuple, tuple]:
  """Calibration images as an array, and statistics as floats; ValueError for wrong ones."""
  images, shape = np.asarray(images), network.input_shape
  if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
    height, width, channels = shape
    raise ValueError(
      f'calibration images {images.dtype} {images.shape}, '
      f'want uint8 [B, {height}, {width}, {channels}] and at least one'
    )
  mean, std = map(_plain, (mean, std))
  for name, given in (('mean', mean), ('std', std)):
    ranges.check({name: given})
    if np.shape(given) != shape[-1:]:
      raise ValueError(f'{name} {given}, want one number for each of {shape[-1]} channels')
  return images, tuple(map(float, mean)), tuple(map(float, std))


def _plain(numbers):
  """A tuple of Python's numbers for an array, or for a sequence of its scalars; else as it is."""
  numbers = numbers.tolist() if hasattr(numbers, 'tolist') else numbers
  if not isinstance(numbers, tuple | list):
    return numbers
  return tuple(each.item() if hasattr(each, 'item') else each for each in numbers)


def parts(network: Network, variables, approximation):
  """The layers, weights and splits of `calibration.Prepared`; arguments as for `quantize`."""
  splits = [folding.Split(layer) for layer in approximation]
  layers, folded = fusing.fuse(network, folding.fold_batch_norm(network, variables))
  return channel_order.rectified_first(layers, splits), folded, splits


def prepare(
  network: Network,
  variables,
  approximation,
  precision: Precision,
  images: np.ndarray,
  *,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  progress: Progress | None = None,
) -> calibration.Prepared:
  """The network with batch norm in its weights and even channels. Arguments as for `quantize`."""
  layers, folded, splits = parts(network, variables, approximation)
  statistics = Statistics(folded, splits)
  for part in products.batches(layers, network.input_shape, len(images)):
    statistics.add_images(layers, normalise(images[part], mean, std))
    if progress:
      progress(min(part.stop, len(images)), len(images))
  found = calibration.Prepared(layers, network.input_shape, folded, splits, statistics)
  return equalisation.equalised(found, precision)


def build(
  operations: calibration.Calibration, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> FixedPointModel:
  """The model that a calibration makes, without the checks of `quantize`.

  Args:
    operations: the calibration to walk through the network with.
    mean, std: per channel, with which images are normalised.

  Raises:
    ValueError: the values do not fit the rings.
  """
  end = operations.finish(records.run(operations.layers, operations, operations.start))
  served = values.steps_since(end.step, None)
  layers = tuple(step.layer for step in served)
  # Layers that are the same for all images are gone, and those behind them have other names.
  old = [name for step in served for name in step.names]
  new = [shape.name for shape in records.shapes(layers, operations.input_shape)]
  renamed = dict(zip(old, new, strict=True))

  def kept(found: dict[str, _T]) -> dict[str, _T]:
    return {renamed[name]: value for name, value in found.items() if name in renamed}

  linear = kept(operations.linear)
  public = PublicModel(
    layers=layers,
    input_shape=operations.input_shape,
    mean=tuple(mean),
    std=tuple(std),
    precision=operations.precision,
    activations=kept(operations.activations),
    absorbed=frozenset(renamed[name] for name in operations.absorbed if name in renamed),
    input_fraction=int(operations.start.fraction),
    output_fraction=float(end.fraction),
    logit_bits=_logit_bits(operations, end),
  )
  kernels = {name: weights.kernel for name, weights in linear.items()}
  found = rings.narrowest(
    public, lambda name, bits: encrypted_convolution.fits(kernels[name], bits)
  )
  for name, kernel in kernels.items():
    encrypted_convolution.check(name, kernel, found.get(name, public.precision.ring))
  public = dataclasses.replace(public, rings=found)
  return FixedPointModel(public, linear, kept(operations.polynomials), kept(operations.constants))


def _logit_bits(operations: calibration.Calibration, logits: values.Value) -> int:
  """Bits that hold the logits' sign and values up to the margin; at most those of the ring."""
  precision = operations.precision
  largest = operations.largest('logits') * 2.0**logits.fraction
  return min(math.ceil(math.log2(precision.margin * largest + 1)) + 1, precision.ring)


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
  """What fixed point costs on labelled images.

  ranges: how the images fit the formats.
  floating, fixed: how many images the float network and the integer model get right.
  agreement: for how many images both give the same class.
  significant: by linear layer, the bits of its outputs that are more than noise of rounding: a
    quarter of its channels have no more (`significance.of`, on the first images).
  """

  ranges: RangeReport
  floating: int
  fixed: int
  agreement: int
  significant: dict[str, float] = dataclasses.field(default_factory=dict)

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
    """Lines for people: accuracy, then layers with values that do not fit or keep few bits."""
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
    few = [f'{name} {bits:.1f}' for name, bits in self.significant.items() if bits < _FEW]
    if few:
      yield f'few significant bits, in a quarter of the channels no more than: {", ".join(few)}'


def quantization_report(
  model: FixedPointModel,
  network: Network,
  variables,
  approximation,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  batch: int | None = None,
  progress: Progress | None = None,
) -> QuantizationReport:
  """Compares a fixed-point model with the network it was made from.

  Args:
    model: what `quantize` made of the network.
    network, variables, approximation: the float network, as `quantize` got it.
    images: uint8 [N, H, W, C], preferably not those of the calibration.
    labels: integers [N].
    batch: images at a time; the last batch may be smaller. None takes as many as memory for
      some of the network's largest maps allows, and at most 50.
    progress: called with how many images are done, and how many there are.

  Raises:
    ValueError: there are no images, or not as many labels as images; or images that the
      network does not take.
  """
  models.check(model)
  if batch is None:
    first = next(products.batches(network.layers, network.input_shape, len(images) or 1))
    batch = min(_BATCH * first.stop, 50)
  ranges.check({'batch': batch})
  if len(images) != len(labels) or not len(images):
    raise ValueError(f'{len(images)} images with {len(labels)} labels, want as many, and some')
  forward = jax.jit(lambda x: network.apply(variables, x, approximation))
  found = RangeReport()
  floating = fixed = agreement = 0
  for start in range(0, len(images), batch):
    part, wanted = (np.asarray(a[start : start + batch]) for a in (images, labels))
    normal = jnp.asarray(model.public.normalise(part), jnp.float32)
    ours = np.asarray(forward(normal)).argmax(-1)
    theirs = model.run(part, found).argmax(-1)
    floating += int((ours == wanted).sum())
    fixed += int((theirs == wanted).sum())
    agreement += int((ours == theirs).sum())
    if progress:
      progress(min(start + batch, len(images)), len(images))
  bits = significance.of(model, np.asarray(images[:_SIGNIFICANT]))
  significant = {name: float(np.quantile(each, 0.25)) for name, each in bits.items()}
  return QuantizationReport(found, floating, fixed, agreement, significant)

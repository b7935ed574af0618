"""From a trained, planned network to its fixed-point model.

Batch norm is folded into the weights, pruned channels are removed, the rest is
permuted so that garbled channels come first, and the formats of every layer are
chosen from calibration images, with room for values larger than those seen.
An image whose values leave all bounds in a layer sets no format from there on.
`quantization_report` says what that cost.
"""

from collections.abc import Iterator
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from safenet_jax.approximation import activation
from safenet_jax.fixed_point import calibration
from safenet_jax.fixed_point.formats import Precision, RangeReport
from safenet_jax.fixed_point.model import FixedPointModel, normalise, PublicModel
from safenet_jax.models import layers as records
from safenet_jax.models.network import activation_channels, Network

# Most of an inference's chances to fail in a local truncation: 2^-20 is usual.
_TRUNCATION_FAILURE = 2.0**-10


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
    approximation: per activation layer an `Approximation`; None where all are ReLU.
    images: uint8 [B, H, W, C], calibration images that set the formats.
    mean, std: per channel, with which images are normalised.
    precision: bits to aim for.

  Raises:
    ValueError: the values do not fit the rings, or most images leave the range of the others.
  """
  if approximation is None:
    approximation = activation.all_relu(activation_channels(network))
  operations = calibration.Calibration(network, variables, approximation, precision or Precision())
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
  # A power of two, as all that formats say of calibration: clients are told.
  bits = math.floor(-math.log2(report.truncation_failure))
  public = dataclasses.replace(model.public, truncation_bits=bits)
  return dataclasses.replace(model, public=public)


def build(
  network: Network,
  operations: calibration.Calibration,
  images: np.ndarray,
  *,
  mean: tuple[float, ...],
  std: tuple[float, ...],
) -> FixedPointModel:
  """The model that these operations make of images, not run yet; see `quantize`."""
  start = operations.start(normalise(images, mean, std))
  end = records.run(network.layers, operations, start)
  if end.x.shape[-1] == end.channels.size:
    end = end.arranged(np.arange(end.total))
  public = PublicModel(
    layers=calibration.layers_since(end.step, None),
    input_shape=network.input_shape,
    mean=tuple(mean),
    std=tuple(std),
    precision=operations.precision,
    activations=operations.activations,
    absorbed=operations.absorbed,
    input_fraction=start.fraction,
    output_fraction=end.fraction,
    logit_bits=_logit_bits(end, operations.precision),
  )
  return FixedPointModel(public, operations.linear, operations.polynomials)


def _logit_bits(logits: calibration.Value, precision: Precision) -> int:
  """Bits that hold the logits with a sign and the margin, at most the ring's."""
  largest = float(np.abs(logits.x).max(initial=0.0)) * 2.0**logits.fraction
  return min(math.ceil(math.log2(precision.margin * largest + 1)) + 1, precision.ring)


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
  """What fixed point costs on labelled images.

  ranges: how they fit the formats.
  floating, fixed: images that the float network and the integer model get right.
  agreement: images of which both say the same class.
  """

  ranges: RangeReport
  floating: int
  fixed: int
  agreement: int

  @property
  def points_lost(self) -> float:
    """Accuracy of the float network less that of the integer model, in points of 100."""
    return 100 * (self.floating - self.fixed) / self.ranges.images

  def record(self) -> dict[str, object]:
    """JSON-like."""
    return dataclasses.asdict(self) | {
      'points_lost': self.points_lost,
      'truncation_failure': self.ranges.truncation_failure,
    }

  def lines(self) -> Iterator[str]:
    """For people: accuracy first, then the layers with values that do not fit."""
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
    model: of `quantize`, with these three arguments:
    network, variables, approximation: the float network.
    images: uint8 [N, H, W, C], best others than those of the calibration.
    labels: integers [N].
    batch: images at a time; the last batch may be smaller.

  Raises:
    ValueError: no images, or as many labels as there are not.
  """
  if len(images) != len(labels) or not len(images):
    raise ValueError(f'{len(images)} images with {len(labels)} labels, want as many, and some')
  forward = jax.jit(lambda x: network.apply(variables, x, approximation))
  ranges = RangeReport()
  floating = fixed = agreement = 0
  for first in range(0, len(images), batch):
    part, wanted = (np.asarray(a[first : first + batch]) for a in (images, labels))
    normal = jnp.asarray(model.public.normalise(part), jnp.float32)
    ours = np.asarray(forward(normal)).argmax(-1)
    theirs = model.run(part, ranges).argmax(-1)
    floating += int((ours == wanted).sum())
    fixed += int((theirs == wanted).sum())
    agreement += int((ours == theirs).sum())
  return QuantizationReport(ranges, floating, fixed, agreement)

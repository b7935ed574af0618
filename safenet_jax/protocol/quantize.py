"""From a trained, planned network to its fixed-point model.

Batch norm is folded into the weights, pruned channels are removed, the rest is
permuted so that garbled channels come first, and the formats of every layer are
chosen from calibration images, with room for values larger than those seen.
`quantization_report` says what that cost.
"""

import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.models.network import Network
from safenet_jax.protocol import calibration
from safenet_jax.protocol.formats import FixedPointModel, Precision, RangeReport

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
    approximation: per activation layer an `Approximation`.
    images: uint8 [B, H, W, C], calibration images that set the formats.
    mean, std: per channel, with which images are normalised.
    precision: bits to aim for.

  Raises:
    ValueError: the values do not fit the rings.
  """
  operations = calibration.Calibration(
    network, variables, approximation, precision or Precision()
  )
  normal = (images / 255.0 - np.asarray(mean)) / np.asarray(std)
  start = operations.start(normal)
  end = records.run(network.layers, operations, start)
  if end.x.shape[-1] == end.channels.size:
    end = end.arranged(np.arange(end.total))
  model = FixedPointModel(
    layers=calibration.layers_since(end.step, None),
    input_shape=network.input_shape,
    mean=tuple(mean),
    std=tuple(std),
    precision=operations.precision,
    activations=operations.activations,
    linear=operations.linear,
    polynomials=operations.polynomials,
    absorbed=operations.absorbed,
    input_fraction=start.fraction,
    output_fraction=end.fraction,
  )
  report = RangeReport()
  model.run(images[:16], report)
  if report.truncation_failure > _TRUNCATION_FAILURE:
    raise ValueError(
      f'local truncation fails with probability {report.truncation_failure:.2g} per image, want '
      f'at most {_TRUNCATION_FAILURE:.2g}: a ring of more than {model.precision.ring} bits'
    )
  return model

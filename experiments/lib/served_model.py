"""The planned network of a finished run in fixed point, ready to be served."""

from typing import Any, NamedTuple

import numpy as np

from experiments.lib import from_config, launcher
from safenet_jax.data import Dataset
from safenet_jax.fixed_point import formats
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models.network import Network
from safenet_jax.quantization import quantize
from safenet_jax.search import members
from safenet_jax.search.members import Member, Task
from safenet_jax.workdir import Workdir


class Served(NamedTuple):
  """A run's planned network, ready to be served."""

  model: FixedPointModel
  network: Network
  images: Dataset
  workdir: Workdir
  planned: Member
  task: Task


def served(config, *, writes: bool = False) -> Served:
  """The fixed-point model of a finished run. Validation images choose the bits of each layer.

  `writes` says whether the command writes into the workdir.
  """
  images = from_config.dataset(config)
  net = from_config.network(config, images)
  workdir = launcher.workdir(config, *from_config.SECTIONS, 'secure', writes=writes)
  pretrained = from_config.trained(config, net, workdir, 'pretrain')
  planned = from_config.trained(config, net, workdir, 'finetune')
  options = from_config.training(config.finetune)
  task = from_config.planned_task(net, images, pretrained, options, workdir)
  variables, approximation = members.variables(planned), members.approximation(planned, task)
  model = in_fixed_point(config, net, images, variables, approximation)
  return Served(model, net, images, workdir, planned, task)


def in_fixed_point(
  config, net: Network, images: Dataset, variables: Any, approximation: Any
) -> FixedPointModel:
  """A planned network in fixed point, as section `secure` of the config wants it."""
  with launcher.progress_bar('calibration') as report:
    return quantize.quantize(
      net,
      variables,
      approximation,
      np.asarray(images.validation.images[: config.secure.calibration_images]),
      mean=images.mean,
      std=images.std,
      precision=formats.Precision(
        activation=config.secure.activation_bits, weight=config.secure.weight_bits
      ),
      progress=lambda done, total: report(done, total, {}),
    )

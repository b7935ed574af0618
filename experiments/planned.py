"""The planned network of a finished run in fixed point, ready to be served."""

from typing import NamedTuple

import numpy as np

from experiments import launcher
from experiments import pipeline
from safenet_jax.data import Dataset
from safenet_jax.models.network import Network
from safenet_jax.protocol import quantize
from safenet_jax.protocol.formats import FixedPointModel
from safenet_jax.search import member as members
from safenet_jax.search.member import Member, Task
from safenet_jax.workdir import Workdir


class Served(NamedTuple):
  """A run's planned network, ready to be served."""

  model: FixedPointModel
  network: Network
  images: Dataset
  workdir: Workdir
  planned: Member
  task: Task


def served(config) -> Served:
  """The fixed-point model of a finished run, its formats from validation images."""
  images = pipeline.dataset(config)
  net = pipeline.network(config, images)
  workdir = launcher.workdir(config, 'model', 'data', 'teacher', 'pretrain', 'search', 'secure')
  pretrained = pipeline.trained(config, net, workdir, 'pretrain', 'pretrain')
  planned = pipeline.trained(config, net, workdir, 'finetune', 'search')
  task = pipeline.task(
      net, images, pipeline.training(config.search, 'finetune'), pipeline.variables(pretrained)
  )
  model = quantize.quantize(
      net, pipeline.variables(planned), members.approximation(planned, task),
      np.asarray(images.validation.images[: config.secure.calibration_images]),
      mean=images.mean, std=images.std,
  )
  return Served(model, net, images, workdir, planned, task)

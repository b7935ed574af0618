"""What the commands of private inference share: the planned network in fixed point, and flags."""

import pathlib
from typing import NamedTuple

from absl import flags
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

HOST = flags.DEFINE_string('host', None, 'Address of the server, or to serve at.')
PORT = flags.DEFINE_integer('port', 7341, 'Port of the server; serve: 0 takes a free one.')
CERTIFICATE = flags.DEFINE_string('certificate', None, 'PEM file of this party, with --key.')
KEY = flags.DEFINE_string('key', None, 'PEM file of the private key of --certificate.')
CA = flags.DEFINE_string(
    'ca', None, "PEM file of the authorities to trust, instead of the system's."
)
IN_THE_CLEAR = flags.DEFINE_bool('insecure_clear', False, 'Without TLS: for measurements only.')


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
  workdir = launcher.workdir(config, 'model', 'data', 'pretrain', 'search', 'secure')
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


def needed(name: str, value: str | None) -> pathlib.Path:
  """The path in a flag that has to be given."""
  if not value:
    raise ValueError(f'no --{name}, want a file (or --insecure_clear to go without TLS)')
  return pathlib.Path(value)


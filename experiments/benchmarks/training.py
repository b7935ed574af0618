"""Training speed: one step of a full-width network, batch 128, 32 x 32 images.

- `step/<network>`: images/s of the all-ReLU network, inside the scan that `fit` runs. The floor is
  PyTorch on the CPU, where it is installed (channels-last, the same loss, clipping and SGD);
- `step_planned/<network>`: the same with every polynomial computed too;
- `in_scan/<network>`: time of a step inside a scan over that of a step alone.

Runs take turns, and figures are medians.
"""

from collections.abc import Callable, Iterator
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import Row
from safenet_jax import data
from safenet_jax.approximation import importance
from safenet_jax.models import architectures, layers
from safenet_jax.models.network import Network
from safenet_jax.search import fit, members

try:
  import torch
except ImportError:  # only ever a yardstick
  torch = None

BATCH = 128
STEPS = 8
REPETITIONS = 5
NETWORKS = ('cnn7',)


def rows() -> Iterator[Row]:
  """Measures every network of NETWORKS; about a minute each on two cores."""
  for name in NETWORKS:
    network = architectures.build(name)
    runs = {'scan': _ours(network, STEPS), 'alone': _ours(network, 1)}
    runs['planned'] = _ours(network, STEPS, polynomials=True)
    if torch is not None:
      runs['torch'] = torch_step(network)
    seconds = alternate(runs)
    floor = BATCH / seconds['torch'] if torch is not None else None
    cores = len(os.sched_getaffinity(0))
    setting = f'batch {BATCH}, {jax.default_backend()}, {cores} cores'
    for row, run in (('step', 'scan'), ('step_planned', 'planned')):
      speed = BATCH * STEPS / seconds[run]
      yield Row('training', f'{row}/{name}', setting, speed, 'images/s', floor)
    slower = seconds['scan'] / STEPS / seconds['alone']
    yield Row('training', f'in_scan/{name}', setting, slower, 'ratio', 1.0)


def alternate(runs: dict[str, Callable[[], None]]) -> dict[str, float]:
  """Median seconds of each run, interleaved: what else the machine does hits all alike."""
  for run in runs.values():
    run()
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(REPETITIONS):
    for name, run in runs.items():
      start = time.perf_counter()
      run()
      seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in seconds.items()}


def _data(network: Network, count: int = 1024):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (count, *network.input_shape), dtype=np.uint8)
  return images, rng.integers(0, 10, count, dtype=np.int32)


def start(network: Network, options: members.Training) -> tuple[members.Member, members.Task]:
  """An all-ReLU member with random weights, and random images to train it with."""
  images, labels = map(jnp.asarray, _data(network))
  network = network.clone(dtype=members.compute_dtype(options))
  variables = jax.jit(network.init)(jax.random.key(0))
  task = members.Task(
    train=data.Split(images, labels),
    validation=data.Split(images[:1], labels[:1]),
    channel_ranks=importance.ranks(network, variables),
    network=network,
    training=options,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
  )
  return members.all_relu(variables, 0.01, network, options), task


def _ours(network: Network, steps: int, polynomials: bool = False) -> Callable[[], None]:
  member, task = start(network, members.Training(batch_size=BATCH, polynomials=polynomials))
  member = jax.tree.map(jnp.copy, member)
  batches = jnp.arange(steps * BATCH, dtype=jnp.int32).reshape(steps, BATCH)
  ones = jnp.ones(steps, jnp.float32)

  def run():
    nonlocal member  # donated
    member, losses = fit.train_chunk(jax.random.key(0), member, task, batches, ones, 0 * ones)
    np.asarray(losses)

  return run


def torch_step(network: Network) -> Callable[[], None]:
  """A run of one step in PyTorch of the same network, loss, clipping and SGD; no augmentation."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  model = torch.nn.Sequential(*_modules(network)).to(memory_format=torch.channels_last)
  sgd = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
  images, labels = _data(network)
  images = torch.from_numpy(images[:BATCH]).permute(0, 3, 1, 2)
  labels = torch.from_numpy(labels[:BATCH]).long()

  def run():
    sgd.zero_grad(set_to_none=True)
    logits = model((images.float() / 255 - 0.5) / 0.25)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    sgd.step()
    loss.item()

  return run


def _modules(network: Network) -> Iterator:
  """The layer records of a straight network as PyTorch modules."""
  nn = torch.nn
  for shape in layers.shapes(network.layers, network.input_shape):
    channels, layer = shape.input_shape[-1], shape.layer
    match layer:
      case layers.Conv():
        yield nn.Conv2d(
          channels,
          layer.features,
          layer.kernel,
          layer.stride,
          layer.kernel // 2,
          bias=not layer.batch_norm,
        )
        if layer.batch_norm:
          yield nn.BatchNorm2d(layer.features)
      case layers.Activation():
        yield nn.ReLU()
      case layers.AveragePool():
        yield nn.AvgPool2d(layer.window)
      case layers.Flatten():
        yield nn.Flatten()
      case layers.Dense():
        yield nn.Linear(channels, layer.features)

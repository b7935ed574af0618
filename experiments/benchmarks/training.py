"""Training speed: one step of a network, batch 128, 32 x 32 images.

- `step/<network>`: images/s of the all-ReLU network, inside the scan that `fit` runs. The floor is
  as many steps of PyTorch on the CPU, where it is installed (channels-last, the same loss, clipping
  and SGD);
- `step_planned/<network>`: the same with every polynomial computed too;
- `in_scan/<network>`: time of a step inside a scan over that of a step alone.

Runs take turns, and figures are medians.
"""

from collections.abc import Callable, Iterator, Sequence
import os
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import benchmarks
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
STEPS = 4
REPETITIONS = 3
PAUSE = 0.3  # seconds
# Names of rows, and what the networks are.
NETWORKS = {
  'cnn7': ('cnn7', 1.0),
  'cnn7_half': ('cnn7', 0.5),
  'cnn7_quarter': ('cnn7', 0.25),
  'resnet32': ('resnet32', 1.0),
  'vgg16': ('vgg16', 1.0),
}


def rows() -> Iterator[Row]:
  """Measures every network of NETWORKS; three to four minutes in all on two cores."""
  names = ['cnn7_quarter'] if benchmarks.QUICK.value else NETWORKS
  for name in names:
    architecture, width = NETWORKS[name]
    network = architectures.build(architecture, width=width)
    runs = {'scan': ours(network, STEPS), 'alone': ours(network, 1)}
    runs['planned'] = ours(network, STEPS, polynomials=True)
    if torch is not None:
      runs['torch'] = _in_a_row(torch_step(network), STEPS)
    seconds = alternate(runs)
    floor = BATCH * STEPS / seconds['torch'] if torch is not None else None
    cores = len(os.sched_getaffinity(0))
    setting = f'batch {BATCH}, {jax.default_backend()}, {cores} cores'
    for row, run in (('step', 'scan'), ('step_planned', 'planned')):
      speed = BATCH * STEPS / seconds[run]
      yield Row('training', f'{row}/{name}', setting, speed, 'images/s', floor)
    slower = seconds['scan'] / STEPS / seconds['alone']
    yield Row('training', f'in_scan/{name}', setting, slower, 'ratio', 1.0)


def alternate(runs: dict[str, Callable[[], None]]) -> dict[str, float]:
  """Median seconds of each run, interleaved: what else the machine does hits all alike.

  A run is timed once it is warm, and after a pause: PyTorch's threads spin for a while when
  their work is done, and would take a core from the run behind them.
  """
  for run in runs.values():
    run()
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(REPETITIONS):
    for name, run in runs.items():
      time.sleep(PAUSE)
      run()
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


def ours(network: Network, steps: int, polynomials: bool = False) -> Callable[[], None]:
  """A run of so many training steps of an all-ReLU member, in one scan."""
  member, task = start(network, members.Training(batch_size=BATCH, polynomials=polynomials))
  member = jax.tree.map(jnp.copy, member)
  batches = jnp.arange(steps * BATCH, dtype=jnp.int32).reshape(steps, BATCH)
  ones = jnp.ones(steps, jnp.float32)

  def run():
    nonlocal member  # donated
    member, losses = fit.train_chunk(jax.random.key(0), member, task, batches, ones, 0 * ones)
    np.asarray(losses)

  return run


def _in_a_row(step: Callable[[], None], steps: int) -> Callable[[], None]:
  # A single step between other work is much slower: its threads and its memory have gone cold.
  def run():
    for _ in range(steps):
      step()

  return run


def torch_step(network: Network) -> Callable[[], None]:
  """A run of one step in PyTorch of the same network, loss, clipping and SGD; no augmentation."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  model = _module(network.layers)
  with torch.no_grad():
    model(torch.zeros(2, *network.input_shape[2:], *network.input_shape[:2]))
  weights = sum(parameter.numel() for parameter in model.parameters())
  ours = jax.eval_shape(network.init, jax.random.key(0))['params']
  if weights != (want := sum(leaf.size for leaf in jax.tree.leaves(ours))):
    raise RuntimeError(f'{weights} weights in PyTorch, want {want} as in the network')
  model = model.to(memory_format=torch.channels_last)
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


def _module(records: Sequence[layers.Layer]):
  """Layer records as a PyTorch module, which takes its sizes from its first input."""
  nn: Any = torch.nn

  class Residual(nn.Module):
    def __init__(self, branch, shortcut):
      super().__init__()
      self.branch, self.shortcut = branch, shortcut

    def forward(self, x):
      return self.branch(x) + self.shortcut(x)

  class PadShortcut(nn.Module):
    def __init__(self, layer):
      super().__init__()
      self.layer = layer

    def forward(self, x):
      more = self.layer.features - x.shape[1]
      strided = x[:, :, :: self.layer.stride, :: self.layer.stride]
      return nn.functional.pad(strided, (0, 0, 0, 0, more // 2, more - more // 2))

  modules: list[Any] = []
  for layer in records:
    match layer:
      case layers.Conv(features, kernel, stride, batch_norm):
        modules.append(nn.LazyConv2d(features, kernel, stride, kernel // 2, bias=not batch_norm))
        if batch_norm:
          modules.append(nn.BatchNorm2d(features))
      case layers.Dense(features, batch_norm):
        modules.append(nn.LazyLinear(features, bias=not batch_norm))
        if batch_norm:
          modules.append(nn.BatchNorm1d(features))
      case layers.Activation():
        modules.append(nn.ReLU())
      case layers.AveragePool(None):
        modules.append(nn.AdaptiveAvgPool2d(1))
      case layers.AveragePool(window):
        modules.append(nn.AvgPool2d(window))
      case layers.MaxPool(window):
        modules.append(nn.MaxPool2d(window))
      case layers.Flatten():
        modules.append(nn.Flatten())
      case layers.PadShortcut():
        modules.append(PadShortcut(layer))
      case layers.Residual(branch, shortcut):
        modules.append(Residual(_module(branch), _module(shortcut)))
      case _:
        raise ValueError(f'no PyTorch module for {layer}')
  return nn.Sequential(*modules)

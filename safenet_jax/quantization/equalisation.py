"""Powers of two by which channels are scaled, so that those of a layer can share one format.

A layer has one format for all of its channels. Where one of them is a hundred times as large as
the others, these keep hardly any bits. A positive factor of a channel passes ReLU, pools and sums.
So the part of a kernel that makes the channel is multiplied by it, and the part that reads it is
divided, which leaves the network's function as it is (Nagel et al. 2019, arXiv 1906.04721, section
4.1). Powers of two do so exactly, in floats too. Factors are in the weights, and so not public.

They are chosen to make the errors of rounding small. Let x be what a linear layer reads, y what it
makes, and s the factors. A weight of variance d^2 gives output o an error of d^2 P / s_o^2, where
P is the sum of s_i^2 x_i^2 over all i that the kernel reads. Rounding behind an activation adds
e^2 / s_o^2. How much of it is felt is the sum of the squared weights that read o, each divided by
the mean square of what it adds to. All errors together are convex in log s.
"""

import copy
import math

import numpy as np

from safenet_jax.fixed_point.formats import Precision
from safenet_jax.models import layers as records
from safenet_jax.quantization.calibration import Prepared

# Factors nearer to one than four are left out: they gain no accuracy, and would change the formats
# of networks whose channels are even already.
_LEAST = 2
_ROUNDS = 20
# A layer may have values up to this, or as large as its largest one is. Larger ones cost bits.
_USUAL = 2.0


class _Factors:
  """Operations on int [C]: which factor every channel of a value has. Number 0 is 1, and stays.

  named: the value of every layer and sum, by its name.
  read: what every linear layer reads.
  """

  def __init__(self, prepared: Prepared):
    self.named: dict[str, np.ndarray] = {}
    self.read: dict[str, np.ndarray] = {}
    self._parents, self._additions = [0], 0
    shapes = records.shapes(prepared.layers, prepared.input_shape)
    self._positions = {s.name: math.prod(s.input_shape[:-1]) for s in shapes}
    start = np.zeros(prepared.input_shape[-1], np.int64)
    self._tie(records.run(prepared.layers, self, start), 0)
    root = np.array([self._root(n) for n in range(len(self._parents))])
    for found in (self.named, self.read):
      found.update({name: root[value] for name, value in found.items()})
    self.count = root.size

  def _root(self, number: int) -> int:
    while self._parents[number] != number:
      self._parents[number] = number = self._parents[self._parents[number]]
    return number

  def _tie(self, left: np.ndarray, right: np.ndarray | int) -> np.ndarray:
    """Makes the channels' factors equal."""
    for a, b in np.broadcast(left, right):
      a, b = sorted((self._root(int(a)), self._root(int(b))))
      self._parents[b] = a
    return left

  def _fresh(self, count: int) -> np.ndarray:
    first = len(self._parents)
    self._parents.extend(range(first, first + count))
    return np.arange(first, first + count)

  def conv(self, name, layer, value):
    self.read[name] = value
    self.named[name] = self._fresh(layer.features)
    return self.named[name]

  dense = conv

  def activation(self, name, layer, value):
    if layer.limit is not None:
      self._tie(value, 0)  # a limit is one for all channels
    self.named[f'{name}/input'] = self.named[name] = value
    return value

  def average_pool(self, name, layer, value):
    del layer
    self.named[f'{name}/input'] = self.named[name] = value
    return value

  max_pool = average_pool

  def flatten(self, name, layer, value):
    del layer
    return np.tile(value, self._positions[name])

  def pad_shortcut(self, name, layer, value):
    del name
    more = layer.features - value.size
    # Zeros have any factor: what is added to them decides.
    return np.concatenate([self._fresh(more // 2), value, self._fresh(more - more // 2)])

  def concat(self, values):
    return np.concatenate(values)

  def add(self, branch, shortcut):
    name = f'add{self._additions}'
    self._additions += 1
    self.named[name] = self._tie(branch, shortcut)
    return branch


class _Linear:
  """One linear layer, as the choice of its channels' factors sees it.

  read, made: which factor every input and every output channel has.
  energy: mean squares of the inputs, times the taps that read each; [I].
  felt: by input channel, how much of an error of it is felt: its squared weights, each divided
    by the mean square of the output that it adds to; [I].
  own: by output channel, one over its mean square; [O].
  """

  def __init__(self, name: str, prepared: Prepared, factors: _Factors):
    kernel, _ = prepared.folded[name]
    self.read, self.made = factors.read[name], factors.named[name]
    squares = prepared.statistics.squares
    outputs = np.median(squares[name], 0)
    self.own = 1 / np.maximum(outputs, max(1e-6 * outputs.mean(), 1e-30))
    taps = math.prod(kernel.shape[:-2])
    self.energy = taps * np.median(squares[f'{name}/input'], 0)
    self._groups = self.read.size // kernel.shape[-2]
    grouped = kernel.reshape(taps, kernel.shape[-2], self._groups, -1)
    felt = np.einsum('tigo,tigo,go->gi', grouped, grouped, self.own.reshape(self._groups, -1))
    self.felt = np.where(self.energy > 0, felt.ravel(), 0)  # what is pruned is not felt

  def sums(self, inputs: np.ndarray, outputs: int) -> np.ndarray:
    """Sums over the channels of each group [C], for each of so many channels of the other side."""
    return np.repeat(inputs.reshape(self._groups, -1).sum(-1), outputs // self._groups)


def equalised(prepared: Prepared, precision: Precision) -> Prepared:
  """The same function with other weights, whose channels can share formats.

  Where a calibration image leaves the range of the others, it has no say: errors follow from
  medians over images.
  """
  factors = _Factors(prepared)
  # Where most images leave all bounds there are no factors; `quantize` refuses the network later.
  with np.errstate(over='ignore', invalid='ignore'):
    scale = _chosen(prepared, factors, precision)
  if (scale == 1).all():
    return prepared
  folded = {}
  for name, (kernel, bias) in prepared.folded.items():
    read, made = scale[factors.read[name]], scale[factors.named[name]]
    groups = read.size // kernel.shape[-2]
    divisors = np.repeat(read.reshape(groups, -1).T, bias.size // groups, axis=1)
    folded[name] = kernel * (made / divisors), bias * made
  splits = [
    split.larger(scale[factors.named[f'activation{t}']]) for t, split in enumerate(prepared.splits)
  ]
  statistics = copy.copy(prepared.statistics)
  statistics.largest = {
    name: found * scale[factors.named[name]] if name in factors.named else found
    for name, found in prepared.statistics.largest.items()
  }
  return prepared._replace(folded=folded, splits=splits, statistics=statistics)


def _chosen(prepared: Prepared, factors: _Factors, precision: Precision) -> np.ndarray:
  """All factors, powers of two."""
  layers = [_Linear(name, prepared, factors) for name in prepared.folded]
  most = _most(prepared, factors)
  felt = np.zeros(factors.count)
  for layer in layers:
    np.add.at(felt, layer.read, layer.felt)
  # Of logits, and of what else has no factor, all errors count alike.
  weights = [np.where(layer.made > 0, felt[layer.made], layer.own) for layer in layers]
  rounded = np.zeros(factors.count)  # e^2 / d^2, where an activation rounds the channel
  for name, made in factors.named.items():
    if name.startswith('activation'):
      rounded[made] = 4.0 ** (precision.weight - precision.activation)
  scale = np.ones(factors.count)
  for _ in range(_ROUNDS):
    # The sum of errors is over all channels over / scale^2 + under scale^2.
    over, under = np.zeros_like(scale), np.zeros_like(scale)
    for layer, weight in zip(layers, weights):
      inputs = layer.energy * scale[layer.read] ** 2
      errors = layer.sums(inputs, weight.size) + rounded[layer.made]
      np.add.at(over, layer.made, weight * errors)
      outputs = layer.sums(weight / scale[layer.made] ** 2, layer.energy.size)
      np.add.at(under, layer.read, layer.energy * outputs)
    known = (over > 0) & (under > 0) & np.isfinite(over) & np.isfinite(under)
    known[0] = False
    best = np.ones_like(scale)
    best[known] = np.minimum((over[known] / under[known]) ** 0.25, most[known])
    # Half of the way, as all are chosen at once.
    scale = np.sqrt(scale * best)
  bits = np.round(np.log2(scale))
  return 2.0 ** np.where(np.abs(bits) < _LEAST, 0, bits)


def _most(prepared: Prepared, factors: _Factors) -> np.ndarray:
  """The largest value of each factor for which no sign test gets more bits."""
  most = np.full(factors.count, np.inf)
  for name, found in prepared.statistics.largest.items():
    if name.startswith('activation') and name.endswith('/input'):
      largest = np.median(found, 0)
      np.minimum.at(
        most, factors.named[name], max(largest.max(), _USUAL) / np.maximum(largest, 1e-30)
      )
  return most

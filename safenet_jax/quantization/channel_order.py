"""Which channels each part of a network has to compute, and in which order.

An activation takes its garbled channels first, then its polynomial ones. Channels that it
prunes need not be computed for it. A layer whose only reader is one activation makes its
channels in that activation's order. All other layers make theirs in the original order.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.quantization.folding import Split


class Pool(NamedTuple):
  """A pool that is part of the activation before it.

  name: of the pool.
  layer: its record.
  """

  name: str
  layer: records.AveragePool | records.MaxPool


class Readers(NamedTuple):
  """Who reads the channels of a linear layer, itself or in a sum.

  activations, linear: names of activations, and of linear layers.
  end: whether they are logits.
  all: whether that is all there is, and none of them reads means of the channels.
  """

  activations: list[str]
  linear: list[str]
  end: bool
  all: bool


class Channels:
  """Orders of channels, and what can be made one with the layer before it.

  splits: of every activation, in the order in which the network is walked.
  pools: by activation name, the pool that is the activation's only reader. Maxima are part of
    ReLUs only, since the circuit of a maximum rectifies it; other max pools stand alone.
  """

  def __init__(self, layers: tuple[records.Layer, ...], splits: Sequence[Split]):
    """Follows every value to everything that reads it.

    Args:
      layers: of the network.
      splits: of every activation, in the order in which the network is walked.
    """
    self.splits = list(splits)
    found = self._readers = _Readers()
    found.ends = records.run(layers, found, frozenset())
    found.read(found.ends, None)
    relus = {
      name
      for (name, layer), split in zip(found.activations.items(), self.splits)
      if layer == records.Activation() and not split.degree
    }
    self.pools = {
      source: pool
      for pool, source in found.pools
      if source is not None
      and len(found.readers[source]) == 1
      and (source in relus or isinstance(pool.layer, records.AveragePool))
    }

  def split(self, name: str) -> Split:
    """The split of an activation, by its name."""
    return self.splits[list(self._readers.activations).index(name)]

  def order(self, name: str, total: int) -> np.ndarray:
    """Original indices of the channels that a linear layer or an addition makes.

    Args:
      name: of the layer or addition.
      total: how many channels it has in the original network.
    """
    found = self._readers.readers[name]
    readers = {t for t in found if t is not None}
    if None in found:
      return np.arange(total)
    if len(readers) == 1:
      return self.splits[readers.pop()].order
    return np.unique(np.concatenate([self.splits[t].order for t in readers]))

  def polynomial(self, name: str) -> bool:
    """Whether an activation that reads the linear layer `name` has polynomials."""
    return any(t is not None and self.splits[t].degree for t in self._readers.readers[name])

  def pools_behind(self, name: str) -> list[Pool]:
    """The pools that are part of an activation that reads the linear layer `name`."""
    readers = {f'activation{t}' for t in self._readers.readers[name]}
    return [pool for act, pool in self.pools.items() if act in readers]

  def readers(self, name: str) -> Readers:
    """Who reads the channels of the linear layer `name`."""
    found = self._readers
    activations = [t for t in found.readers[name] if t is not None]
    linear, end = found.linear[name], name in found.ends
    return Readers(
      [f'activation{t}' for t in activations],
      linear,
      end,
      name not in found.averaged
      and len(found.readers[name]) == len(activations) + len(linear) + end,
    )

  def folded(self, name: str) -> Split | None:
    """The split of the one activation that reads the linear layer `name`.

    None if anything else reads the layer too, or if the activation reads more than this
    layer. Only without either can the activation's square be folded into the layer.
    """
    readers = self._readers.readers[name]
    if len(readers) != 1 or readers[0] is None or name in self._readers.scaled:
      return None
    alone = self._readers.sources[readers[0]] == frozenset({name})
    return self.splits[readers[0]] if alone else None


class _Readers:
  """Operations that find who reads what; here a value is a set of names.

  They are the names of the layers and additions whose channels the value has: the one
  that made it and, if that is an addition, the layers and additions before it that it
  sums. An activation that it sums is not among them.

  readers: by name of a linear layer, an addition or an activation, the index of every
    activation that reads its channels; None stands for any other reader.
  sources: by activation index, the value that it reads.
  activations: the record of each, by name.
  scaled: the linear layers with a mean behind them that is no shift of a sum. The square of such
    a sum is larger by the square of what the mean is.
  averaged: the linear layers with any mean behind them.
  linear: by such a name, the linear layers that read its channels.
  ends: the value of the logits.
  pools: every pool, with the activation whose output it reads, or None.
  """

  def __init__(self):
    self.readers: dict[str, list[int | None]] = collections.defaultdict(list)
    self.sources: dict[int, frozenset[str]] = {}
    self.activations: dict[str, records.Activation] = {}
    self.scaled: set[str] = set()
    self.averaged: set[str] = set()
    self.linear: dict[str, list[str]] = collections.defaultdict(list)
    self.ends: frozenset[str] = frozenset()
    self.pools: list[tuple[Pool, str | None]] = []
    self.additions = 0

  def read(self, value, reader):
    for name in value:
      self.readers[name].append(reader)

  def conv(self, name, layer, value):
    del layer
    self.read(value, None)
    for source in value:
      self.linear[source].append(name)
    return frozenset({name})

  dense = conv

  def activation(self, name, layer, value):
    self.activations[name] = layer
    index = len(self.sources)
    self.read(value, index)
    self.sources[index] = value
    return frozenset({name})

  def average_pool(self, name, layer, value):
    source = _activation(value)
    self.pools.append((Pool(name, layer), source))
    if source is None:
      self.averaged |= value
      side = layer.window or 0
      if not side or side & side - 1 or not layer.count_padding:
        self.scaled |= value
      return value
    self.read(value, None)
    return frozenset()

  def max_pool(self, name, layer, value):
    self.pools.append((Pool(name, layer), _activation(value)))
    return self.pad_shortcut(name, None, value)

  def pad_shortcut(self, name, layer, value):
    del name, layer
    self.read(value, None)
    return frozenset()

  flatten = pad_shortcut

  def concat(self, values):
    for value in values:
      self.read(value, None)
    return frozenset()

  def add(self, branch, shortcut):
    name = f'add{self.additions}'
    self.additions += 1
    for side in (branch, shortcut):
      if _activation(side) is not None:
        self.read(side, None)
    linear = [side for side in (branch, shortcut) if _activation(side) is None]
    return frozenset({name}).union(*linear)


def rectified_first(
  layers: tuple[records.Layer, ...], splits: Sequence[Split]
) -> tuple[records.Layer, ...]:
  """The layers with every ReLU before the max pool that it follows: there it costs no circuit.

  A ReLU of the largest value is the largest ReLU. That holds for activations without
  polynomials. Layers of each kind keep their names.
  """
  plain = iter([not split.degree for split in splits])

  def arranged(sequence: tuple[records.Layer, ...]) -> tuple[records.Layer, ...]:
    found: list[records.Layer] = []
    for layer in sequence:
      match layer:
        case records.Residual(branch, shortcut):
          layer = records.Residual(arranged(branch), arranged(shortcut))
        case records.Concat(branches):
          layer = records.Concat(tuple(map(arranged, branches)))
      found.append(layer)
      if isinstance(layer, records.Activation):
        relu = next(plain) and layer == records.Activation()
        if relu and len(found) > 1 and isinstance(found[-2], records.MaxPool):
          found[-2:] = reversed(found[-2:])
    return tuple(found)

  return arranged(layers)


def _activation(value: frozenset[str]) -> str | None:
  """The activation whose output a value is, None if it is something else."""
  name = next(iter(value), '')
  return name if name.startswith('activation') else None

"""Which channels each part of a network has to compute, and in which order.

An activation takes its garbled channels first, then its polynomial ones. Channels that it
prunes need not be computed for it. A layer whose only reader is one activation makes its
channels in that activation's order. All other layers make theirs in the original order.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safenet_jax.fixed_point.folding import Split
from safenet_jax.models import layers as records


class Pool(NamedTuple):
  """A pool that is part of the activation before it.

  name: of the pool.
  window: its side.
  maximum: whether it is a max pool, else it takes means.
  """

  name: str
  window: int
  maximum: bool


class Channels:
  """Orders of channels, and what can be made one with the layer before it.

  splits: of every activation, in the order in which the network is walked.
  pools: by activation name, the pool that is the activation's only reader.
  """

  def __init__(
    self, layers: tuple[records.Layer, ...], input_shape: tuple[int, ...], splits: Sequence[Split]
  ):
    """Follows every value to everything that reads it.

    Args:
      layers: of the network.
      input_shape: (H, W, C) of an image.
      splits: of every activation, in the order in which the network is walked.

    Raises:
      ValueError: a max pool that does not directly follow an activation, or is not the
        only reader of that activation.
    """
    self.splits = list(splits)
    found = self._readers = _Readers()
    found.read(records.run(layers, found, frozenset()), None)
    shapes = {shape.name: shape for shape in records.shapes(layers, input_shape)}
    self.pools = {}
    for pool, source in found.pools.items():
      layer = shapes[pool].layer
      if not isinstance(layer, records.Pool):
        raise ValueError(f'{pool} is {layer}, want a pool')
      maximum = isinstance(layer, records.MaxPool)
      if source is not None and len(found.readers[source]) == 1:
        window = records.window(layer, *shapes[pool].input_shape[:2])
        self.pools[source] = Pool(pool, window, maximum)
      elif maximum:
        raise ValueError(
          f'{pool} is not directly behind an activation that nothing else reads, want it there '
          'to be served: its maxima are taken in the circuits of that activation'
        )

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

  def window(self, name: str) -> int:
    """The largest side of a pool whose activation reads the linear layer `name`, else 1."""
    readers = {f'activation{t}' for t in self._readers.readers[name]}
    return max((pool.window for act, pool in self.pools.items() if act in readers), default=1)

  def folded(self, name: str) -> Split | None:
    """The split of the one activation that reads the linear layer `name`.

    None if anything else reads the layer too, or if the activation reads more than this
    layer. Only without either can the activation's square be folded into the layer.
    """
    readers = self._readers.readers[name]
    if len(readers) != 1 or readers[0] is None:
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
  pools: by pool name, the activation whose output it reads, or None.
  """

  def __init__(self):
    self.readers: dict[str, list[int | None]] = collections.defaultdict(list)
    self.sources: dict[int, frozenset[str]] = {}
    self.pools: dict[str, str | None] = {}
    self.additions = 0

  def read(self, value, reader):
    for name in value:
      self.readers[name].append(reader)

  def conv(self, name, layer, value):
    del layer
    self.read(value, None)
    return frozenset({name})

  dense = conv

  def activation(self, name, layer, value):
    del layer
    index = len(self.sources)
    self.read(value, index)
    self.sources[index] = value
    return frozenset({name})

  def average_pool(self, name, layer, value):
    del layer
    self.pools[name] = source = _activation(value)
    if source is None:
      return value
    self.read(value, None)
    return frozenset()

  def max_pool(self, name, layer, value):
    del layer
    self.pools[name] = _activation(value)
    return self.pad_shortcut(name, None, value)

  def pad_shortcut(self, name, layer, value):
    del name, layer
    self.read(value, None)
    return frozenset()

  flatten = pad_shortcut

  def add(self, branch, shortcut):
    name = f'add{self.additions}'
    self.additions += 1
    for side in (branch, shortcut):
      if _activation(side) is not None:
        self.read(side, None)
    linear = [side for side in (branch, shortcut) if _activation(side) is None]
    return frozenset({name}).union(*linear)


def _activation(value: frozenset[str]) -> str | None:
  """The activation whose output a value is, None if it is something else."""
  name = next(iter(value), '')
  return name if name.startswith('activation') else None

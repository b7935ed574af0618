"""Which filters make each channel of an activation's input."""

from typing import NamedTuple

from safenet_jax.models import layers as records


class _Channel(NamedTuple):
  """One channel of a value.

  filters: (layer, index) of the last filters whose outputs are summed in it.
  linear: whether it still is that sum.
  """

  filters: tuple[tuple[str, int], ...]
  linear: bool


_NO_FILTER = _Channel((), False)


class _Producers:
  """Operations on the `_Channel`s of a value, which tell from which filters they come."""

  def __init__(self):
    self.found: list[tuple[tuple[tuple[str, int], ...], ...]] = []

  def conv(self, name, layer, value):
    del value
    return tuple(_Channel(((name, i),), True) for i in range(layer.features))

  dense = conv

  def batch_norm(self, name, layer, value):
    del layer
    return tuple(_Channel(((name, i),), True) for i in range(len(value)))

  def activation(self, name, layer, value):
    del name, layer
    self.found.append(tuple(channel.filters for channel in value))
    return tuple(channel._replace(linear=False) for channel in value)

  def average_pool(self, name, layer, value):
    del name, layer
    return value

  max_pool = flatten = average_pool

  def pad_shortcut(self, name, layer, value):
    del name
    more = layer.features - len(value)
    before, behind = (_NO_FILTER,) * (more // 2), (_NO_FILTER,) * (more - more // 2)
    # What is added to them comes from other layers.
    return (*before, *(channel._replace(linear=False) for channel in value), *behind)

  def add(self, branch, shortcut):
    return tuple(map(_summed, branch, shortcut))

  def concat(self, values):
    return tuple(channel for value in values for channel in value)


def _summed(branch: _Channel, shortcut: _Channel) -> _Channel:
  linear = [side for side in (branch, shortcut) if side.linear]
  if not linear:
    return branch
  return _Channel(tuple(dict.fromkeys(f for side in linear for f in side.filters)), True)


def producers(
  layers: tuple[records.Layer, ...], channels: int
) -> tuple[tuple[tuple[tuple[str, int], ...], ...], ...]:
  """For each activation, and each channel of its input: the filters whose sum it is.

  A filter is (name of a linear layer or of a batch norm of its own, index of an output). A
  shortcut without weights, from an activation to an addition, adds none. `channels` are those of
  an image.
  """
  operations = _Producers()
  records.run(layers, operations, (_NO_FILTER,) * channels)
  return tuple(operations.found)

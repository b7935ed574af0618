"""From steps, which read each other's values, to records, which nest.

A record reads the value before it, and a `Residual` or `Concat` has branches that all start at one
value. So a graph can be written as records if it is series-parallel: if the inputs of every sum and
concatenation part at one value, the nearest that all their paths go through (their dominator, as
compilers call it), and no step between is read from outside.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from safenet_jax.models import layers as records
from safenet_jax.onnx_files.steps import RefusedError, Step

# A block within a block within a block is two deep.
_DEEPEST = 32
# Concatenations of more inputs are not searched for those of others.
_WIDEST = 1000


class EntangledError(RefusedError):
  """Steps that no records can be made of; `step` is the number of the one where it shows."""

  def __init__(self, step: int, reason: str):
    super().__init__(reason)
    self.step = step


class Nested(NamedTuple):
  """The records, and the steps that are their layers, in walking order."""

  layers: tuple[records.Layer, ...]
  steps: tuple[int, ...]


def live(steps: list[Step], last: int) -> list[int]:
  """The numbers of the steps that the last one depends on, in order."""
  found, waiting = set(), [last]
  while waiting:
    step = waiting.pop()
    if step not in found:
      found.add(step)
      waiting += steps[step].inputs
  return sorted(found)


def fused(steps: list[Step], last: int) -> tuple[int, dict[int, int]]:
  """Puts batch norms and scalings into the linear layers that they alone read.

  Returns:
    The number of the last step now, and for each step that is gone, that of its linear layer.

  Raises:
    EntangledError: a scaling that no linear layer can take in.
  """
  alive = live(steps, last)
  into: dict[int, int] = {}
  readers = dict.fromkeys(alive, 0)
  for given in (given for number in alive for given in steps[number].inputs):
    readers[given] += 1
  for number in alive:
    step = steps[number]
    step.inputs = tuple(into.get(given, given) for given in step.inputs)
    if step.kind != 'scaling' and not isinstance(step.layer, records.BatchNorm):
      continue
    original = step.inputs[0]
    before = steps[original]
    if readers[original] == 1 and _take_in(before, step):
      into[number] = original
      readers[original] = readers[number]
    elif step.kind == 'scaling':
      raise EntangledError(
        number, 'of channels that no convolution or dense layer has just made, want it there'
      )
  return into.get(last, last), into


def _take_in(linear: Step, step: Step) -> bool:
  """Changes a linear layer so that it does what the next step does; False if it cannot."""
  layer, arrays = linear.layer, linear.arrays
  if not isinstance(layer, records.Conv | records.Dense):
    return False
  if isinstance(step.layer, records.BatchNorm):
    if layer.batch_norm:
      return False
    mean = step.arrays['mean'] - arrays.pop('bias')
    arrays |= step.arrays | {'mean': mean}
    linear.layer = dataclasses.replace(layer, batch_norm=True, epsilon=step.layer.epsilon)
    return True
  scale, bias = step.arrays['scale'], step.arrays['bias']
  if layer.batch_norm:
    arrays['scale'] = arrays['scale'] * scale
  else:
    arrays['kernel'] = arrays['kernel'] * scale
  arrays['bias'] = arrays['bias'] * scale + bias
  return True


def nest(steps: list[Step], last: int) -> Nested:
  """The records that compute the value of the last step.

  Raises:
    EntangledError: the steps are not series-parallel.
  """
  alive = live(steps, last)
  _share_concatenations(steps, alive)
  return _Nesting(steps, live(steps, last)).between(0, last, 0)


def _share_concatenations(steps: list[Step], alive: list[int]) -> None:
  """Lets a concatenation that repeats the inputs of another read that one's value.

  Each layer of a DenseNet reads all values before it (arXiv 1608.06993, Eq. 2). With this they
  are what the layer before read, and one more.
  """
  found: dict[tuple[int, ...], int] = {}
  for number in alive:
    step = steps[number]
    if step.kind != 'concat' or len(step.inputs) > _WIDEST:
      continue
    whole = step.inputs
    for count in range(len(whole) - 1, 1, -1):
      if (same := found.get(whole[:count])) is not None:
        step.inputs = (same, *whole[count:])
        break
    found.setdefault(whole, number)


class _Nesting:
  """Makes records between two steps; each step becomes one record."""

  def __init__(self, steps: list[Step], alive: list[int]):
    self.steps = steps
    self.used: set[int] = set()
    # Of each step the nearest that all paths to it go through, and how many of these there are.
    self.dominator, self.depth = {0: 0}, {0: 0}
    for number in alive[1:]:
      self.dominator[number] = self._common(steps[number].inputs)
      self.depth[number] = self.depth[self.dominator[number]] + 1

  def _common(self, numbers: tuple[int, ...]) -> int:
    """The nearest step that all paths to these go through."""
    first, *rest = numbers
    for other in rest:
      while first != other:
        if self.depth[first] >= self.depth[other]:
          first = self.dominator[first]
        else:
          other = self.dominator[other]
    return first

  def between(self, start: int, end: int, level: int) -> Nested:
    """The records that make the value of `end` from that of `start`."""
    if level > _DEEPEST:
      raise EntangledError(end, f'in blocks more than {_DEEPEST} deep, want fewer')
    parts: list[Nested] = []
    while end != start:
      if end in self.used:
        raise EntangledError(
          end,
          'whose value is read in several branches that part before it: only blocks whose '
          'branches start at one value are taken',
        )
      self.used.add(end)
      step, before = self.steps[end], self.dominator[end]
      if step.layer is not None:
        parts.append(Nested((step.layer,), (end,)))
      else:
        parts.append(self._merged(step, before, level))
      end = before
    layers = tuple(layer for part in reversed(parts) for layer in part.layers)
    return Nested(layers, tuple(number for part in reversed(parts) for number in part.steps))

  def _merged(self, step: Step, start: int, level: int) -> Nested:
    """A sum or concatenation of what branches make of the value of `start`."""
    branches = [self.between(start, given, level + 1) for given in step.inputs]
    if step.kind == 'concat':
      layer: records.Layer = records.Concat(tuple(branch.layers for branch in branches))
    else:
      # The way with more layers is the branch, as it is where people write blocks.
      branches.sort(key=lambda branch: -len(branch.steps))
      layer = records.Residual(*(branch.layers for branch in branches))
    return Nested((layer,), tuple(number for branch in branches for number in branch.steps))


def named(nested: Nested, steps: list[Step]) -> tuple[dict[str, np.ndarray], dict[int, str]]:
  """The arrays by the names of `models.weights`, and the name of every step that is a layer."""
  walked: list[str] = []
  records.run(nested.layers, _Names(walked), None)
  arrays = {}
  for number, name in zip(nested.steps, walked, strict=True):
    step = steps[number]
    norm = getattr(step.layer, 'batch_norm', False)
    for kind, array in step.arrays.items():
      owner = f'{name}_bn' if norm and kind != 'kernel' else name
      arrays[f'{owner}/{kind}'] = array
  return arrays, dict(zip(nested.steps, walked))


class _Names:
  """Operations that write down the names of the layers."""

  def __init__(self, found: list[str]):
    self._found = found

  def conv(self, name, layer, value):
    self._found.append(name)

  dense = batch_norm = activation = average_pool = max_pool = flatten = conv

  def add(self, branch, shortcut):
    pass

  def concat(self, values):
    pass

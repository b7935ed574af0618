"""Reads a network from an ONNX file, as PyTorch and others export it.

    network, variables = safenet.from_onnx('resnet18.onnx')

The file's values are [N, C, H, W], ours are [N, H, W, C]: kernels are transposed, and the rows of
a dense layer behind a flatten go into the order h, w, c.
"""

import os
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from safenet_jax.models import weights
from safenet_jax.models.network import Network
from safenet_jax.onnx_files import constants, file, nesting, operators
from safenet_jax.onnx_files.file import Node, short
from safenet_jax.onnx_files.steps import input_value, RefusedError, Steps, Value


class Imported(NamedTuple):
  """A network from a file, and its weights as `network.apply` takes them."""

  network: Network
  variables: dict[str, Any]


class Row(NamedTuple):
  """What became of a node: the name of a layer, or a few words."""

  node: Node
  becomes: str


class Reading(NamedTuple):
  """All that is known of a file.

  imported: the network, None if something is refused.
  rows: what became of each node.
  refusals: for each node that is not taken a line that says why, and what could be done instead.
  """

  imported: Imported | None
  rows: tuple[Row, ...]
  refusals: tuple[str, ...]


def from_onnx(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> Imported:
  """The network and the weights in an ONNX file.

  A softmax at the end is left out, which changes no class; a warning says so.

  Args:
    path: of the file. Weights may be in files beside it.
    size: (H, W) of the images, where the file leaves it open.

  Returns:
    The network, whose images are normalised as those that it was trained on, and its variables.

  Raises:
    OSError: a file cannot be read.
    ValueError: no such file, a damaged one, or a network that is not taken; it names the first
      node. `safenet inspect` names all.
  """
  found = read(path, size=size)
  if found.imported is None:
    first, *more = found.refusals
    rest = f' ({len(more)} more: see safenet inspect)' if more else ''
    raise ValueError(f'{path}: {first}{rest}')
  for row in found.rows:
    if row.becomes.startswith(_LEFT_OUT):
      logging.warning('%s: %s is %s', path, row.node, row.becomes)
  return found.imported


_LEFT_OUT = 'left out'
_SOFTMAX = f'{_LEFT_OUT}: the logits have the same class'


def read(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> Reading:
  """As `from_onnx`, with what became of each node, and every refusal rather than the first.

  Raises:
    OSError: a file cannot be read.
    ValueError: the file is no ONNX file, a damaged one, or has no network of images.
  """
  graph = file.read(path)
  try:
    return _Reader(graph, size).reading()
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


class _Reader:
  """Walks the nodes of a file in their order."""

  def __init__(self, graph: file.Graph, size: tuple[int, int] | None):
    self.graph = graph
    self.steps = Steps(_image(graph, size))
    # None is a value behind a node that was refused.
    self.values: dict[str, Value | np.ndarray | None] = {
      **graph.constants,
      graph.input: self.steps.image,
    }
    self.folding = constants.Folding(sum(array.size for array in graph.constants.values()))
    self.becomes: dict[int, str] = {}
    self.refused: dict[int, str] = {}

  def reading(self) -> Reading:
    """All that is known of the file; ValueError for one that is no whole graph."""
    for place, node in enumerate(self.graph.nodes):
      for name in node.inputs:
        if name and name not in self.values:
          raise ValueError(f"{node} reads '{short(name)}', which nothing before it makes")
      try:
        made = self._made(place, node)
      except RefusedError as error:
        self.refused[place], made = str(error), None
      for name in node.outputs[1:]:
        self.values.setdefault(name, None)
      if node.outputs:
        self.values[node.outputs[0]] = made
    imported = None if self.refused else self._imported()
    rows = (Row(node, self._text(place)) for place, node in enumerate(self.graph.nodes))
    refusals = (
      f'{self.graph.nodes[place]}: {reason}' for place, reason in sorted(self.refused.items())
    )
    return Reading(imported, tuple(rows), tuple(refusals))

  def _made(self, place: int, node: Node) -> Value | np.ndarray | None:
    inputs = [self.values[name] if name else None for name in node.inputs]
    unknown = any(name and self.values[name] is None for name in node.inputs)
    if unknown:
      self.becomes[place] = 'not looked at, behind one that is refused'
      if node.operator not in (*operators.TAKEN, *constants.OPERATORS):
        operators.take(node, place, self.steps, [self.steps.image], False)
      return None
    if node.operator == 'Shape' and isinstance(inputs[0], Value):
      self.becomes[place] = 'a constant'
      return self._fold(node, [np.broadcast_to(np.zeros((), bool), inputs[0].shape)])
    if not any(isinstance(each, Value) for each in inputs):
      self.becomes[place] = 'a constant'
      return self._fold(node, inputs)
    last = self.graph.output in node.outputs[:1]
    count = len(self.steps.made)
    found = operators.take(node, place, self.steps, inputs, last)
    if len(self.steps.made) == count:
      softmax = node.operator in ('Softmax', 'LogSoftmax')
      self.becomes[place] = _SOFTMAX if softmax else 'nothing, its input goes on'
    return found

  def _fold(self, node: Node, inputs) -> np.ndarray:
    try:
      return self.folding.fold(node, inputs)
    except ValueError as error:
      raise RefusedError(str(error)) from None

  def _imported(self) -> Imported | None:
    """The network; None if a node is refused now."""
    output = self.values.get(self.graph.output)
    if not isinstance(output, Value):
      raise ValueError(f"the output '{short(self.graph.output)}' does not depend on the image")
    if not output.flat or output.order is not None:
      raise ValueError(
        f"the output '{short(self.graph.output)}' has the shape {output.shape}, want one row of "
        'classes for each image, of a Flatten of one place or a Gemm'
      )
    made = self.steps.made
    try:
      last, into = nesting.fused(made, output.step)
      nested = nesting.nest(made, last)
    except nesting.EntangledError as error:
      self.refused[made[error.step].node] = str(error)
      return None
    arrays, names = nesting.named(nested, made)
    for number, step in enumerate(made):
      if step.node >= 0:
        self.becomes[step.node] = self._step_text(number, names, into)
    height, width, channels = self.steps.image.ours
    network = Network(nested.layers, (height, width, channels))
    return Imported(network, weights.load_variables(network, arrays))

  def _step_text(self, number: int, names: dict[int, str], into: dict[int, int]) -> str:
    step = self.steps.made[number]
    if number in into:
      return f'part of {names[into[number]]}'
    if number in names:
      before = self.becomes.get(step.node)
      return f'{before}, {names[number]}' if before else names[number]
    if step.kind in ('add', 'concat'):
      return {'add': 'a sum', 'concat': 'a concatenation'}[step.kind]
    return 'nothing, the output does not depend on it'

  def _text(self, place: int) -> str:
    if place in self.refused:
      return 'REFUSED'
    return self.becomes.get(place, 'not looked at')


def _image(graph: file.Graph, size: tuple[int, int] | None) -> Value:
  """The images, with a batch of 1 where the file leaves it open."""
  name = short(graph.input)
  if len(graph.shape) != 4:
    raise ValueError(
      f"input '{name}' has {len(graph.shape)} axes, want images [N, C, H, W]: begin with a Flatten"
    )
  # Networks of TensorFlow take [N, H, W, C], and transpose it first.
  readers = [node for node in graph.nodes if graph.input in node.inputs]
  last = all(
    node.operator == 'Transpose' and node.attributes.get('perm') == (0, 3, 1, 2) for node in readers
  )
  axes = 'nhwc' if readers and last else 'nchw'
  sides = dict(zip(axes, graph.shape))
  if size is not None:
    for axis, side in zip('hw', size, strict=True):
      if sides[axis] not in (None, side):
        raise ValueError(f'images of {sides["h"]} x {sides["w"]}, got {size[0]} x {size[1]}')
      sides[axis] = side
  if sides['h'] is None or sides['w'] is None:
    raise ValueError(f"input '{name}' of any size, want one: size=(H, W), model.size or --size")
  if sides['c'] is None:
    raise ValueError(f"input '{name}' of any number of channels, want it in the file")
  sides['n'] = sides['n'] or 1
  return input_value(tuple(sides[axis] or 1 for axis in axes), axes)

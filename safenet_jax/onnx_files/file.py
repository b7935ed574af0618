"""What an ONNX file holds: nodes, constants, one input and one output.

The file may be anybody's. Its size and that of its data are bounded, every tensor is checked
before it is read, and names are shortened before they are printed.
"""

import hashlib
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

# The most that a protobuf message may have, and twice that of tensors in files beside it.
_MOST_BYTES = (1 << 31) - 1
_MOST_DATA = 1 << 32
# Torchvision's largest networks have some hundreds; every node is walked a few times.
_MOST_NODES = 20_000
_MOST_SIDE = 1 << 14
# Those in which the operators that are taken mean the same; later ones add types alone.
OPSETS = range(9, 26)
# TensorProto.DataType of the tensors that are read; the rest are texts, packed or complex numbers.
_TYPES = {
  1: 'float32',
  2: 'uint8',
  3: 'int8',
  6: 'int32',
  7: 'int64',
  9: 'bool',
  10: 'float16',
  11: 'float64',
  16: 'bfloat16',
}
FLOATS = (1, 10, 11, 16)
# ONNX's own.
_DOMAINS = ('', 'ai.onnx')


class Node(NamedTuple):
  """An operator of the graph.

  name: as the file has it, else its operator and place.
  operator: with its domain, unless that is ONNX's own.
  inputs, outputs: names of values; '' stands for one that is left out.
  attributes: numbers, texts, tuples of them, and arrays; None for what nothing here reads.
  """

  name: str
  operator: str
  inputs: tuple[str, ...]
  outputs: tuple[str, ...]
  attributes: dict[str, Any]

  def __str__(self):
    made = short(self.outputs[0]) if self.outputs else 'nothing'
    return f"node '{self.shown}' ({short(self.operator)}, output '{made}')"

  @property
  def shown(self) -> str:
    """Its name, as it can be printed."""
    return short(self.name)


class Graph(NamedTuple):
  """A network as its file has it.

  opset: version of the operators.
  nodes: in the order of the file, where each comes behind those it reads.
  constants: arrays by name.
  input, output: names of the one input and the one output.
  shape: of the input; None where the file leaves a size open.
  """

  opset: int
  nodes: tuple[Node, ...]
  constants: dict[str, np.ndarray]
  input: str
  output: str
  shape: tuple[int | None, ...]


def short(name: str) -> str:
  """A name of the file as it can be printed: in one line of at most 60 characters."""
  clean = ''.join(c if c.isprintable() else '?' for c in name)
  return clean if len(clean) <= 60 else f'{clean[:57]}...'


def _text(name: str | bytes) -> str:
  """A name of a message, which is bytes where a damaged file has no UTF-8."""
  return name if isinstance(name, str) else name.decode(errors='replace')


def read(path: str | os.PathLike[str]) -> Graph:
  """The graph in a file.

  Raises:
    OSError: it cannot be read.
    ValueError: it is no ONNX file, a damaged or too large one, or holds no network with one
      input and one output; or the package onnx is not installed.
  """
  path = pathlib.Path(path)
  model = _load(path)[1]
  try:
    return _graph(model, path.parent)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _load(path: pathlib.Path) -> tuple[bytes, Any]:
  """The bytes of a file, and the message that they are."""
  try:
    import onnx
  except ModuleNotFoundError:
    raise ValueError("onnx is not installed, want: pip install 'safenet_jax[onnx]'") from None
  with open(path, 'rb') as file:
    content = file.read(_MOST_BYTES + 1)
  if len(content) > _MOST_BYTES:
    raise ValueError(f'{path} has over {_MOST_BYTES} bytes, want weights in files beside it')
  try:
    model = onnx.load_model_from_string(content)
  except Exception:  # protobuf has an error of its own, and says nothing that helps
    raise ValueError(f'{path} is damaged or of another kind, want an ONNX file') from None
  if not model.graph.node:
    raise ValueError(f'{path} holds no network, want an ONNX file with nodes')
  return content, model


def digest(path: str | os.PathLike[str]) -> str:
  """SHA-256 of an ONNX file and of the files beside it that hold its weights, in hexadecimal.

  OSError and ValueError as of `read`, which has to have taken the file.
  """
  path = pathlib.Path(path)
  content, model = _load(path)
  found = hashlib.sha256(content)
  entries = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
  for name in sorted({_text(entry.value) for entry in entries if entry.key == 'location'}):
    with open(_beside(path.parent, name), 'rb') as file:
      found.update(hashlib.file_digest(file, 'sha256').digest())
  return found.hexdigest()


def _graph(model, folder: pathlib.Path) -> Graph:
  graph = model.graph
  opsets = [item.version for item in model.opset_import if item.domain in _DOMAINS]
  if len(opsets) != 1 or opsets[0] not in OPSETS:
    found = ', '.join(map(str, opsets)) or 'none'
    raise ValueError(f'opset {found}, want one of {OPSETS[0]} to {OPSETS[-1]}: export it again')
  if len(graph.node) > _MOST_NODES:
    raise ValueError(f'{len(graph.node)} nodes, want at most {_MOST_NODES}')
  tensors = _Tensors(folder)
  constants = {_text(proto.name): tensors.read(proto) for proto in graph.initializer}
  inputs = [item for item in graph.input if _text(item.name) not in constants]
  for kind, items in (('input', inputs), ('output', graph.output)):
    if len(items) != 1:
      names = ', '.join(short(_text(item.name)) for item in items[:5]) or 'none'
      raise ValueError(f'{len(items)} {kind}s ({names}), want a network with one')
  kind, given = inputs[0].type.tensor_type, _text(inputs[0].name)
  if kind.elem_type not in FLOATS:
    raise ValueError(f"input '{short(given)}' is not of floats, want normalised images")
  nodes = []
  for place, node in enumerate(graph.node):
    domain = '' if node.domain in _DOMAINS else f'{_text(node.domain)}::'
    operator = f'{domain}{_text(node.op_type)}'
    nodes.append(
      Node(
        _text(node.name) or f'{operator} {place}',
        operator,
        tuple(map(_text, node.input)),
        tuple(map(_text, node.output)),
        {_text(each.name): _attribute(each, tensors) for each in node.attribute},
      )
    )
  shape = tuple(_side(dim) for dim in kind.shape.dim)
  made = _text(graph.output[0].name)
  return Graph(opsets[0], tuple(nodes), constants, given, made, shape)


def _side(dim) -> int | None:
  """A dimension of the input; None if it is open."""
  if not dim.HasField('dim_value') or dim.dim_value == 0:
    return None
  if not 1 <= dim.dim_value <= _MOST_SIDE:
    raise ValueError(f'an input of {dim.dim_value} along an axis, want 1 to {_MOST_SIDE}')
  return dim.dim_value


def _attribute(proto, tensors: '_Tensors') -> Any:
  if proto.ref_attr_name:
    return None
  match proto.type:
    case 1:
      return proto.f
    case 2:
      return proto.i
    case 3:
      return proto.s.decode(errors='replace')
    case 4:
      return tensors.read(proto.t)
    case 6:
      return tuple(proto.floats)
    case 7:
      return tuple(proto.ints)
  return None


def _beside(folder: pathlib.Path, location: str) -> pathlib.Path:
  """A file of weights; ValueError for one that is not in the folder of the ONNX file."""
  path = folder / location
  # No other file of this machine is read for whoever wrote this one.
  if not location or '\0' in location or not path.resolve().is_relative_to(folder.resolve()):
    raise ValueError(f"weights in '{short(location)}', want a file beside this one")
  if not path.is_file():
    raise ValueError(f"weights in '{short(location)}', which is not there")
  return path


class _Tensors:
  """Reads tensors of a file whose other files are in `folder`."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.left = _MOST_DATA

  def read(self, proto) -> np.ndarray:
    """The array of a TensorProto; ValueError for another than it says it is."""
    name, shape = short(_text(proto.name)), tuple(proto.dims)
    if proto.data_type not in _TYPES:
      raise ValueError(f"tensor '{name}' of type {proto.data_type}, want numbers")
    if any(size < 0 for size in shape):
      raise ValueError(f"tensor '{name}' of shape {shape}, want sizes of at least 0")
    if proto.data_location == 1:
      return self._external(proto, name, shape)
    from onnx import numpy_helper

    try:
      return numpy_helper.to_array(proto).reshape(shape)
    except Exception:  # numpy, and onnx itself, raise what they like on damaged tensors
      raise ValueError(f"tensor '{name}' is damaged, want {math.prod(shape)} numbers") from None

  def _external(self, proto, name: str, shape: tuple[int, ...]) -> np.ndarray:
    from onnx import helper

    entries = {_text(entry.key): _text(entry.value) for entry in proto.external_data}
    location = entries.get('location', '')
    path = _beside(self.folder, location)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(proto.data_type))
    size, offset = math.prod(shape) * dtype.itemsize, entries.get('offset', '0')
    if not offset.isascii() or not offset.isdigit() or len(offset) > 18:
      raise ValueError(f"tensor '{name}' is at offset '{short(offset)}', want a number")
    if int(offset) + size > path.stat().st_size:
      raise ValueError(f"tensor '{name}' ends behind the end of {short(location)}")
    self.left -= size
    if self.left < 0:
      raise ValueError(f'tensors of over {_MOST_DATA} bytes, want fewer weights')
    return np.fromfile(path, dtype, math.prod(shape), offset=int(offset)).reshape(shape)

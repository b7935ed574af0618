"""`safenet inspect` of an ONNX file: what its network becomes, and what an inference will cost."""

from collections.abc import Iterator
import os

from safenet_jax.approximation import plans
from safenet_jax.console import inspection, tables
from safenet_jax.fixed_point.model import FixedPointModel
from safenet_jax.models import layers as records
from safenet_jax.models.network import activation_channels, Network
from safenet_jax.onnx_files import reader
from safenet_jax.protocol.estimate import untrained


def found(path: str, size: tuple[int, int] | None) -> reader.Reading:
  """What is known of a file; OSError and ValueError as of `reader.read`."""
  return reader.read(path, size=size)


def facts(path: str, reading: reader.Reading) -> Iterator[str]:
  """Lines of text that say what became of every node, and what the network is."""
  yield f'{path}: {os.stat(path).st_size / 1e6:.2f} MB, an ONNX file of {len(reading.rows)} nodes'
  yield ''
  rows = [[row.node.shown, row.node.operator, row.becomes] for row in reading.rows]
  yield from tables.lines(['node', 'operator', 'becomes'], rows, left=3)
  if reading.imported is None:
    yield ''
    yield f'not taken, because of {len(reading.refusals)} nodes'
    yield from reading.refusals
    return
  yield ''
  yield from layers(reading.imported.network)


def layers(network: Network) -> Iterator[str]:
  """Lines of text with every layer, its ReLUs and its multiply-accumulates."""
  shapes = records.shapes(network.layers, network.input_shape)
  rows = [
    [
      shape.name,
      inspection.kind(shape.layer),
      inspection.dimensions(shape.output_shape),
      f'{shape.activations:,}' if shape.activations else '',
      f'{shape.macs:,}' if shape.macs else '',
    ]
    for shape in shapes
  ]
  relus, macs = (sum(getattr(s, name) for s in shapes) for name in ('activations', 'macs'))
  rows.append(['in all', '', '', f'{relus:,}', f'{macs:,}'])
  header = ['layer', 'kind', 'output', 'ReLUs', 'multiply-accumulates']
  yield from tables.lines(header, rows, left=2)


def served(network: Network) -> FixedPointModel:
  """A model that costs what the network will cost with all its ReLUs; its weights mean nothing.

  ValueError if it cannot be served.
  """
  return untrained.model(network, plans.all_relu(len(activation_channels(network))))

"""Networks that PyTorch exported compute what onnxruntime computes of the same file."""

import pathlib

from absl import logging
import jax
import numpy as np
import onnxruntime
import pytest

import safenet_jax as safenet
from safenet_jax.models.layers import Activation, BatchNorm, Concat, Conv, MaxPool, Residual
from safenet_jax.onnx_files import reader
from tests.support import onnx_graphs

FOLDER = pathlib.Path(__file__).parents[1] / 'data' / 'onnx'
LOGITS = 'residual', 'fire', 'dense_block', 'fashion'


def layers(records):
  """All records of a network, those in branches among them."""
  for record in records:
    yield record
    for branch in getattr(record, 'branches', ()) or (
      (record.branch, record.shortcut) if isinstance(record, Residual) else ()
    ):
      yield from layers(branch)


def logits(network, variables):
  images = onnx_graphs.images(network)
  return np.asarray(jax.jit(network.apply)(variables, images)), images


@pytest.mark.parametrize('name', LOGITS)
def test_the_logits_are_those_of_onnxruntime(name):
  found, images = logits(*safenet.from_onnx(FOLDER / f'{name}.onnx'))
  np.testing.assert_allclose(found, onnx_graphs.run(FOLDER / f'{name}.onnx', images), atol=1e-4)


@pytest.mark.parametrize('name, log', [('inverted', True), ('perceptron', False)])
def test_a_softmax_at_the_end_is_left_out_and_said(name, log, caplog):
  caplog.set_level('WARNING')
  logging.use_python_logging()
  found, images = logits(*safenet.from_onnx(FOLDER / f'{name}.onnx'))
  soft = jax.nn.log_softmax(found) if log else jax.nn.softmax(found)
  np.testing.assert_allclose(soft, onnx_graphs.run(FOLDER / f'{name}.onnx', images), atol=1e-4)
  assert 'left out: the logits have the same class' in caplog.text


def test_sizes_that_a_file_leaves_open_are_given():
  path = FOLDER / 'view.onnx'
  with pytest.raises(ValueError, match=r"view.onnx: input 'image' of any size, want one: size="):
    safenet.from_onnx(path)
  found, images = logits(*safenet.from_onnx(path, size=(5, 5)))
  np.testing.assert_allclose(found, onnx_graphs.run(path, images), atol=1e-4)
  with pytest.raises(ValueError, match='a kernel for 36 features, got 16'):
    safenet.from_onnx(path, size=(4, 4))
  with pytest.raises(ValueError, match='images of 16 x 16, got 8 x 16'):
    safenet.from_onnx(FOLDER / 'residual.onnx', size=(8, 16))


def test_images_with_channels_last_are_taken_as_they_are(tmp_path):
  """As TensorFlow's exporter has it: transposed first, and flattened with channels last."""
  nodes = [
    ('Transpose', 'x', 't', {'perm': [0, 3, 1, 2]}),
    ('Conv', 't w', 'c', {'auto_pad': 'SAME_UPPER', 'strides': [2, 2]}),
    ('Transpose', 'c', 'u', {'perm': [0, 2, 3, 1]}),
    ('Reshape', 'u s', 'f', {}),
    ('MatMul', 'f d', 'y', {}),
  ]
  constants = {
    'w': onnx_graphs.weights(4, 3, 3, 3),
    's': np.int64([-1, 4 * 3 * 4]),
    'd': onnx_graphs.weights(48, 5),
  }
  path = onnx_graphs.save(tmp_path / 'net.onnx', nodes, constants, shape=('n', 8, 6, 3))
  network, variables = safenet.from_onnx(path)
  assert network.input_shape == (8, 6, 3)
  images = onnx_graphs.images(network)
  session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
  (wanted,) = session.run(None, {'x': images})
  np.testing.assert_allclose(network.apply(variables, images), wanted, atol=1e-4)


def test_blocks_become_records():
  network, variables = safenet.from_onnx(FOLDER / 'residual.onnx')
  stem, relu, block, _, projected, *_ = network.layers
  assert stem == Conv(4, stride=2, batch_norm=False) and relu == Activation()
  assert block == Residual((Conv(4), Activation(), Conv(4)))
  assert projected.shortcut == (Conv(6, kernel=1, stride=2),)
  found = list(layers(network.layers))
  # The shortcut over two blocks holds the blocks' own.
  assert sum(isinstance(each, Residual) for each in found) == 5
  slopes = {each.slope for each in found if isinstance(each, Activation)}
  assert slopes == {0.0, 0.2, 0.25}
  assert 'conv0/bias' in safenet.flatten_variables(variables)


def test_branches_side_by_side_become_concatenations():
  network, _ = safenet.from_onnx(FOLDER / 'fire.onnx')
  found = list(layers(network.layers))
  assert sum(isinstance(each, Concat) for each in found) == 1
  # ceil_mode is padding behind.
  assert MaxPool(3, 2, ((0, 1), (0, 1))) in found


def test_layers_that_read_all_before_them_read_one_value():
  network, _ = safenet.from_onnx(FOLDER / 'dense_block.onnx')
  found = list(layers(network.layers))
  concatenations = [each for each in found if isinstance(each, Concat)]
  assert [len(each.branches) for each in concatenations] == [2, 2, 2]
  assert all(each.branches[0] == () for each in concatenations)
  assert sum(isinstance(each, BatchNorm) for each in found) == 4


def test_depthwise_dilated_and_bounded_layers_are_named_so():
  network, _ = safenet.from_onnx(FOLDER / 'inverted.onnx')
  found = list(layers(network.layers))
  assert Conv(12, batch_norm=False, groups=12, dilation=2) in found
  assert {each.limit for each in found if isinstance(each, Activation)} == {6.0}


def test_a_padding_of_its_own_goes_into_the_convolution():
  network, _ = safenet.from_onnx(FOLDER / 'view.onnx', size=(5, 5))
  assert network.layers[0] == Conv(
    4, kernel=2, stride=2, batch_norm=False, groups=2, padding=((1, 0), (1, 0))
  )


def test_every_node_is_accounted_for():
  for name in (*LOGITS, 'inverted', 'perceptron'):
    found = reader.read(FOLDER / f'{name}.onnx')
    assert found.imported and not found.refusals
    assert all(row.becomes and 'REFUSED' not in row.becomes for row in found.rows)
  rows = {row.node.operator: row.becomes for row in reader.read(FOLDER / 'residual.onnx').rows}
  assert rows['BatchNormalization'] == 'part of conv9' and rows['Add'] == 'a sum'
  assert rows['Gemm'] == 'dense0'

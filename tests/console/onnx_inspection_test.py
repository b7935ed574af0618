"""`safenet inspect` of ONNX files."""

import pathlib
import re

import numpy as np
import pytest

from safenet_jax.console import main
from tests.support import onnx_graphs

FILES = pathlib.Path(__file__).parents[1] / 'data' / 'onnx'


def test_it_says_what_nodes_become_what_layers_cost_and_which_mode_is_cheapest(capsys):
  path = FILES / 'fashion.onnx'
  assert main.main(['inspect', str(path), '--link=wan']) == 0
  text = capsys.readouterr().out
  assert text.startswith(f'{path}: 0.04 MB, an ONNX file of 6 nodes\n')
  assert re.search(r'^/7/Gemm +Gemm +dense0$', text, re.MULTILINE)
  # 16 maps of 7 x 7, each value of 8 x 3 x 3.
  assert re.search(r'^conv1 +3x3 convolution, stride 2 +7x7x16 +56,448$', text, re.MULTILINE)
  assert re.search(rf'^in all +{1568 + 784:,} +103,488$', text, re.MULTILINE)
  for mode in ('delphi', 'gazelle', 'ot'):
    assert re.search(rf'^{mode} +online +[\d.]+ +[\d.]+ +\d+', text, re.MULTILINE), mode
  assert 'cheapest' in text.splitlines()[-1]


def test_it_names_every_node_that_is_not_taken(tmp_path, capsys):
  nodes = [('Sigmoid', 'x', 'a', {}), ('Tanh', 'a', 'b', {}), ('Flatten', 'b', 'y', {})]
  path = onnx_graphs.save(tmp_path / 'net.onnx', nodes)
  assert main.main(['inspect', str(path)]) == 2
  out, error = capsys.readouterr()
  assert error == f'error: {path} has nodes that are not taken, see above\n'
  assert re.search(r'^Tanh_1 +Tanh +REFUSED$', out, re.MULTILINE)
  *_, count, first, second = out.splitlines()
  assert count == 'not taken, because of 2 nodes'
  assert first.startswith("node 'Sigmoid_0' (Sigmoid, output 'a'): the operator is not taken; ")
  assert second.startswith("node 'Tanh_1' (Tanh, output 'b'): ")


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['none.onnx'], 'error: none.onnx: No such file or directory'),
    ([str(FILES / 'view.onnx')], "input 'image' of any size, want one: size=(H, W), model.size"),
    ([str(FILES / 'view.onnx'), '--size=5'], "argument --size: '5', want H,W"),
    ([str(FILES / 'view.onnx'), '--size=0,5'], "argument --size: '0,5', want H,W"),
  ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
  assert main.main(['inspect', *arguments]) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


def test_features_with_batch_norm_are_estimated(tmp_path, capsys):
  """Of a feature the two images of noise, of which an estimate is made, may have equal values."""
  ones = {name: np.ones(128, np.float32) for name in ('s', 'v')}
  zeros = {name: np.zeros(128, np.float32) for name in ('z', 'm')}
  nodes = [
    ('Flatten', 'x', 'f', {}),
    ('MatMul', 'f d', 'a', {}),
    ('BatchNormalization', 'a s z m v', 'b', {}),
    ('Relu', 'b', 'c', {}),
    ('MatMul', 'c e', 'y', {}),
  ]
  weights = {'d': onnx_graphs.weights(784, 128), 'e': onnx_graphs.weights(128, 5)}
  path = onnx_graphs.save(
    tmp_path / 'net.onnx', nodes, weights | ones | zeros, shape=(1, 1, 28, 28)
  )
  assert main.main(['inspect', str(path), '--link=lan']) == 0
  assert 'cheapest' in capsys.readouterr().out

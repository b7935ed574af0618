"""Operators one by one: what is taken computes what onnxruntime computes, the rest is refused."""

import jax
import numpy as np
import pytest

import safenet_jax as safenet
from safenet_jax.onnx_files import reader
from tests.support import onnx_graphs
from tests.support.onnx_graphs import weights

KERNEL = {'w': weights(4, 3, 3, 3), 'b': weights(4, seed=2)}
# To one row of classes.
END = (('Flatten', 'z', 'f', {}), ('Gemm', 'f d last', 'y', {}))


def ended(features, *nodes, **constants):
  """The nodes, of which the last makes z, and a dense layer behind them."""
  return [*nodes, *END], {'d': weights(features, 5, seed=3), 'last': weights(5), **constants}


def conv(size, **attributes):
  """A convolution of 8 x 8 images with 4 channels, whose output has `size` pixels."""
  return ended(4 * size, ('Conv', 'x w b', 'z', attributes), **KERNEL)


def after(operator, *inputs, features=256, opset=17, constants=(), **attributes):
  """An operator on the output of a convolution, 4 x 8 x 8."""
  first = ('Conv', 'x w b', 'c', {'pads': [1] * 4})
  node = (operator, ' '.join(['c', *inputs]), 'z', attributes)
  return ended(features, first, node, **KERNEL, **dict(constants)), opset


def flat(*nodes, **constants):
  """Nodes that make y of the 192 features of an image, f."""
  return [('Flatten', 'x', 'f', {}), *nodes], constants


def channels(*shape, seed=5):
  return weights(*shape, seed=seed)


D, E = weights(192, 5), weights(5, 192)
TAKEN = {
  'strides and uneven pads': conv(25, strides=[2, 2], pads=[2, 1, 1, 2]),
  'no padding': conv(36),
  'dilation': conv(16, dilations=[2, 2]),
  'SAME_UPPER': conv(16, strides=[2, 2], auto_pad='SAME_UPPER'),
  'SAME_LOWER': conv(16, strides=[2, 2], auto_pad='SAME_LOWER'),
  'VALID': conv(36, auto_pad='VALID'),
  'groups': ended(
    384, ('Conv', 'x w', 'z', {'group': 3, 'pads': [1] * 4}), w=weights(6, 1, 3, 3)
  ),
  'an even kernel': ended(196, ('Conv', 'x w', 'z', {}), w=weights(4, 3, 2, 2)),
  'ReLU': after('Relu'),
  'leaky ReLU': after('LeakyRelu', alpha=0.3),
  'one slope': after('PRelu', 's', constants={'s': np.float32([[[0.1]]])}),
  'equal slopes': after('PRelu', 's', constants={'s': np.full((4, 1, 1), 0.1, np.float32)}),
  'bounds as inputs': after('Clip', 'l', 'h', constants={'l': np.float32(0), 'h': np.float32(6)}),
  'bounds as attributes': after('Clip', opset=10, min=0.0, max=6.0),
  'one bound': after('Clip', 'l', constants={'l': np.float32(0)}),
  'overlapping maximum': after('MaxPool', kernel_shape=[3, 3], strides=[2, 2], features=36),
  'padded maximum': after(
    'MaxPool', kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, features=64
  ),
  'rounded up': after('MaxPool', kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, features=64),
  'mean': after('AveragePool', kernel_shape=[3, 3], strides=[3, 3], features=16),
  'mean with zeros': after(
    'AveragePool', kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
  ),
  'mean without zeros': after('AveragePool', kernel_shape=[3, 3], pads=[1] * 4),
  'a window of one': after('AveragePool', kernel_shape=[1, 1]),
  'global mean': after('GlobalAveragePool', features=4),
  'global maximum': after('GlobalMaxPool', features=4),
  'mean over axes': after('ReduceMean', axes=[-1, -2], keepdims=1, features=4),
  'mean over an input': after(
    'ReduceMean', 'a', opset=18, constants={'a': np.array([2, 3])}, keepdims=0, features=4
  ),
  'scale': after('Mul', 's', constants={'s': channels(4, 1, 1)}),
  'divisor': after('Div', 's', constants={'s': channels(1, 4, 1, 1)}),
  'bias': after('Add', 's', constants={'s': channels(4, 1, 1)}),
  'one number': after('Sub', 's', constants={'s': np.float32(0.5)}),
  'cast': after('Cast', to=1),
  'identity': after('Identity'),
  'dropout': after('Dropout'),
  'squeeze': ended(
    4,
    ('Conv', 'x w b', 'c', {}),
    ('GlobalAveragePool', 'c', 'g', {}),
    ('Squeeze', 'g a', 'z', {}),
    a=np.array([2, 3]),
    **KERNEL,
  ),
  'reversed difference': ended(
    144, ('Conv', 'x w b', 'c', {}), ('Sub', 's c', 'z', {}), s=channels(4, 1, 1), **KERNEL
  ),
  'channels last': ended(
    256,
    ('Conv', 'x w b', 'c', {'pads': [1] * 4}),
    ('Relu', 'c', 'r', {}),
    ('Transpose', 'r', 'z', {'perm': [0, 2, 3, 1]}),
    **KERNEL,
  ),
  'there and back': ended(
    256,
    ('Transpose', 'x', 't', {'perm': [0, 2, 3, 1]}),
    ('Transpose', 't', 'u', {'perm': [0, 3, 1, 2]}),
    ('Conv', 'u w b', 'z', {'pads': [1] * 4}),
    **KERNEL,
  ),
  'transB, alpha, beta': flat(
    ('Gemm', 'f e c', 'y', {'transB': 1, 'alpha': 0.5, 'beta': 2.0}), e=E, c=weights(1, 5)
  ),
  'a product and a sum': flat(
    ('MatMul', 'f d', 'm', {}), ('Add', 'b m', 'y', {}), d=D, b=weights(5)
  ),
  'features between a flatten and a layer': flat(
    ('BatchNormalization', 'f s s m v', 'n', {}),
    ('Relu', 'n', 'r', {}),
    ('Concat', 'r f', 'k', {'axis': 1}),
    ('MatMul', 'k d', 'y', {}),
    s=weights(192),
    m=weights(192, seed=6),
    v=np.abs(weights(192, seed=7)),
    d=weights(384, 5),
  ),
  'a sum of three': ended(
    256,
    ('Conv', 'x w b', 'c', {'pads': [1] * 4}),
    ('Relu', 'c', 'r', {}),
    ('Conv', 'x w s', 'e', {'pads': [1] * 4}),
    ('Sum', 'c r e', 'z', {}),
    s=weights(4, seed=8),
    **KERNEL,
  ),
  'a shape that is computed': (
    [
      ('Conv', 'x w b', 'c', {}),
      ('Shape', 'c', 's', {}),
      ('Gather', 's zero', 'n', {'axis': 0}),
      ('Unsqueeze', 'n axis', 'u', {}),
      ('Constant', '', 'rest', {'value_ints': [-1]}),
      ('Concat', 'u rest', 'k', {'axis': 0}),
      ('Reshape', 'c k', 'f', {}),
      ('Transpose', 'd', 'e', {'perm': [1, 0]}),
      ('MatMul', 'f e', 'y', {}),
    ],
    {**KERNEL, 'zero': np.array(0), 'axis': np.array([0]), 'd': weights(5, 144)},
  ),
  'weights of half precision': flat(
    ('Cast', 'h', 'd', {'to': 1}), ('MatMul', 'f d', 'y', {}), h=D.astype(np.float16)
  ),
}  # fmt: skip


def saved(case, path, opset=17):
  """The file of a case above."""
  if isinstance(case[1], int):
    case, opset = case
  return onnx_graphs.save(path, *case, opset=opset)


@pytest.mark.parametrize('name', TAKEN)
def test_it_computes_what_onnxruntime_computes(name, tmp_path):
  path = saved(TAKEN[name], tmp_path / 'net.onnx')
  network, variables = safenet.from_onnx(path)
  images = onnx_graphs.images(network)
  found = jax.jit(network.apply)(variables, images)
  np.testing.assert_allclose(found, onnx_graphs.run(path, images), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize('opset', [11, 12, 13, 15, 18, 20, 23])
def test_it_takes_all_these_versions(opset, tmp_path):
  path = saved(TAKEN['padded maximum'][0], tmp_path / 'net.onnx', opset)
  assert safenet.from_onnx(path).network.layers


GATE = ('Conv', 'x w b', 'c', {'pads': [1] * 4})
REFUSED = {
  'Sigmoid': (after('Sigmoid'), 'the operator is not taken; train the network on with ReLUs'),
  'Foo': (after('Foo'), 'the operator is not taken; leave it out, or build it of those that'),
  'ConvTranspose': (after('ConvTranspose', 'w'), 'use a network that classifies'),
  'a kernel that is not square': (
    ended(4, ('Conv', 'x w', 'z', {}), w=weights(4, 3, 3, 1)),
    'a kernel of (3, 1), want the same along both axes',
  ),
  'uneven strides': (conv(4, strides=[1, 2]), 'strides (1, 2), want the same along both axes'),
  'a line': (conv(4, strides=[1]), 'strides (1,), want 2 integers: maps of two axes'),
  'other channels': (
    ended(4, ('Conv', 'x w', 'z', {}), w=weights(4, 2, 3, 3)), 'a kernel of shape (4, 2, 3, 3)'
  ),
  'a kernel that is too large': (
    ended(4, ('Conv', 'x w', 'z', {}), w=weights(4, 3, 9, 9)),
    'got a 8 x 8 map, want one on which its 9 x 9 window fits',
  ),
  'weights of the image': (
    ended(4, ('Conv', 'x x', 'z', {})), 'its kernel depends on the image, want constants'
  ),
  'NaN': (
    ended(144, ('Conv', 'x w', 'z', {}), w=KERNEL['w'] * np.nan),
    "node 'Conv_0' (Conv, output 'z'): 108 of the 108 numbers of its kernel are NaN",
  ),
  'training': (
    after(
      'BatchNormalization', 's', 's', 's', 's', training_mode=1, constants={'s': np.ones(4, 'f4')}
    ),
    'in training mode, want the export of a network in evaluation (model.eval())',
  ),
  'tanh-like bounds': (
    after('Clip', 'l', 'h', constants={'l': np.float32(-1), 'h': np.float32(1)}),
    'from -1.0 to 1.0, want 0 as the least: ReLU or ReLU6',
  ),
  'slopes': (
    after('PRelu', 's', constants={'s': weights(4, 1, 1)}),
    'with a slope for each channel, want one for all',
  ),
  'a gate': (after('Mul', 'c'), 'a product of two values; use a network without attention'),
  'a softmax inside': (after('Softmax'), 'not at the end of the network'),
  'a softmax over images': (
    flat(('MatMul', 'f d', 'm', {}), ('Softmax', 'm', 'y', {'axis': 0}), d=D),
    'over something else than classes, want them along axis 1',
  ),
  'a scale after an activation': (
    ended(256, GATE, ('Relu', 'c', 'r', {}), ('Mul', 'r s', 'z', {}), s=weights(4, 1, 1), **KERNEL),
    'of channels that no convolution or dense layer has just made',
  ),
  'numbers for each pixel': (
    after('Add', 's', constants={'s': weights(8, 8)}),
    'by numbers of shape (8, 8), want one for each',
  ),
  'a difference': (after('Sub', 'c'), 'of two values, want a constant'),
  'division by zero': (after('Div', 's', constants={'s': np.float32(0)}), 'by 0, want another'),
  'wrong sum': (
    ended(4, GATE, ('Add', 'c x', 'z', {}), **KERNEL), 'adds values of shapes (1, 4, 8, 8) and'
  ),
  'rows side by side': (
    ended(4, ('Concat', 'x x', 'z', {'axis': 2})), 'along axis 2 of nchw, want the channels'
  ),
  'constants beside': (
    ended(4, ('Concat', 'x w', 'z', {'axis': 1}), w=weights(1, 1, 8, 8)), 'with constants, want'
  ),
  'a shuffle': (
    ended(4, ('Reshape', 'x s', 'z', {}), s=np.array([0, 3, 64])), 'from (1, 3, 8, 8) to (1, 3, 64)'
  ),
  'another flatten': (ended(4, ('Flatten', 'x', 'z', {'axis': 2})), 'axis 2, want 1: one row'),
  'dilated windows': (
    after('MaxPool', kernel_shape=[2, 2], dilations=[2, 2]), 'with dilations, want windows'
  ),
  'rounded up with zeros': (
    after(
      'AveragePool', kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1
    ),
    'with ceil_mode and count_include_pad, want one of them',
  ),
  'a mean of channels': (after('ReduceMean', axes=[1]), 'over the axes (1,) of nchw, want those'),
  'a padding of ones': (
    after('Pad', 'p', 'v', constants={'p': np.int64([0, 0, 1, 1] * 2), 'v': np.float32(1)}),
    'want zeros around a map, before a convolution',
  ),
  'a padding before a pool': (
    ended(
      4,
      ('Pad', 'x p', 'q', {}),
      ('MaxPool', 'q', 'z', {'kernel_shape': [2, 2]}),
      p=np.int64([0, 0, 1, 1] * 2),
    ),
    'after a Pad, want a Conv there',
  ),
  'branches that cross': (
    ended(
      256,
      GATE,
      ('Conv', 'x w', 'e', {'pads': [1] * 4}),
      ('Add', 'c e', 's', {}),
      ('Relu', 'c', 'r', {}),
      ('Add', 's r', 'z', {}),
      **KERNEL,
    ),
    "'Conv_0' (Conv, output 'c'): whose value is read in several branches that part before it",
  ),
  'transA': (flat(('Gemm', 'f d', 'y', {'transA': 1}), d=D), 'want transA 0'),
  'weights on the left': (
    flat(('MatMul', 'd f', 'y', {}), d=E), 'whose first input does not depend on the image'
  ),
  'a product of maps': (
    ended(4, ('MatMul', 'x w', 'z', {}), w=weights(8, 8)), 'want features of the image on the left'
  ),
  'another number of features': (
    flat(('Gemm', 'f d', 'y', {}), d=weights(7, 5)), 'a kernel for 7 features, got 192'
  ),
  'too many inputs': (after('Relu', 'w'), '2 inputs, want those of this operator'),
  'constants that do not fit': (
    ended(
      4, ('Add', 'p q', 's', {}), ('Reshape', 'x s', 'z', {}), p=np.arange(2), q=np.arange(3)
    ),
    'of constants that do not fit it',
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_it_is_refused_in_one_line(name, tmp_path):
  case, message = REFUSED[name]
  path = saved(case, tmp_path / 'net.onnx')
  with pytest.raises(ValueError) as error:
    safenet.from_onnx(path)
  line = str(error.value)
  assert message in line and line.startswith(f'{path}: node ') and '\n' not in line


def test_all_nodes_that_are_refused_are_named(tmp_path):
  nodes = [
    ('Sigmoid', 'x', 'a', {}),
    ('Tanh', 'a', 'b', {}),
    ('Relu', 'b', 'c', {}),
    ('Conv', 'x w', 'd', {'strides': [1, 2]}),
    ('Add', 'c d', 'y', {}),
  ]
  path = onnx_graphs.save(tmp_path / 'net.onnx', nodes, {'w': KERNEL['w']})
  found = reader.read(path)
  assert found.imported is None and len(found.refusals) == 3
  named = [line.partition("'")[2].partition("'")[0] for line in found.refusals]
  assert named == ['Sigmoid_0', 'Tanh_1', 'Conv_3']
  becomes = [row.becomes for row in found.rows]
  hidden = 'not looked at, behind one that is refused'
  assert becomes == ['REFUSED', 'REFUSED', hidden, 'REFUSED', hidden]
  with pytest.raises(ValueError, match='2 more: see safenet inspect'):
    safenet.from_onnx(path)

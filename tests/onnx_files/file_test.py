"""Files that are damaged, foreign, too large, or tensors that are elsewhere: one line each."""

import pathlib
import sys

import numpy as np
import onnx
import pytest

import safenet_jax as safenet
from safenet_jax.onnx_files import file
from tests.support import onnx_graphs

FOLDER = pathlib.Path(__file__).parents[1] / 'data' / 'onnx'
NODES = [('Flatten', 'x', 'f', {}), ('MatMul', 'f d', 'y', {})]
CONSTANTS = {'d': onnx_graphs.weights(192, 5)}


def refuses(path, message, **options):
  with pytest.raises(ValueError) as error:
    safenet.from_onnx(path, **options)
  line = str(error.value)
  assert message in line and str(path) in line and '\n' not in line


def edited(path, edit):
  """A small network's file, after `edit` has changed the message in it."""
  model = onnx.load(onnx_graphs.save(path, NODES, CONSTANTS))
  edit(model)
  onnx.save(model, path)
  return path


def external(folder):
  """A small network whose weights are in another file."""
  path = onnx_graphs.save(folder / 'net.onnx', NODES, CONSTANTS)
  model = onnx.load(path)
  onnx.save_model(model, path, save_as_external_data=True, location='weights', size_threshold=0)
  return path


def test_other_files_are_refused(tmp_path):
  for content in (b'', b'PK\x03\x04zip', b'\x00' * 100, b'text', (FOLDER / 'make.py').read_bytes()):
    (tmp_path / 'net.onnx').write_bytes(content)
    with pytest.raises(ValueError, match='net.onnx (is damaged|holds no network).*, want an ONNX'):
      safenet.from_onnx(tmp_path / 'net.onnx')
  with pytest.raises(FileNotFoundError):
    safenet.from_onnx(tmp_path / 'none.onnx')


@pytest.mark.parametrize(
  'options, message',
  [
    ({'opset': 8}, 'opset 8, want one of 9 to 25: export it again'),
    ({'opset': 30}, 'opset 30, want one of 9 to 25: export it again'),
    ({'shape': (1, 192)}, "input 'x' has 2 axes, want images [N, C, H, W]: begin with a Flatten"),
    ({'shape': (1, 'c', 8, 8)}, "input 'x' of any number of channels, want it in the file"),
    ({'shape': (1, 3, 'h', 8)}, "input 'x' of any size, want one: size=(H, W), model.size or"),
    ({'shape': (1, 3, 1 << 20, 8)}, 'an input of 1048576 along an axis, want 1 to 16384'),
    ({'kind': 2}, "input 'x' is not of floats, want normalised images"),
    ({'inputs': 2}, '2 inputs (x, xx), want a network with one'),
    ({'outputs': 2}, '2 outputs (y, yy), want a network with one'),
    ({'output': 'd'}, "the output 'd' does not depend on the image"),
    ({'output': 'none'}, "the output 'none' does not depend on the image"),
  ],
)
def test_other_networks_are_refused(options, message, tmp_path):
  refuses(onnx_graphs.save(tmp_path / 'net.onnx', NODES, CONSTANTS, **options), message)


def test_an_output_that_is_no_row_of_classes_is_refused(tmp_path):
  relu = [('Relu', 'x', 'y', {})]
  refuses(onnx_graphs.save(tmp_path / 'net.onnx', relu), "output 'y' has the shape (1, 3, 8, 8)")
  flat = [*relu, ('Flatten', 'y', 'z', {})]
  refuses(onnx_graphs.save(tmp_path / 'net.onnx', flat, output='z'), "the output 'z' has the shape")


def test_nodes_out_of_order_and_names_that_are_not_there_are_refused(tmp_path):
  message = "node 'MatMul_0' (MatMul, output 'y') reads 'f', which nothing before it makes"
  refuses(onnx_graphs.save(tmp_path / 'net.onnx', NODES[::-1], CONSTANTS), message)


def test_names_are_shortened_and_printed_in_one_line(tmp_path):
  def rename(model):
    model.graph.node[0].name = 'a\n\x1b[31m' + 'b' * 1000
    model.graph.node[0].op_type = 'Evil\n'

  path = edited(tmp_path / 'net.onnx', rename)
  refuses(path, f"node 'a??[31m{'b' * 50}...' (Evil?, output 'f')")


def test_operators_of_other_domains_are_not_taken_for_those_of_onnx(tmp_path):
  def move(model):
    model.graph.node[0].domain = 'com.example'

  refuses(edited(tmp_path / 'net.onnx', move), '(com.example::Flatten, ')


def test_weights_in_a_file_beside_it_are_read(tmp_path):
  network, variables = safenet.from_onnx(external(tmp_path))
  kernel = np.asarray(variables['params']['dense0']['kernel'])
  # Rows in the order c, h, w become those of h, w, c.
  wanted = CONSTANTS['d'].reshape(3, 8, 8, 5).transpose(1, 2, 0, 3).reshape(192, 5)
  np.testing.assert_array_equal(kernel, wanted)


def test_weights_that_are_missing_short_or_elsewhere_are_refused(tmp_path):
  path, weights = external(tmp_path), tmp_path / 'weights'
  content = weights.read_bytes()
  weights.write_bytes(content[:-1])
  refuses(path, "tensor 'd' ends behind the end of weights")
  weights.unlink()
  refuses(path, "weights in 'weights', which is not there")
  (tmp_path / 'outside').mkdir()
  weights.symlink_to('/dev/zero')
  refuses(path, "weights in 'weights', want a file beside this one")
  for location in ('../weights', '/etc/passwd', '', 'a\0b', '.'):
    model = onnx.load(path, load_external_data=False)
    (tensor,) = model.graph.initializer
    tensor.external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    refuses(path, "weights in '")


def test_digests_are_those_of_all_files(tmp_path):
  path = external(tmp_path)
  before = file.digest(path)
  assert file.digest(path) == before and len(before) == 64
  content = bytearray((tmp_path / 'weights').read_bytes())
  content[7] ^= 1
  (tmp_path / 'weights').write_bytes(content)
  assert file.digest(path) != before


def test_tensors_of_another_size_or_type_are_refused(tmp_path):
  def lengthen(model):
    model.graph.initializer[0].dims[0] = 1 << 60

  def name(model):
    model.graph.initializer[0].data_type = onnx.TensorProto.STRING

  def negative(model):
    model.graph.initializer[0].dims[0] = -192

  for edit, message in (
    (lengthen, "tensor 'd' is damaged, want"),
    (name, "tensor 'd' of type 8, want numbers"),
    (negative, "tensor 'd' of shape (-192, 5), want sizes of at least 0"),
  ):
    refuses(edited(tmp_path / 'net.onnx', edit), message)


def test_what_grows_without_end_is_refused(tmp_path):
  """Thirty doublings would make 6 GB of a few bytes."""
  grow = [('Concat', f'c{n} c{n}', f'c{n + 1}', {'axis': 0}) for n in range(30)]
  big = [
    ('ConstantOfShape', 's', 'c', {}),
    ('Expand', 'one s', 'c', {}),
  ]
  constants = CONSTANTS | {'c0': np.zeros(6), 's': np.int64([1 << 40]), 'one': np.zeros(1)}
  for nodes in ([*grow, *NODES], [big[0], *NODES], [big[1], *NODES]):
    path = onnx_graphs.save(tmp_path / 'net.onnx', nodes, constants)
    refuses(path, 'of constants that do not fit it')


def test_blocks_in_blocks_without_end_are_refused(tmp_path):
  nodes, first = [], 'x'
  for n in range(200):
    nodes.append(('Relu', first, f'r{n}', {}))
    first = f'r{n}'
  for n in reversed(range(200)):
    nodes.append(('Add', f'{first} r{n}', f'a{n}', {}))
    first = f'a{n}'
  nodes += [('Flatten', first, 'f', {}), NODES[1]]
  path = onnx_graphs.save(tmp_path / 'net.onnx', nodes, CONSTANTS)
  refuses(path, 'in blocks more than 32 deep, want fewer')


def test_a_package_that_is_not_there_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnx', None)
  with pytest.raises(
    ValueError, match=r"onnx is not installed, want: pip install 'safenet_jax\[on"
  ):
    safenet.from_onnx(FOLDER / 'fire.onnx')


@pytest.mark.parametrize('name', ['fire', 'view', 'perceptron'])
def test_cut_files_and_flipped_bytes_are_taken_or_refused_in_one_line(name, tmp_path):
  """Never another error than ValueError, whatever byte is wrong."""
  content, path = (FOLDER / f'{name}.onnx').read_bytes(), tmp_path / 'net.onnx'
  random = np.random.default_rng(0)
  damaged = [content[: random.integers(len(content))] for _ in range(20)]
  for _ in range(80):
    changed = bytearray(content)
    for place in random.integers(len(content), size=random.integers(1, 4)):
      changed[place] ^= 1 << random.integers(8)
    damaged.append(bytes(changed))
  refused = 0
  for each in damaged:
    path.write_bytes(each)
    try:
      file.read(path)
      safenet.from_onnx(path)
    except ValueError as error:
      refused += 1
      assert str(path) in str(error) and '\n' not in str(error) and len(str(error)) < 1000
  assert refused > 20  # all that are cut, and some others

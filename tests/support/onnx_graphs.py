"""Small ONNX files made by hand, and what onnxruntime makes of them."""

import numpy as np
import onnx
from onnx import helper, numpy_helper
import onnxruntime

IMAGE = (1, 3, 8, 8)


def weights(*shape, seed=0):
  """Random float32, the same every time."""
  return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def save(
  path, nodes, constants=(), *, shape=IMAGE, output='y', opset=17, outputs=1, kind=1, inputs=1
):
  """Writes a graph of (operator, inputs, output, attributes) to a file, and returns its path.

  The input is 'x'. `constants` are arrays by name.
  """
  made = [
    helper.make_node(operator, given.split(), made.split(), name=f'{operator}_{place}', **more)
    for place, (operator, given, made, more) in enumerate(nodes)
  ]
  graph = helper.make_graph(
    made,
    'graph',
    [helper.make_tensor_value_info('x' * (n + 1), kind, shape) for n in range(inputs)],
    [helper.make_tensor_value_info(output * (n + 1), 1, None) for n in range(outputs)],
    [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)])
  model.ir_version = 8
  onnx.save(model, path)
  return path


def run(path, images):
  """onnxruntime's output for images [N, H, W, C], one at a time."""
  session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
  (given,) = session.get_inputs()
  return np.concatenate(
    [session.run(None, {given.name: image.transpose(2, 0, 1)[None]})[0] for image in images]
  )


def images(network, count=2):
  """Random normalised images of a network."""
  return weights(count, *network.input_shape, seed=1)

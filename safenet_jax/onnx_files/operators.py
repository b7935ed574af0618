"""The operators of ONNX that are taken, each with the function that takes it.

Their meaning is that of https://onnx.ai/onnx/operators. A function makes a value of values, and
steps on the way. One that does not take its node raises `RefusedError`, which says why, and what
could be done instead.
"""

import inspect

from safenet_jax.onnx_files import linear, maps, rearranged
from safenet_jax.onnx_files.file import Node
from safenet_jax.onnx_files.node import At, GATED, Input, Taker
from safenet_jax.onnx_files.steps import RefusedError, Steps, Value

_SMOOTH = 'train the network on with ReLUs in its place'
# What could be done instead of an operator that is not taken.
INSTEAD = {
  **dict.fromkeys(
    (
      'Sigmoid',
      'Tanh',
      'HardSwish',
      'HardSigmoid',
      'Gelu',
      'Erf',
      'Elu',
      'Selu',
      'Softplus',
      'Mish',
    ),
    _SMOOTH,
  ),
  **dict.fromkeys(('Softmax', 'LogSoftmax', 'Einsum'), GATED),
  **dict.fromkeys(
    ('LayerNormalization', 'InstanceNormalization', 'GroupNormalization', 'LRN'),
    'train the network with BatchNormalization in its place',
  ),
  **dict.fromkeys(
    ('QLinearConv', 'QuantizeLinear', 'DequantizeLinear', 'ConvInteger', 'QLinearMatMul'),
    'export the network of floats',
  ),
  **dict.fromkeys(
    ('If', 'Loop', 'Scan'), 'export the network for one size of images, without control flow'
  ),
  **dict.fromkeys(('LSTM', 'GRU', 'RNN'), 'use a convolutional network'),
  'ConvTranspose': 'use a network that classifies',
  'Resize': 'use a network that classifies',
  'ArgMax': 'end the network at its logits',
}


def take(node: Node, place: int, steps: Steps, inputs: list[Input], last: bool) -> Value:
  """What a node makes of its inputs, one of which depends on the image.

  Args:
    node: of the file.
    place: its number there.
    steps: get the steps that it becomes.
    inputs: what it reads.
    last: whether its output is the network's.

  Raises:
    RefusedError: it is not taken.
  """
  if node.operator not in TAKEN:
    instead = INSTEAD.get(
      node.operator, 'leave it out, or build it of those that docs/onnx.md lists'
    )
    raise RefusedError(f'the operator is not taken; {instead}')
  function = TAKEN[node.operator]
  first = inputs[0] if inputs else None
  if not isinstance(first, Value) and node.operator not in _SYMMETRIC:
    raise RefusedError('whose first input does not depend on the image, want the image there')
  at = At(node, place, steps, last)
  try:
    inspect.signature(function).bind(at, *inputs)
  except TypeError:
    raise RefusedError(f'{len(inputs)} inputs, want those of this operator') from None
  return function(at, *inputs)


# Operators that may have constants in front of the image's values.
_SYMMETRIC = ('Add', 'Concat', 'Div', 'Mul', 'Sub', 'Sum')
TAKEN: dict[str, Taker] = linear.TAKEN | maps.TAKEN | rearranged.TAKEN

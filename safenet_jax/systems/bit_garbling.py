"""The layers of a network of bits, garbled: both parties walk them with labels for bits.

The first layer's sums are shared. A circuit adds the shares and gives the sign. Every further
neuron is a circuit that counts the places where input and sign agree, and compares the count with
the threshold; a maximum is an OR. XNOR with a sign that the garbler knows is free and needs no
message, and neither does a threshold (`chained`).

A layer runs in groups of outputs, for all windows and images at once. A group's tables take 32 MiB
at most, if one output's do, so that parties hold few of them.
"""

from collections.abc import Callable, Iterator, Sequence
import functools

import numpy as np

from safenet_jax.crypto.garbled_circuits import chained, circuits, half_gates
from safenet_jax.crypto.garbled_circuits.garbled_block import GarbledBlock
from safenet_jax.crypto.randomness import Randomness
from safenet_jax.systems.bit_network import BitNetwork, Pool, Sums

_GROUP_BYTES = 1 << 25
# Two table rows of 16 bytes.
_AND_BYTES = 32


@functools.cache
def threshold(inputs: int) -> circuits.Circuit:
  """Whether a count of so many bits reaches a number of `limit_bits`, which the garbler knows."""
  builder = circuits.Builder()
  bits = builder.input('bits', inputs)
  limit = builder.input('limit', limit_bits(inputs))
  count = circuits.popcount(builder, bits)
  count = [*count, *[False] * (len(limit) - len(count))]
  return builder.build([circuits.greater_equal(builder, count, limit)])


@functools.cache
def score(inputs: int, bits: int) -> circuits.Circuit:
  """A count of so many bits plus a number that the garbler knows, in a word of `bits` bits."""
  builder = circuits.Builder()
  count = circuits.popcount(builder, builder.input('bits', inputs))
  count = [*count, *[False] * (bits - len(count))]
  return builder.build(circuits.add(builder, count, builder.input('limit', bits)))


@functools.cache
def either() -> circuits.Circuit:
  """The OR of four bits: three ANDs."""
  builder = circuits.Builder()
  a, b, c, d = map(builder.not_, builder.input('bits', 4))
  none = builder.and_(builder.and_(a, b), builder.and_(c, d))
  return builder.build([builder.not_(none)])


def limit_bits(inputs: int) -> int:
  """Bits of a threshold in 0..inputs + 1."""
  return (inputs + 1).bit_length()


def score_bits(inputs: int) -> int:
  """Bits of a score: of the count, and as much again for what is added."""
  return inputs.bit_length() + 1


def circuit(layer: Sums, last: bool) -> circuits.Circuit:
  """The circuit of one neuron of a linear layer behind the first."""
  return score(layer.inputs, score_bits(layer.inputs)) if last else threshold(layer.inputs)


def blocks(
  layers: Sequence[Sums | Pool], share_bits: int, images: int
) -> Iterator[tuple[circuits.Circuit, int]]:
  """The circuit and the instances of every block, in the order of the walk.

  Args:
    layers: of the network.
    share_bits: width of the first layer's shares.
    images: that run together.

  Raises:
    ValueError: the windows of one output are more than a block holds.
  """
  for number, layer in enumerate(layers):
    if number == 0 or isinstance(layer, Pool):
      gates = circuits.relu_sign(share_bits) if number == 0 else either()
      count = layer.patches.shape[1] if isinstance(layer, Pool) else layer.neurons
      yield from ((gates, part.stop - part.start) for part in _parts(count * images))
      continue
    gates = circuit(layer, number == len(layers) - 1)
    for group in _groups(layer, gates, images):
      yield gates, images * len(layer.window.patches) * (group.stop - group.start)


def ands(layers: Sequence[Sums | Pool], share_bits: int, images: int = 1) -> int:
  """AND gates of all layers."""
  return sum(gates.and_count * count for gates, count in blocks(layers, share_bits, images))


def _parts(instances: int) -> Iterator[slice]:
  for start in range(0, instances, half_gates.MAX_BLOCK):
    yield slice(start, min(start + half_gates.MAX_BLOCK, instances))


# A party's step for one block: output labels [outputs, n, 2] of input labels [width, n, 2].
Run = Callable[[circuits.Circuit, np.ndarray], np.ndarray]
# What a party takes for the inputs of a layer's group that were gathered, and for its limits
# [bits, outputs, 2].
Own = Callable[[int, slice, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _groups(layer: Sums, gates: circuits.Circuit, images: int) -> Iterator[slice]:
  """Outputs that run together.

  Raises:
    ValueError: the windows of one output are more than a block holds.
  """
  each = len(layer.window.patches) * images
  if each > half_gates.MAX_BLOCK:
    raise ValueError(f'{images} images of {each // images} windows, want fewer images at once')
  most = min(half_gates.MAX_BLOCK, _GROUP_BYTES // (_AND_BYTES * gates.and_count)) // each
  size = max(1, most)
  for start in range(0, layer.outputs, size):
    yield slice(start, min(start + size, layer.outputs))


def _gathered(layer: Sums, labels: np.ndarray, group: slice) -> np.ndarray:
  """Labels [K, outputs, windows, B, 2] that the neurons of a group read; of the border 0."""
  patches = layer.window.patches.T
  if layer.positions is not None:
    return labels[patches[layer.positions[group].T]]
  size = group.stop - group.start
  found = labels[patches][:, None]
  return np.broadcast_to(found, (len(found), size, *found.shape[2:]))


def _walk(layers: Sequence[Sums | Pool], shares: np.ndarray, run: Run, secret: Own) -> np.ndarray:
  """The scores' labels [bits, classes, B, 2] from those of the shares, [2 bits, places, B, 2]."""
  images = shares.shape[2]

  def each(gates: circuits.Circuit, inputs: np.ndarray) -> np.ndarray:
    """Labels [places, B, 2] of one output from [width, places, B, 2]."""
    flat = inputs.reshape(len(inputs), -1, 2)
    found = [run(gates, flat[:, part])[0] for part in _parts(flat.shape[1])]
    return np.concatenate(found).reshape(-1, images, 2)

  labels = each(circuits.relu_sign(len(shares) // 2), shares)
  for number, layer in enumerate(layers[1:], 1):
    if isinstance(layer, Pool):
      labels = each(either(), labels[layer.patches])
      continue
    gates = circuit(layer, number == len(layers) - 1)
    edged = np.concatenate([labels, np.zeros((1, images, 2), np.uint64)])
    found = []
    for group in _groups(layer, gates, images):
      inputs, limits = secret(number, group, _gathered(layer, edged, group))
      shape = inputs.shape[1:]
      limits = np.broadcast_to(limits[:, :, None, None], (len(limits), *shape))
      joined = np.concatenate([inputs, limits])
      outputs = run(gates, joined.reshape(len(joined), -1, 2))
      found.append(outputs.reshape(-1, *shape))
    whole = np.concatenate(found, axis=1)  # [bits, outputs, windows, B, 2]
    labels = whole[0].reshape(-1, images, 2)
  return whole[:, :, 0]


def garble(
  network: BitNetwork,
  zeros: np.ndarray,
  delta: np.ndarray,
  randomness: Randomness,
  send: Callable[[GarbledBlock], None],
) -> np.ndarray:
  """Garbles the network, and hands out block after block.

  Args:
    network: with its secrets.
    zeros: labels of value 0 of both shares' bits, uint64 [2 bits, places, B, 2].
    delta: of the session.
    randomness: of the blocks' seeds.
    send: is given each block.

  Returns:
    The scores' labels of value 0, uint64 [bits, classes, B, 2].
  """

  @functools.lru_cache(2)
  def garbler(gates: circuits.Circuit) -> chained.Garbler:
    return chained.Garbler(gates, randomness, delta)

  def run(gates: circuits.Circuit, labels: np.ndarray) -> np.ndarray:
    block, outputs = garbler(gates).garble(labels)
    send(block)
    return outputs

  def secret(number: int, group: slice, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    signs, words = (part[group] for part in network.weights(number))
    width = _limit_bits(network.layers, number)
    bits = words >> np.arange(width)[:, None] & 1
    signs = np.broadcast_to(signs.T[:, :, None, None], inputs.shape[:-1])
    return chained.inverted(inputs, signs, delta), chained.known(bits, delta)

  return _walk(network.layers, zeros, run, secret)


def evaluate(
  layers: Sequence[Sums | Pool],
  labels: np.ndarray,
  received: Iterator[GarbledBlock],
) -> np.ndarray:
  """Evaluates the network.

  Args:
    layers: of the network, as both parties know them.
    labels: of both shares' bits, uint64 [2 bits, places, B, 2].
    received: the blocks, in the order of `blocks`.

  Returns:
    The scores' labels, uint64 [bits, classes, B, 2].
  """

  @functools.lru_cache(2)
  def evaluator(gates: circuits.Circuit) -> chained.Evaluator:
    return chained.Evaluator(gates)

  def run(gates: circuits.Circuit, inputs: np.ndarray) -> np.ndarray:
    return evaluator(gates).evaluate(next(received), inputs)

  def secret(number: int, group: slice, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    outputs = group.stop - group.start
    return inputs, np.zeros((_limit_bits(layers, number), outputs, 2), np.uint64)

  return _walk(layers, labels, run, secret)


def _limit_bits(layers: Sequence[Sums | Pool], number: int) -> int:
  layer = layers[number]
  if isinstance(layer, Pool):
    raise ValueError('a pool where a linear layer has to be')
  last = number == len(layers) - 1
  return score_bits(layer.inputs) if last else limit_bits(layer.inputs)

"""TAPAS (Sanyal et al., arXiv 1806.03461) and SHE (Lou and Jiang, NeurIPS 2019): gates under TFHE.

Both compute networks bit by bit under TFHE, where every gate is *bootstrapped* (its noise is taken
away), which takes milliseconds, and nobody interacts. A XOR takes as long as an AND there; only
inversions are free. With weights -1 and 1 that the server knows, a product is an inversion or
nothing. So a network of `bit_network` takes the gates of its counts and comparisons. (SHE's own
networks have shifts for products. What is counted here is a network of TAPAS's kind.)

No TFHE library fits this package. So the gates are counted here, and the time of one is measured
elsewhere (`experiments.systems`): their product is a model, and is called so.
"""

from collections.abc import Sequence
import functools

from safenet_jax.crypto.garbled_circuits import circuits
from safenet_jax.systems import bit_garbling, bit_network
from safenet_jax.systems.bit_network import BitNetwork, Pool, Sums

_PIXEL_BITS = 8


@functools.cache
def first_layer(inputs: int) -> circuits.Circuit:
  """Whether a sum of signed pixels reaches a threshold, from bits that the client has encrypted.

  A weight -1 inverts a pixel's bits. What that leaves out is the same for all images, and goes into
  the threshold. So the gates do not depend on the weights: here all are 1.
  """
  builder = circuits.Builder()
  words = [builder.input(f'pixel {number}', _PIXEL_BITS) for number in range(inputs)]
  total = circuits.column_sum(builder, list(zip(*words)))
  limit = builder.input('limit', len(total))
  return builder.build([circuits.greater_equal(builder, total, limit)])


def gates(layers: Sequence[Sums | Pool]) -> int:
  """Bootstrapped gates of one inference, ANDs and XORs."""
  begin = bit_network.linear(layers[0])
  total = len(first_layer(begin.inputs).gates) * begin.neurons
  for number, layer in enumerate(layers[1:], 1):
    if isinstance(layer, Pool):
      total += len(bit_garbling.either().gates) * layer.patches.shape[1]
    else:
      circuit = bit_garbling.circuit(layer, number == len(layers) - 1)
      total += len(circuit.gates) * layer.neurons
  return total


def whole(network: BitNetwork) -> circuits.Circuit:
  """A network of dense layers behind its first one as a single circuit, with its weights in it.

  Its input 'bits' are those that the first layer makes; its outputs the scores, class after class,
  the lowest bit first. ValueError for layers with windows or pools.
  """
  builder = circuits.Builder()
  bits = builder.input('bits', bit_network.linear(network.layers[0]).neurons)
  for number, layer in enumerate(network.layers[1:], 1):
    if isinstance(layer, Pool) or layer.window.kernel:
      raise ValueError('a layer with windows, want dense layers')
    secret = network.weights(number)
    positions = range(layer.inputs) if layer.positions is None else None
    found: list[circuits.Bit] = []
    for output, (signs, limit) in enumerate(zip(secret.signs, secret.thresholds)):
      places = positions if positions is not None else layer.positions[output]  # type: ignore
      agree = [
        bits[place] if sign else builder.not_(bits[place]) for place, sign in zip(places, signs)
      ]
      count = circuits.popcount(builder, agree)
      if number == len(network.layers) - 1:
        width = bit_garbling.score_bits(layer.inputs)
        word = [*count, *[False] * (width - len(count))]
        found += circuits.add(builder, word, circuits.constant(int(limit), width))
      else:
        width = bit_garbling.limit_bits(layer.inputs)
        word = [*count, *[False] * (width - len(count))]
        found.append(circuits.greater_equal(builder, word, circuits.constant(int(limit), width)))
    bits = found
  return builder.build(bits)

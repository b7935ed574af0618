"""Both parties' side of one garbled block, for tests."""

import dataclasses

import numpy as np

from safenet_jax.crypto.garbled_circuits import garbling, wires
from safenet_jax.crypto.randomness import InsecureSeededRandomness
from tests.support import plain_circuits


def spread(bits, label):
  """bit * label for packed bits: uint64 [width, block, 2]."""
  return np.unpackbits(bits, axis=1, bitorder='little')[..., None] * label


def random_bits(circuit, block, randomness):
  return {
    name: randomness.words((width, block // 64)).view(np.uint8) for name, width in circuit.inputs
  }


@dataclasses.dataclass
class Run:
  """One garbled block with the evaluator's labels for given values."""

  garbler: garbling.Garbler
  garbled: garbling.GarbledBlock
  encoding: garbling.Encoding
  labels: dict[str, np.ndarray]

  def evaluate(self, garbled=None):
    evaluator = garbling.Evaluator(self.garbler.circuit, self.garbler.block)
    return evaluator.evaluate(garbled or self.garbled, self.labels)

  def valid(self, outputs):
    """Which output labels are one of the two: bool [outputs, block]."""
    expected = self.encoding.output_labels ^ spread(outputs.colours, self.garbler.delta)
    return (outputs.labels == expected).all(axis=-1)


def garble(circuit, block, bits=None, transferred=(), seed=5):
  """Inputs in `transferred` get their labels the way correlated OT gives them."""
  randomness = InsecureSeededRandomness(seed)
  bits = bits or random_bits(circuit, block, InsecureSeededRandomness(seed + 1))
  garbler = garbling.Garbler(circuit, block, randomness)
  zeros = {
    name: randomness.words((width, block, 2))
    for name, width in circuit.inputs
    if name in transferred
  }
  garbled, encoding = garbler.garble(zeros)
  labels = {
    name: zeros[name] ^ spread(bits[name], garbler.delta)
    if name in zeros
    else encoding.labels(name, bits[name])
    for name in bits
  }
  return Run(garbler, garbled, encoding, labels)


def assert_agrees(circuit, block, bits, transferred=()):
  run = garble(circuit, block, bits, transferred)
  outputs = run.evaluate()
  plain = plain_circuits.evaluate(
    circuit, {name: np.unpackbits(row, axis=1, bitorder='little') for name, row in bits.items()}
  )
  values = wires.decode(outputs.colours, run.encoding.decoding)
  np.testing.assert_array_equal(np.unpackbits(values, axis=1, bitorder='little'), plain)
  assert run.valid(outputs).all()

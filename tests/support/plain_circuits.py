"""Circuits in the clear, gate by gate: what garbled ones must give."""

import numpy as np

from safenet_jax.crypto.garbled_circuits import argmax, circuits


def evaluate(circuit, inputs):
  """Bool [width, N] for every input to bool [outputs, N]."""
  wires = [row for name, _ in circuit.inputs for row in np.asarray(inputs[name], bool)]
  assert inputs.keys() == dict(circuit.inputs).keys() and len(wires) == circuit.input_width
  for gate in circuit.gates:
    left = wires[gate.left.number] ^ gate.left.inverted
    right = wires[gate.right.number] ^ gate.right.inverted
    wires.append(left & right if gate.op == circuits.AND else left ^ right)
  return np.stack(
    [
      np.full_like(wires[0], bit) if isinstance(bit, bool) else wires[bit.number] ^ bit.inverted
      for bit in circuit.outputs
    ]
  )


def first_largest(client, server, bits=None):
  """The tournament of `argmax` on bool [entering, count, ...] of both shares: its result's bits.

  Of words of fewer `bits` than their shares, it also says whether they are in range.
  """

  def run(stage, left, right):
    return evaluate(stage.circuit, {'left': left, 'right': right})

  entering, count = client.shape[:2]
  form = argmax.Tournament(count, bits or entering, entering if bits else None)
  return argmax.play(form, client, server, run)


def masked_relu(bits, dropped=0):
  """The circuit of (relu(client + server) >> dropped) + mask mod 2^bits.

  It has what the circuits of the protocol have in parts: sums, selection, constants, words
  as outputs, and more that is alive at once. 3 bits - 3 - dropped ANDs.
  """
  builder = circuits.Builder()
  client, server, mask = (builder.input(name, bits) for name in ('client', 'server', 'mask'))
  value = circuits.add(builder, client, server)
  positive = builder.not_(value[-1])
  rectified = [builder.and_(bit, positive) for bit in value[dropped:-1]]
  rectified += circuits.constant(0, dropped + 1)
  return builder.build(circuits.add(builder, mask, rectified))

import numpy as np
import pytest

from safenet_jax.crypto.garbled_circuits import circuits
from safenet_jax.systems import bit_garbling, tapas_she
from safenet_jax.systems.bit_network import BitNetwork, Pool, Sums, Window
from tests.support import plain_circuits
from tests.systems import bit_networks


def dense(sparse=False):
  """A first layer that says which pixels are bright, and two dense ones."""
  random = np.random.default_rng(2)
  positions = np.sort([random.permutation(16)[:9] for _ in range(5)]) if sparse else None
  layers = (
    Sums(Window(4, 4, 1, 1), 1),
    Sums(Window(4, 4, 1), 5, positions),
    Sums(Window(1, 1, 5), 3),
  )
  net = bit_networks.with_secrets(layers, random)
  net.secrets[0].thresholds[:] = 0
  return net


@pytest.mark.parametrize('sparse', [False, True])
def test_the_whole_circuit_is_the_network(sparse):
  net, images = dense(sparse), bit_networks.images(60, shape=(4, 4, 1))
  circuit = tapas_she.whole(net)
  bits = BitNetwork(net.layers[:1], net.secrets[:1]).bits(images)
  found = np.asarray(plain_circuits.evaluate(circuit, {'bits': bits.astype(bool)}))
  words = found.reshape(3, -1, 60).astype(int)
  scores = (words << np.arange(words.shape[1])[:, None]).sum(axis=1)
  np.testing.assert_array_equal(scores.T, net.run(images))
  assert len(np.unique(scores)) > 3


def test_gates_are_counted_by_hand():
  # 3 bits are counted by one full adder, 5 gates; a comparison of 3 bits has 3 ANDs.
  layers = Sums(Window(1, 1, 3), 3), Sums(Window(1, 1, 3), 2), Sums(Window(1, 1, 2), 1)
  first = len(tapas_she.first_layer(3).gates)
  middle, last = (bit_garbling.circuit(layer, number) for number, layer in enumerate(layers[1:]))
  assert middle.and_count == 1 + 3
  assert tapas_she.gates(layers) == 3 * first + 2 * len(middle.gates) + len(last.gates)
  builder = circuits.Builder()
  adder = builder.build(circuits.popcount(builder, builder.input('bits', 3)))
  assert len(adder.gates) == 5


def test_the_first_layer_compares_a_sum_of_pixels():
  circuit = tapas_she.first_layer(3)
  pixels = np.random.default_rng(0).integers(0, 256, (3, 200))
  limits = np.random.default_rng(1).integers(0, 768, 200)
  width = dict(circuit.inputs)['limit']
  inputs = {f'pixel {k}': row >> np.arange(8)[:, None] & 1 == 1 for k, row in enumerate(pixels)}
  inputs['limit'] = limits >> np.arange(width)[:, None] & 1 == 1
  found = np.asarray(plain_circuits.evaluate(circuit, inputs))[0]
  np.testing.assert_array_equal(found, pixels.sum(axis=0) >= limits)


def test_layers_with_windows_are_refused():
  net = bit_networks.network()
  assert isinstance(net.layers[2], Pool)
  with pytest.raises(ValueError, match='a layer with windows, want dense layers'):
    tapas_she.whole(net)

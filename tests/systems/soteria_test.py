import numpy as np

from safenet_jax.systems import bit_garbling, bit_training, soteria, xonn
from safenet_jax.systems.bit_network import Sums, Window


def test_zeros_leave_out_gates():
  positions = np.tile(np.arange(4), (3, 1))
  layers = (
    Sums(Window(3, 3, 1), 8, None),
    Sums(Window(1, 1, 8), 3, positions),
    Sums(Window(1, 1, 3), 2),
  )
  found = soteria.gates(layers)
  # 4 instead of 8 bits: 3 + 3 instead of 7 + 4 ANDs in each of 3 neurons.
  assert found.binary - found.ternary == 3 * (7 + 4 - 3 - 3)


def test_half_of_the_weights_take_about_half_of_the_gates_of_cnn7():
  layers = bit_training.structure(bit_training.cnn7(), (32, 32, 3), soteria.DENSITY)
  found = soteria.gates(layers)
  full = bit_training.structure(bit_training.cnn7(), (32, 32, 3))
  assert found.binary == bit_garbling.ands(full, xonn.first(full, 1).bits)
  assert 0.5 < found.ternary / found.binary < 0.55

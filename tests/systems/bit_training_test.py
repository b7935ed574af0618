import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safenet_jax import data
from safenet_jax.systems import bit_training
from safenet_jax.systems.bit_network import Pool, Sums


def test_a_sign_is_straight_through_within_one():
  x = jnp.array([-2.0, -0.5, 0.0, 0.5, 2.0])
  np.testing.assert_array_equal(bit_training.sign(x), [-1, -1, 1, 1, 1])
  gradient = jax.grad(lambda x: (bit_training.sign(x) * jnp.arange(5.0)).sum())(x)
  np.testing.assert_array_equal(gradient, [0, 1, 2, 3, 0])


def test_the_largest_weights_of_each_neuron_are_kept():
  weights = jax.random.normal(jax.random.key(0), (6, 50))
  for kept in (1, 25, 49):
    found = np.asarray(bit_training.largest(weights, kept))
    assert (found.sum(axis=1) == kept).all()
    for row, mask in zip(np.abs(np.asarray(weights)), found):
      assert row[mask].min() > row[~mask].max()


def test_the_papers_networks_have_their_shapes():
  wide, _, last = bit_training.structure(bit_training.bm1(), (28, 28, 1))
  assert (wide.inputs, wide.neurons, last.inputs) == (784, 128, 128)
  conv, dense, last = bit_training.structure(bit_training.bm2(), (28, 28, 1))
  assert (conv.inputs, conv.neurons, dense.inputs, last.inputs) == (25, 980, 980, 100)
  layers = bit_training.structure(bit_training.cnn7(), (32, 32, 3))
  sums = [layer.neurons for layer in layers if isinstance(layer, Sums)]
  assert sums == [65536, 65536, 16384, 16384, 4096, 4096, 1024, 10]
  assert [layer for layer in layers if isinstance(layer, Pool)] == [
    Pool(32, 32, 64),
    Pool(16, 16, 64),
  ]


@pytest.mark.parametrize('density', [1.0, 0.5])
def test_training_learns_and_folding_keeps_what_it_learned(density):
  images = data.load('fashion_mnist')
  layers = bit_training.Layer(4, 3, 2), bit_training.Layer(32), bit_training.Layer(10)
  net = bit_training.train(images, layers, density=density, epochs=3)
  found = net.run(images.validation.images).argmax(-1)
  assert (found == images.validation.labels).mean() > 0.55
  if density < 1:
    assert [layer.positions.shape[1] for layer in net.layers] == [4, 392, 16]


def test_folded_bits_are_those_of_the_floats():
  """On the images whose statistics are folded, nearly all classes are those of the floats."""
  images = data.load('fashion_mnist').train.images[:500]
  layers = bit_training.structure(
    (bit_training.Layer(6, 3, pool=True), bit_training.Layer(20), bit_training.Layer(10)),
    (28, 28, 1),
  )
  parameters = bit_training.initial(jax.random.key(1), layers)
  for part in parameters:
    part['shift'] = jax.random.normal(jax.random.key(2), part['shift'].shape) / 2
  floats = np.asarray(bit_training.forward(parameters, layers, images))
  found = bit_training.folded(parameters, layers, images).run(images)
  assert (found.argmax(-1) == floats.argmax(-1)).mean() > 0.9
